# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One verdict per site from what the gateways say, used by status, gates and reports alike."""

from __future__ import annotations

import itertools
import typing as t
from dataclasses import dataclass, field, replace

from ansible_collections.spokewright.fleet.plugins.module_utils.spans import span

UP = "up"
DOWN = "down"
WRONG_ADDRESS = "wrong address"
WRONG_INSTANCE = "wrong instance"
WRONG_EPOCH = "wrong epoch"
OLD_EPOCH = "old epoch"
DUPLICATE_SESSION = "duplicate session"
FLAPPING = "flapping"
HANDSHAKING = "handshaking"
NEVER_SEEN = "never seen"
HELD = "held"
VERDICTS = (
    UP,
    DOWN,
    DUPLICATE_SESSION,
    WRONG_ADDRESS,
    WRONG_INSTANCE,
    WRONG_EPOCH,
    OLD_EPOCH,
    FLAPPING,
    HANDSHAKING,
    NEVER_SEEN,
    HELD,
)
RECENT_SECONDS = 600
"""How far back the beginnings of a site's sessions count."""
FLAPPING_STARTS = 3
"""So many sessions that began anew in that time are no accident: a rollout begins one, one that goes back two."""


@dataclass(frozen=True)
class Expected:
    """What plan and key store say of one site.

    ``keys``: the epoch of each of its keys, by key id; empty where the key store is not at hand, and then no key is
    judged. ``confirmed``: the newest epoch that the site was proven to work with. ``transports``: over how many
    networks it may come.
    """

    site: str
    tunnel_address: str
    instance: str
    keys: t.Mapping[str, int] = field(default_factory=dict)
    confirmed: int = 0
    transports: int = 1


@dataclass(frozen=True)
class Session:
    """One tunnel session as a gateway's daemon reported it. ``owner``: that gateway held the VIPs at that moment.

    ``kid``, ``epoch``: the key the site last came with there, and ``presented`` when, Unix seconds of that gateway's
    clock. Empty where its verify script has noted none since the boot.
    """

    site: str
    gateway: str
    owner: bool
    instance: str
    tunnel_address: str
    real_address: str
    connected_since: int
    bytes_received: int
    bytes_sent: int
    kid: str = ""
    epoch: int = 0
    presented: float = 0.0


@dataclass(frozen=True)
class Start:
    """The beginning of a session, as some look found it.

    ``since``: Unix seconds of the gateway's clock. ``daemon``: gateway, instance and process that it began with.
    ``transport``: the network that the real address belongs to; empty if it is none of the plan's.
    """

    since: int
    real_address: str
    daemon: str
    kid: str = ""
    transport: str = ""


@dataclass(frozen=True)
class Handshake:
    """A half-open session: its peer is known by address only."""

    gateway: str
    owner: bool
    instance: str
    real_address: str


@dataclass(frozen=True)
class SiteVerdict:
    """The verdict on one site, with the session it rests on (if there is one) and a sentence that says why."""

    site: str
    verdict: str
    why: str
    session: Session | None = None


def judge(
    *,
    expected: Expected,
    sessions: t.Sequence[Session],
    handshakes: t.Sequence[Handshake] = (),
    seen_before: bool = False,
    last_real_host: str = "",
    starts: t.Sequence[Start] = (),
    now: float = 0.0,
    own_epoch: int = 0,
    held: str = "",
) -> SiteVerdict:
    """Judge one site.

    A session counts only on the gateway that holds the VIPs: after a failover the old gateway keeps stale sessions
    until its own timers end them.

    Args:
        expected: the plan's word.
        sessions: this site's sessions, from every instance of every gateway.
        handshakes: half-open sessions of the whole pair.
        seen_before: this site has been up at some earlier look.
        last_real_host: the address on the transport that the site came from when it was last seen.
        starts: the beginnings of its sessions that looks have found, this one included, the oldest first.
        now: the gateways' time at this look.
        own_epoch: the epoch of the key that the site itself says it runs with; 0 if it was not asked.
        held: until when and by whom its client is kept stopped, by the site's own word; empty if it is not.
    """
    live = sorted((session for session in sessions if session.owner), key=lambda one: one.connected_since)
    if held and live:
        # For a moment after it was stopped; after that, somebody else comes with its key.
        return SiteVerdict(expected.site, HELD, "%s, but still connected to %s" % (held, _where(live[-1])), live[-1])
    if held:
        return SiteVerdict(expected.site, HELD, held)
    again = _began_anew(starts=starts, now=now)
    if live:
        twice = _two_at_once(live) or _in_turn(starts=starts, transports=expected.transports, now=now)
        if twice:
            return SiteVerdict(expected.site, DUPLICATE_SESSION, twice, live[-1])
        found = _judge_session(expected=expected, session=live[-1], own_epoch=own_epoch)
        if found.verdict == UP and again:
            return replace(found, verdict=FLAPPING, why="%s, but %s" % (found.why, again))
        return found
    found = _judge_absent(
        expected=expected,
        stale=sessions[0] if sessions else None,
        handshakes=handshakes,
        seen_before=seen_before,
        last_real_host=last_real_host,
    )
    return replace(found, why="%s; %s" % (found.why, again)) if again else found


