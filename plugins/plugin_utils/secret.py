# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A text that does not show itself: not in a message, not in a trace, not in a result."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Holds one secret text. `reveal` is the only way to it, so that a search for that word finds every use."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    def __format__(self, spec: str) -> str:
        return format("Secret(...)", spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    # Two equal secrets would have to hash alike, and a hash gives a little of them away.
    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied: it would leave this process.")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied: it would leave this process.")
