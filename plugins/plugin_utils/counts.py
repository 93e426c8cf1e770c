# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers of which none or less makes no sense."""

from __future__ import annotations

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError


class CountError(FleetError):
    """A number is too small to mean anything."""


def check_counts(**counts: int | None) -> None:
    """Refuse a number below 1 by the name of its option; one that was not given is fine.

    Raises:
        CountError: nobody would ever be served, or a site would go back before it could be confirmed.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise CountError(f"{name} is {value}. It has to be 1 or more; leave it out for what is usual.")
