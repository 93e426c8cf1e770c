# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs a site understands, and what may be said with them."""

from __future__ import annotations

import re
from typing import Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

VERBS: Final = ("show", "stage", "activate", "confirm", "revert", "forget")
_GENERATION: Final = {
    "forget": (
        re.compile(r"|old|retired|epoch [1-9]\d*|[1-9]\d*|[0-9a-f]{64}"),
        "a number, a digest, 'epoch N', 'retired' or 'old'",
    ),
    "revert": (re.compile(r"|[1-9]\d*"), "a number"),
}


class VerbError(FleetError):
    """A verb was given what it does not understand."""


def check_generation(*, verb: str, generation: str) -> None:
    """Refuse what no site could make sense of, before 400 of them say so."""
    if verb not in _GENERATION:
        if generation:
            raise VerbError(f"generation is {generation!r}, but {verb} takes none: it means the plan's bundle.")
        return
    pattern, wanted = _GENERATION[verb]
    if not pattern.fullmatch(generation):
        raise VerbError(f"generation is {generation!r}. With {verb} it is {wanted}.")
