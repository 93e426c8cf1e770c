# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a server key's rotation or of a CA's rollover: a next one beside the one in use, the turn, the end.

How far it is follows from what is in the key store, and which sites are ready from what they have confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import REASON_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover import Books, Phase, There

State = Literal["looked", "next", "serving", "undone", "alone"]
Act = Literal["make", "turn", "end", ""]
# How many sites a message names.
NAMED: Final = 8


class RolloverError(FleetError):
    """The step is not to be taken now."""


class Rolled(Protocol):
    """What is rolled over, in the key store."""

    what: str
    playbook: str

    @property
    def exists(self) -> bool:
        """Whether there is one at all."""

    def there(self) -> There:
        """What is there now."""

    def books(self) -> Books:
        """What the ledger says of it."""

    def settled(self) -> bool:
        """Whether everything is in line with what is there."""

    def make_next(self, *, reason: str) -> None:
        """Have one that is to follow."""

    def turn(self, *, reason: str) -> None:
        """Have the other one serve."""

    def leave_alone(self, *, reason: str) -> None:
        """End the other one."""

    def settle(self, *, reason: str) -> None:
        """Bring everything in line with what is there."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is there after a step, or in a dry run would be. `not_ready`: sites, and what they lack."""

    phase: Phase
    changed: bool = False
    reason: str = ""
    message: str = ""
    before: str = ""
    after: str = ""
    not_ready: Mapping[str, str] = field(default_factory=dict)

    def answer(self, *, header: str, diff: bool) -> dict[str, Any]:
        """What a task says of it."""
        found: dict[str, Any] = {
            "changed": self.changed,
            "phase": self.phase,
            "not_ready": dict(self.not_ready),
            "reason": self.reason,
            "msg": self.message,
        }
        if diff and self.before != self.after:
            found["diff"] = {
                "before_header": header,
                "after_header": header,
                "before": self.before,
                "after": self.after,
            }
        return found


def take(
    *,
    state: State,
    rolled: Rolled,
    store: KeyStore,
    lacking: Callable[[], Mapping[str, str]],
    reason: str = "",
    dry: bool = False,
    owner: int | None = None,
) -> Step:
    """Take a step, unless it is taken already.

    Args:
        state: "next" has a next one made, once for each reason; "serving" turns to it, and "undone" turns back; "alone"
            ends the one that does not serve; "looked" changes nothing.
        rolled: the server key or the CA.
        store: the key store.
        lacking: the sites that are not ready for the turn, and why.
        reason: names the rotation.
        dry: change nothing.
        owner: the process of the run this belongs to.

    Raises:
        RolloverError: another one is under way, or a site is not ready.
    """
    if not rolled.exists:
        raise RolloverError(f"{store.path} has no {rolled.what} yet. Run playbooks/site.yml first.")
    there, named = rolled.there(), rolled.books().reason(rolled.there())
    before = _described(there)
    act = _act(state=state, rolled=rolled, there=there, named=named, reason=reason)
    missing = lacking() if there.phase == "next" and state in ("looked", "serving") else {}
    if act and state == "serving" and missing:
        raise RolloverError(blocked(missing, playbook=rolled.playbook))
    unsettled = state != "looked" and not rolled.settled()
    if (act or unsettled) and not dry:
        with store.operation(f"{rolled.what}: {state}", owner=owner):
            _carry_out(act=act, rolled=rolled, reason=reason or named)
        there = rolled.there()
        named = rolled.books().reason(there)
    return Step(
        phase=there.phase,
        changed=bool(act) or unsettled,
        reason=named,
        message=_message(act=act if dry else "", what=rolled.what, there=there, named=named),
        before=before,
        after=_foreseen(act, there) if dry else _described(there),
        not_ready=missing,
    )


def staying(*, fleet: Fleet, leave_behind: Sequence[str]) -> list[str]:
    """The sites that have to be ready."""
    strange = sorted(set(leave_behind) - {site.id for site in fleet.sites})
    if strange:
        raise RolloverError(
            f"leave_behind: {', '.join(strange)}: not in the registry {fleet.plan.registry}. Nothing was changed."
        )
    return [site.id for site in fleet.sites if site.id not in set(leave_behind)]


def blocked(lacking: Mapping[str, str], *, playbook: str) -> str:
    """Why nothing is changed, and what to do."""
    said = "; ".join(f"{site}: {why}" for site, why in list(lacking.items())[:NAMED])
    more = f"; and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
    number = "1 site" if len(lacking) == 1 else f"{len(lacking)} sites"
    return (
        f"{number} would be shut out, so no gateway is changed. {said}{more}. Mend the out-of-band links and run "
        f"playbooks/{playbook} again. To leave sites behind knowingly, until they are brought their new bundle out of "
        f"band, add -e leave_behind={','.join(list(lacking)[:NAMED])}."
    )


def _act(*, state: State, rolled: Rolled, there: There, named: str, reason: str) -> Act:
    """What is to be done."""
    if state == "next":
        wanted = reason[:REASON_MAX]
        if there.phase == "one":
            return "make" if wanted and wanted != named else ""
        # A run that was killed may have left one of which no line says why it was made.
        if wanted and named and wanted != named:
            raise RolloverError(
                f"another {rolled.what} is on its way, for {named!r}. Finish that first: run "
                f"playbooks/{rolled.playbook} with -e reason='{named}'. Nothing was changed."
            )
    elif (state, there.phase) in {("serving", "next"), ("undone", "former")}:
        return "turn"
    elif state == "alone" and there.phase != "one":
        return "end"
    return ""


def _carry_out(*, act: Act, rolled: Rolled, reason: str) -> None:
    step = {"make": rolled.make_next, "turn": rolled.turn, "end": rolled.leave_alone}.get(act, rolled.settle)
    step(reason=reason)


def _described(there: There) -> str:
    return f"serving {there.serving}\n" + (f"{there.phase} {there.other}\n" if there.other else "")


def _foreseen(act: Act, there: There) -> str:
    if act == "make":
        return _described(there) + "next (to be made)\n"
    if act == "turn":
        return f"serving {there.other}\n{'former' if there.phase == 'next' else 'next'} {there.serving}\n"
    return f"serving {there.serving}\n" if act == "end" else _described(there)


def _message(*, act: Act, what: str, there: There, named: str) -> str:
    """What is there, or what a dry run would do."""
    return {
        "make": f"would make the next {what}",
        "turn": f"would turn from the {what} {there.serving} to {there.other}",
        "end": f"would end the {what} {there.other}",
        "": {
            "one": f"the {what} is {there.serving}{f', made for {named!r}' if named else ''}; no other is kept",
            "next": f"the {what} {there.other} is to follow {there.serving}, for {named!r}",
            "former": f"the {what} {there.serving} has followed {there.other}, for {named!r}",
        }[there.phase],
    }[act]
