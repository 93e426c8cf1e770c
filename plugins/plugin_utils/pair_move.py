# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Move the virtual addresses in a planned way, and measure on both gateways what that does to each site.

Both gateways send each site an echo request through their own tunnels, again and again. A site answers through the one
it is connected to, so the time between its last answer at the old owner and its first one at the new owner is the time
it was away. Each gateway's clock is set against the controller's as it says that it is ready.
"""

from __future__ import annotations

import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import vip_addresses
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Program, Said, talk
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Timeouts

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

_MODULES = ("icmp_echo", "pair_watch")
READY_SECONDS: t.Final = 20.0
LEAD_SECONDS: t.Final = 1.0
# The health daemon honours a request for 30 s at most.
GIVE_SECONDS: t.Final = 25.0
MOST_ECHOES_PER_SECOND: t.Final = 4000
QUICKEST_ECHO: t.Final = 0.05


class MoveError(FleetError):
    """The addresses were not moved, or it is not known whether they were."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What a move was like, in the controller's time.

    ``seconds``: how long each site was away; None for one that did not come back within the limit. A site that did not
    answer before the move is not in it.
    """

    owner: str
    before: str
    way: str
    began: float
    addresses_seconds: float
    seconds: Mapping[str, float | None]
    silent_before: tuple[str, ...] = ()
    resolution: float = 0.0

    @property
    def worst(self) -> float | None:
        """The longest time a site was away; None when one did not come back."""
        times = list(self.seconds.values())
        return None if None in times else max((one for one in times if one is not None), default=0.0)

    @property
    def lost(self) -> list[str]:
        """Sites that answered before, and not again."""
        return [site for site, seconds in self.seconds.items() if seconds is None]


def limit_of(fleet: Fleet) -> float:
    """How long to wait for the sites: a keepalive that runs out, and time to connect."""
    return float(fleet.plan.tunnels.keepalive.timeout + 20)


def interval_of(sites: int) -> float:
    """Seconds between two requests to one site: quick, but no flood with many sites."""
    return max(QUICKEST_ECHO, sites / MOST_ECHOES_PER_SECOND)


def move(*, fleet: Fleet, before: str, after: str, sites: Mapping[str, str]) -> Moved:
    """Let `before` give the addresses to `after`. `sites` maps each site to be watched to its tunnel address.

    Raises:
        MoveError: the addresses stayed, or a gateway could not be watched to the end.
    """
    interval, limit = interval_of(len(sites)), limit_of(fleet)
    common = {
        "vips": list(vip_addresses(fleet)),
        "echo": list(sites.values()),
        "interval": interval,
        "limit": limit,
        "lead": LEAD_SECONDS,
    }
    start = _Start(parties=2)
    gateways = {gateway.name: gateway for gateway in fleet.plan.gateways}
    timeouts = Timeouts(connect=6, banner=8, auth=8, command=limit + 30, deadline=limit + 45, retries=0)

    def watch(name: str) -> Said | str:
        give = GIVE_SECONDS if name == before else 0.0
        program = Program(modules=_MODULES, function="watch", arguments={**common, "give": give})
        try:
            return talk(
                plan=fleet.plan, gateway=gateways[name], program=program, timeouts=timeouts, reply=start.reply(name)
            )
        finally:
            start.leave()

    with ThreadPoolExecutor(max_workers=2) as pool:
        answers = dict(zip((before, after), pool.map(watch, (before, after)), strict=True))
    return judge_move(
        before=before,
        after=after,
        answers=answers,
        ahead=start.ahead,
        sites=sites,
        vips=vip_addresses(fleet),
        interval=interval,
    )


@dataclass
class _Start:
    """Both begin together, or neither; and how far each one's clock is ahead of ours is known then."""

    parties: int
    ahead: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._barrier = threading.Barrier(self.parties)

    def reply(self, name: str) -> Callable[[bytes], bytes | None]:
        """What to say to a line of a gateway's."""

        def heard(line: bytes) -> bytes | None:
            now, words = time.time(), line.split()
            if words[:1] != [b"ready"]:
                return None
            self.ahead[name] = float(words[1]) - now
            try:
                self._barrier.wait(timeout=READY_SECONDS)
            except threading.BrokenBarrierError:
                return b""
            return b"go\n"

        return heard

    def leave(self) -> None:
        """Somebody is done, or failed before it began: nobody waits for it any longer."""
        if len(self.ahead) < self.parties:
            self._barrier.abort()


def judge_move(
    *,
    before: str,
    after: str,
    answers: Mapping[str, Said | str],
    ahead: Mapping[str, float],
    sites: Mapping[str, str],
    vips: t.Sequence[str],
    interval: float,
) -> Moved:
    """What both saw, put together.

    Raises:
        MoveError: see `move`.
    """
    failed = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
    if failed:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise MoveError(f"{told}. Look who holds the addresses now: tools/fleet pair")
    old, new = t.cast("Said", answers[before]), t.cast("Said", answers[after])
    if old["held"] or sorted(new["held"]) != sorted(vips):
        asked = "/run/spokewright/" + old["gave"].get("way", "hold")
        raise MoveError(
            f"{before} was asked by {asked} to give the addresses to {after}, and afterwards {before} held "
            f"{', '.join(old['held']) or 'none'} and {after} {', '.join(new['held']) or 'none'}. The request is taken "
            f"back. Look at `journalctl -u keepalived` on {before}, and at tools/fleet pair."
        )
    lost = [when - ahead[before] for when, what, _vip in old["events"] if what == "lost"]
    got = [when - ahead[after] for when, what, _vip in new["events"] if what == "got"]
    return Moved(
        owner=after,
        before=before,
        way=old["gave"]["way"],
        began=old["gave"]["at"] - ahead[before],
        addresses_seconds=round(max(0.0, max(got, default=0.0) - min(lost, default=0.0)), 3),
        seconds={
            site: _away(address, old=old, new=new, ahead=(ahead[before], ahead[after]))
            for site, address in sites.items()
            if address in old["echoes"]
        },
        silent_before=tuple(site for site, address in sites.items() if address not in old["echoes"]),
        resolution=interval,
    )


def _away(address: str, *, old: Said, new: Said, ahead: tuple[float, float]) -> float | None:
    if address not in new["echoes"]:
        return None
    back = new["echoes"][address]
    away = float((back["first"] - ahead[1]) - (old["echoes"][address]["last"] - ahead[0]))
    # A tunnel that broke once more at the new owner was away that long too.
    return round(max(0.0, away, float(back["hole"])), 2)
