# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One verdict per site from what the gateways say, used by status, gates and reports alike."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

UP = "up"
DOWN = "down"
WRONG_ADDRESS = "wrong address"
WRONG_INSTANCE = "wrong instance"
WRONG_EPOCH = "wrong epoch"
OLD_EPOCH = "old epoch"
HANDSHAKING = "handshaking"
NEVER_SEEN = "never seen"
VERDICTS = (UP, DOWN, WRONG_ADDRESS, WRONG_INSTANCE, WRONG_EPOCH, OLD_EPOCH, HANDSHAKING, NEVER_SEEN)


@dataclass(frozen=True)
class Expected:
    """What plan and key store say of one site.

    ``keys``: the epoch of each of its keys, by key id; empty where the key store is not at hand, and then no key is
    judged. ``confirmed``: the newest epoch that the site was proven to work with.
    """

    site: str
    tunnel_address: str
    instance: str
    keys: t.Mapping[str, int] = field(default_factory=dict)
    confirmed: int = 0


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
    """
    live = [session for session in sessions if session.owner]
    if live:
        return _judge_session(expected=expected, session=max(live, key=lambda one: one.connected_since))
    if last_real_host and any(one.owner and _host(one.real_address) == last_real_host for one in handshakes):
        return SiteVerdict(expected.site, HANDSHAKING, "a handshake from %s is running" % last_real_host)
    if sessions:
        stale = sessions[0]
        return SiteVerdict(
            expected.site, DOWN, "its only session is a stale one on %s, which does not hold the VIPs" % stale.gateway
        )
    if seen_before:
        return SiteVerdict(expected.site, DOWN, "no gateway has a session of it")
    return SiteVerdict(expected.site, NEVER_SEEN, "no gateway has ever been seen with a session of it")


def _judge_session(*, expected: Expected, session: Session) -> SiteVerdict:
    where = "%s on %s" % (session.instance, session.gateway)
    if session.instance != expected.instance:
        why = "connected to %s, the plan says %s" % (where, expected.instance)
        return SiteVerdict(expected.site, WRONG_INSTANCE, why, session)
    if session.tunnel_address != expected.tunnel_address:
        why = "%s has it as %s, the plan says %s" % (where, session.tunnel_address or "-", expected.tunnel_address)
        return SiteVerdict(expected.site, WRONG_ADDRESS, why, session)
    return _judge_key(expected=expected, session=session, where=where)


def _judge_key(*, expected: Expected, session: Session, where: str) -> SiteVerdict:
    known = expected.keys.get(session.kid)
    if session.kid and expected.keys and known is None:
        why = "%s saw it with the key %s, which is none of its own" % (where, session.kid)
        return SiteVerdict(expected.site, WRONG_EPOCH, why, session)
    if known is not None and known < expected.confirmed:
        why = "%s saw it with its key of epoch %d, and it has %d since" % (where, known, expected.confirmed)
        return SiteVerdict(expected.site, OLD_EPOCH, why, session)
    return SiteVerdict(expected.site, UP, "connected to %s" % where, session)


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
