# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The life of a key in words, and which of a site's keys it is to work with. Pure, and without any cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# From a key's birth to its end. "accepted" means that the gateways let it in.
STATES: Final = ("issued", "accepted", "staged", "active", "confirmed", "retired", "revoked", "destroyed")
# A site is or may soon be in need of a key in one of these states.
IN_USE: Final = frozenset(("staged", "active", "confirmed"))
ENDED: Final = frozenset(("retired", "revoked", "destroyed"))


def in_force(epochs: Mapping[int, Mapping[str, Any]]) -> int:
    """The epoch of a site's newest key that has not ended. 0: it has none."""
    return max((epoch for epoch, one in epochs.items() if one["state"] not in ENDED), default=0)


def newest_of(epochs: Mapping[int, Mapping[str, Any]]) -> int:
    """The epoch that a site is to work with. 0: it never had a key.

    A rotation that was aborted leaves an ended key behind that is newer than the one in use. Where every key has ended,
    it is the last of them.
    """
    return in_force(epochs) or max(epochs, default=0)
