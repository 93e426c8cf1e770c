# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gate waits for positive evidence: each site's tunnel is up as planned and a packet went through it both ways."""

from __future__ import annotations

import queue
import threading
import time
import typing as t
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.module_utils.verdict import UP, SiteVerdict
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, collect
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.status import Index, judge_fleet

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

# Clocks count whole seconds in OpenVPN's status; a session may look this much older than it is.
_ROUNDING = 1.5
# What the confirmation of the sites that passed needs before the first dead-man timer runs out.
_TO_CONFIRM = 30.0
# What a look that has begun in time may take beyond it: a gateway that is switched off costs ten seconds.
_LAST_LOOK = 12.0


@dataclass(frozen=True)
class Passed:
    """One site at the gate. ``message`` is the evidence, or what is missing.

    ``seconds``: how long after its activation it was first seen to be well.
    """

    site: str
    ok: bool
    message: str
    seconds: float | None = None


def wait_for_sites(
    *,
    fleet: Fleet,
    sites: t.Sequence[str],
    seconds: float,
    since: t.Mapping[str, float] | None = None,
    deadman_seconds: float | None = None,
    keys: Index | None = None,
    look: t.Callable[..., Evidence] = collect,
    pause: float = 1.0,
    on_look: t.Callable[[int, int], None] | None = None,
) -> dict[str, Passed]:
    """Look at the pair until every site has passed or the time is over.

    Args:
        fleet: the plan to hold the evidence against.
        sites: ids of the sites that must pass.
        seconds: how long to wait in all.
        since: for each site, the controller's Unix time of its activation: an older session proves nothing.
        deadman_seconds: what each site waits to be confirmed. The gate ends early enough to confirm them all.
        keys: the key store's index; with it a site passes with its newest key only.
        look: takes one look; the default asks the real gateways.
        pause: seconds between two looks.
        on_look: told after each look how many have passed, and of how many.
    """
    address = {site.id: str(site.tunnel_address) for site in fleet.sites}
    activated = since or {}
    if deadman_seconds is not None:
        first = min(activated.values(), default=time.time())
        seconds = max(0.0, min(seconds, first + deadman_seconds - _TO_CONFIRM - time.time()))
    deadline = time.monotonic() + seconds
    passed: dict[str, Passed] = {}
    while True:
        waiting = [site for site in sites if site not in passed or not passed[site].ok]
        evidence = _in_time(
            lambda echo: look(fleet=fleet, echo=echo),
            [address[site] for site in waiting],
            seconds=max(0.0, deadline - time.monotonic()) + _LAST_LOOK,
        )
        if evidence is None:
            late = f"the gateways' answer did not come within {seconds:.0f} s"
            return {site: passed.get(site, Passed(site, ok=False, message=late)) for site in sites}
        passed.update(judge_sites(fleet=fleet, evidence=evidence, sites=waiting, since=activated, keys=keys))
        done = sum(one.ok for one in passed.values())
        if on_look is not None:
            on_look(done, len(sites))
        if done == len(sites) or time.monotonic() >= deadline:
            return passed
        time.sleep(pause)


def judge_sites(
    *,
    fleet: Fleet,
    evidence: Evidence,
    sites: t.Sequence[str],
    since: t.Mapping[str, float],
    keys: Index | None = None,
) -> dict[str, Passed]:
    """Which of these sites pass by one look; the arguments are those of `wait_for_sites`."""
    address = {site.id: str(site.tunnel_address) for site in fleet.sites}
    verdicts = judge_fleet(fleet=fleet, evidence=evidence, sightings={}, keys=keys)
    return {
        site: _judge(
            verdict=verdicts[site],
            evidence=evidence,
            address=address[site],
            since=since.get(site),
            newest=_newest((keys or {}).get(site, {})),
        )
        for site in sites
    }


def _in_time(look: t.Callable[[list[str]], Evidence], echo: list[str], *, seconds: float) -> Evidence | None:
    """One look, or nothing when it takes longer: the sites' dead-man timers do not wait for it."""
    answers: queue.SimpleQueue[Evidence | Exception] = queue.SimpleQueue()

    def serve() -> None:
        try:
            answers.put(look(echo))
        except Exception as exc:  # noqa: BLE001 - raised again where it is waited for
            answers.put(exc)

    threading.Thread(target=serve, name="spokewright-look", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        return None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _newest(epochs: t.Mapping[int, t.Mapping[str, t.Any]]) -> tuple[int, str]:
    newest = newest_of(epochs)
    return newest, str(epochs[newest]["kid"]) if newest else ""


def _judge(
    *, verdict: SiteVerdict, evidence: Evidence, address: str, since: float | None, newest: tuple[int, str]
) -> Passed:
    session, (epoch, kid) = verdict.session, newest
    if verdict.verdict != UP or session is None:
        return Passed(verdict.site, ok=False, message=f"{verdict.verdict}: {verdict.why}")
    if since is not None:
        age = evidence.clock(session.gateway) - session.connected_since
        if age > time.time() - since + _ROUNDING:
            return Passed(verdict.site, ok=False, message=f"{verdict.why}, but by a session older than the activation")
    # A session that is older than the gateway's verify script may come with a key that nobody noted.
    if epoch and session.kid != kid and (session.kid or since is not None):
        seen = (
            f"with its key of epoch {session.epoch}"
            if session.kid
            else f"with a key {session.gateway} did not note (is it built by an older version? run gateways.yml first)"
        )
        return Passed(verdict.site, ok=False, message=f"{verdict.why}, but {seen}, and epoch {epoch} is its newest")
    if address not in evidence.echoes:
        return Passed(
            verdict.site, ok=False, message=f"{verdict.why}, but {address} answers no echo through the tunnel"
        )
    key = f" with its key of epoch {epoch}" if epoch and session.kid else ""
    return Passed(
        verdict.site,
        ok=True,
        message=f"{verdict.why} as {address}{key}, an echo went through the tunnel",
        # The controller's clock may have been put back meanwhile.
        seconds=None if since is None else round(max(0.0, time.time() - since), 2),
    )
