# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rotation of the server key, step by step: a next key beside the one in use, the switch, the former key gone.

How far it is follows from the server keys in the key store, and which sites are ready from what they have confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils import server_keys, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ledger import REASON_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_key_store import ServerKeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.server_keys import ServerKeys

State = Literal["looked", "next", "serving", "alone", "undone"]
# How many sites a message names.
NAMED: Final = 8
AGAIN: Final = "run playbooks/rotate_server_key.yml again"


class ServerKeyStepError(FleetError):
    """The step is not to be taken now."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is there after a step, or in a dry run would be. `not_ready`: sites, and what they lack."""

    phase: server_keys.Phase
    changed: bool = False
    reason: str = ""
    message: str = ""
    before: str = ""
    after: str = ""
    not_ready: Mapping[str, str] = field(default_factory=dict)


def take(
    *,
    state: State,
    fleet: Fleet,
    store: KeyStore,
    reason: str = "",
    leave_behind: Sequence[str] = (),
    dry: bool = False,
    owner: int | None = None,
) -> Step:
    """Take a step, unless it is taken already.

    Args:
        state: "next" has a next key made, once for each reason; "serving" makes that the one the gateways are to run
            with; "undone" the former one again; "alone" ends the one that does not serve; "looked" changes nothing.
        fleet: its sites have to be ready before the next key serves.
        store: the key store.
        reason: names the rotation.
        leave_behind: sites that need not be ready, and will be without a tunnel.
        dry: change nothing.
        owner: the process of the run this belongs to.

    Raises:
        ServerKeyStepError: another rotation is under way, a site is not ready, or what is left behind is unknown.
    """
    _refuse_strange(fleet=fleet, leave_behind=leave_behind)
    keys = store.server_keys
    if not keys.exists:
        raise ServerKeyStepError(f"{store.path} has no server key yet. Run playbooks/site.yml first.")
    servers, books = keys.read(), keys.books()
    before = _described(servers)
    named = _named_by(servers=servers, books=books)
    act = _act(state=state, servers=servers, named=named, reason=reason)
    lacking: dict[str, str] = {}
    if servers.phase == "next" and state in ("looked", "serving"):
        lacking = _not_ready(fleet=fleet, store=store, leave_behind=leave_behind)
    if act == "turn" and state == "serving" and lacking:
        raise ServerKeyStepError(_blocked(lacking))
    unsettled = state != "looked" and not keys.settled()
    if (act or unsettled) and not dry:
        with store.operation(f"rotate the server key: {state}", owner=owner):
            _carry_out(act=act, keys=keys, reason=reason or named)
        servers, named = keys.read(), _named_by(servers=keys.read(), books=keys.books())
    after = _foreseen(act=act, servers=servers) if dry else _described(servers)
    return Step(
        phase=servers.phase,
        changed=bool(act) or unsettled,
        reason=named,
        message=_message(act=act, servers=servers, named=named, dry=dry),
        before=before,
        after=after,
        not_ready=lacking,
    )


def _act(*, state: State, servers: ServerKeys, named: str, reason: str) -> str:
    """What is to be done to the server keys: "make", "turn", "end" or nothing."""
    phase = servers.phase
    if state == "next":
        if phase != "one":
            # A run that was killed may have left a key of which no line says why it was made.
            if named and reason and reason[:REASON_MAX] != named:
                raise ServerKeyStepError(
                    f"a rotation of the server key is under way, for {named!r}. Finish it first: {AGAIN} with "
                    f"-e reason='{named}', or take it back with -e abort=true. Nothing was changed."
                )
            return ""
        return "make" if reason and reason[:REASON_MAX] != named else ""
    if state == "serving":
        return "turn" if phase == "next" else ""
    if state == "undone":
        return "turn" if phase == "former" else ""
    return "end" if state == "alone" and phase != "one" else ""


def _carry_out(*, act: str, keys: ServerKeyStore, reason: str) -> None:
    if act == "make":
        keys.make_next(reason=reason)
    elif act == "turn":
        keys.turn(reason=reason)
    elif act == "end":
        keys.leave_alone(reason=reason)
    else:
        keys.settle(reason=reason)


def _named_by(*, servers: ServerKeys, books: server_keys.Books) -> str:
    """Why the newest of the server keys was made."""
    newest = servers.other if servers.phase == "next" and servers.other else servers.serving
    return books.reasons.get(server_keys.fingerprint(newest), "")


def _not_ready(*, fleet: Fleet, store: KeyStore, leave_behind: Sequence[str]) -> dict[str, str]:
    sites = [site.id for site in fleet.sites if site.id not in set(leave_behind)]
    index = store.index(sites=sites)
    psks = {}
    for site in sites:
        epoch = server_keys.newest(index.get(site, {}))
        key = store.site_key(site=site, epoch=epoch) if epoch else None
        if key is not None and key.other_psk is not None:
            psks[site] = tls_crypt_v2.fingerprint(text=key.other_psk.reveal())
    return server_keys.not_ready(index=index, psks=psks, sites=sites)


def _refuse_strange(*, fleet: Fleet, leave_behind: Sequence[str]) -> None:
    strange = sorted(set(leave_behind) - {site.id for site in fleet.sites})
    if strange:
        raise ServerKeyStepError(
            f"leave_behind: {', '.join(strange)}: not in the registry {fleet.plan.registry}. Nothing was changed."
        )


def _blocked(lacking: Mapping[str, str]) -> str:
    said = "; ".join(f"{site}: {why}" for site, why in list(lacking.items())[:NAMED])
    more = f"; and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
    first = ",".join(list(lacking)[:NAMED])
    return (
        f"{len(lacking)} sites would be shut out, so no gateway is changed. {said}{more}. Mend their out-of-band links "
        f"and {AGAIN}. To leave sites behind knowingly, until they are brought their new bundle out of band, add "
        f"-e leave_behind={first}."
    )


def _described(servers: ServerKeys) -> str:
    other = f"{servers.phase} {server_keys.fingerprint(servers.other)}\n" if servers.other else ""
    return f"serving {server_keys.fingerprint(servers.serving)}\n{other}"


def _foreseen(*, act: str, servers: ServerKeys) -> str:
    if act == "make":
        return _described(servers) + "next (to be made)\n"
    if act == "turn":
        return _described(servers.turned())
    return _described(servers.alone() if act == "end" else servers)


def _message(*, act: str, servers: ServerKeys, named: str, dry: bool) -> str:
    serving = server_keys.fingerprint(servers.serving)
    if dry and act:
        return {
            "make": "would make the next server key and give every site a PSK for it",
            "turn": "would make the other server key the one that the gateways run with",
            "end": "would end the other server key for good",
        }[act]
    if servers.other is None:
        return f"the gateways' server key is {serving}{f', made for {named!r}' if named else ''}; no other is kept"
    other = server_keys.fingerprint(servers.other)
    return {
        "next": f"server key {other} is to follow {serving}, for {named!r}",
        "former": f"server key {serving} has followed {other}, for {named!r}",
    }[servers.phase]