def _judge_absent(
    *,
    expected: Expected,
    stale: Session | None,
    handshakes: t.Sequence[Handshake],
    seen_before: bool,
    last_real_host: str,
) -> SiteVerdict:
    if last_real_host and any(one.owner and host_of(one.real_address) == last_real_host for one in handshakes):
        return SiteVerdict(expected.site, HANDSHAKING, "a handshake from %s is running" % last_real_host)
    if stale:
        return SiteVerdict(
            expected.site, DOWN, "its only session is a stale one on %s, which does not hold the VIPs" % stale.gateway
        )
    if seen_before:
        return SiteVerdict(expected.site, DOWN, "no gateway has a session of it")
    return SiteVerdict(expected.site, NEVER_SEEN, "no gateway has ever been seen with a session of it")


def _two_at_once(live: t.Sequence[Session]) -> str:
    """An instance ends a session when a newer one of the same name begins; two instances do not know of each other."""
    newest = live[-1]
    for other in live[:-1]:
        if host_of(other.real_address) != host_of(newest.real_address):
            return "%s has it from %s, and %s from %s at the same time" % (
                _where(other),
                host_of(other.real_address),
                _where(newest),
                host_of(newest.real_address),
            )
    return ""


def _in_turn(*, starts: t.Sequence[Start], transports: int, now: float) -> str:
    """Two boxes with one key throw each other out again and again: an address that was left comes back.

    A site that changes its transport does that alone, so addresses are compared within each transport. Those of no
    known network may belong to any transport that was not seen by name.
    """
    recent = [one for one in starts if one.since > now - RECENT_SECONDS]
    # The session that the first of these put an end to.
    before = list(starts[: len(starts) - len(recent)])[-1:]
    hosts: dict[str, list[str]] = {}
    for one in (*before, *recent):
        hosts.setdefault(one.transport, []).append(host_of(one.real_address))
    named = sum(bool(transport) for transport in hosts)
    for transport, came in hosts.items():
        own = 1 if transport else max(1, transports - named)
        distinct = list(dict.fromkeys(came))
        changes = sum(earlier != later for earlier, later in itertools.pairwise(came))
        if len(distinct) > own and changes >= len(distinct):
            return "more than one box comes with its key, in turn from %s: %d changes in the last %s" % (
                " and ".join(distinct),
                changes,
                span(now - recent[0].since),
            )
    return ""


def _began_anew(*, starts: t.Sequence[Start], now: float) -> str:
    """How often the session began anew for no reason of ours, in words; empty if not too often.

    Another gateway, a daemon that was restarted and another key are reasons.
    """
    counted = [
        later
        for earlier, later in itertools.pairwise(starts)
        if later.since > now - RECENT_SECONDS
        and later.daemon == earlier.daemon
        and (not later.kid or not earlier.kid or later.kid == earlier.kid)
    ]
    if len(counted) < FLAPPING_STARTS:
        return ""
    return "its session began anew %d times in the last %s" % (len(counted), span(now - counted[0].since))


def _judge_session(*, expected: Expected, session: Session, own_epoch: int) -> SiteVerdict:
    where = _where(session)
    if session.instance != expected.instance:
        why = "connected to %s, the plan says %s" % (where, expected.instance)
        return SiteVerdict(expected.site, WRONG_INSTANCE, why, session)
    if session.tunnel_address != expected.tunnel_address:
        why = "%s has it as %s, the plan says %s" % (where, session.tunnel_address or "-", expected.tunnel_address)
        return SiteVerdict(expected.site, WRONG_ADDRESS, why, session)
    return _judge_key(expected=expected, session=session, where=where, own_epoch=own_epoch)


def _judge_key(*, expected: Expected, session: Session, where: str, own_epoch: int) -> SiteVerdict:
    known = expected.keys.get(session.kid)
    if session.kid and expected.keys and known is None:
        why = "%s saw it with the key %s, which is none of its own" % (where, session.kid)
        return SiteVerdict(expected.site, WRONG_EPOCH, why, session)
    if known is not None and known < expected.confirmed:
        why = "%s saw it with its key of epoch %d, and it has %d since" % (where, known, expected.confirmed)
        return SiteVerdict(expected.site, OLD_EPOCH, why, session)
    if own_epoch and session.epoch and own_epoch != session.epoch:
        why = "%s saw it with its key of epoch %d, and the site says it runs with %d" % (
            where,
            session.epoch,
            own_epoch,
        )
        return SiteVerdict(expected.site, WRONG_EPOCH, why, session)
    return SiteVerdict(expected.site, UP, "connected to %s" % where, session)


def _where(session: Session) -> str:
    return "%s on %s" % (session.instance, session.gateway)


def host_of(address: str) -> str:
    """The host of ADDRESS:PORT."""
    return address.rpartition(":")[0].strip("[]")
