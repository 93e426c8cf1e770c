# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CA that issues, and while another one takes its place the next or the former one. Pure.

ca.pem of the key store holds both, with the word next or former between them: whoever reads PEM passes over that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import Events, Phase, There

EVENTS: Final = Events(made="ca-made", serves="ca-serves", retired="ca-retired")
_END: Final = "-----END CERTIFICATE-----\n"


@dataclass(frozen=True, kw_only=True)
class Authorities:
    """`serving` issues; `other` is the next one or the former one, as `phase` says. PEM certificates."""

    serving: str
    other: str = ""
    phase: Phase = "one"

    @classmethod
    def from_text(cls, text: str) -> Authorities:
        """Read what `to_text` wrote."""
        first, end, rest = text.partition(_END)
        word, _line, second = rest.partition("\n")
        if word == "next":
            return cls(serving=first + end, other=second, phase="next")
        if word == "former":
            return cls(serving=first + end, other=second, phase="former")
        return cls(serving=text)

    def to_text(self) -> str:
        """The text of ca.pem."""
        return self.serving + (f"{self.phase}\n{self.other}" if self.other else "")

    @property
    def all(self) -> tuple[str, ...]:
        """What sites trust, and what a key of theirs may have been issued by. The serving one comes first."""
        return (self.serving, self.other) if self.other else (self.serving,)

    @property
    def of_gateways(self) -> tuple[str, ...]:
        """What gateways trust. No site comes with a certificate of the next CA before that one serves."""
        return (self.serving,) if self.phase == "next" else self.all

    def there(self) -> There:
        """By fingerprint."""
        return There(
            serving=certificates.fingerprint(certificate=self.serving),
            other=certificates.fingerprint(certificate=self.other) if self.other else "",
            phase=self.phase,
        )

    def with_next(self, certificate: str) -> Authorities:
        """Another one is to follow."""
        return Authorities(serving=self.serving, other=certificate, phase="next")

    def turned(self) -> Authorities:
        """The next one issues from now on. There is no way back: sites get keys of it."""
        return Authorities(serving=self.other, other=self.serving, phase="former") if self.phase == "next" else self

    def alone(self) -> Authorities:
        """The serving one and no other."""
        return Authorities(serving=self.serving)
