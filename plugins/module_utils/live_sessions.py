# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which live sessions no longer match what the gateway's ccd files say.

Runs on gateways: standard library only. OpenVPN reads a ccd file when a client connects and not again, so a session
lives on with the address and the LANs of its first minute. The running state is compared with the plan, and not "what
this run changed": a run that was cut off between the two is then repaired by the next one.
"""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.module_utils.management import UNDEF, parse_status

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.module_utils.site_config import SiteEntry


ENDED = "its key has ended"


@dataclass(frozen=True)
class StaleSession:
    """A session to be started anew, and why."""

    site: str
    client_id: int
    why: str


def stale_sessions(
    *, lines: t.Sequence[str], entries: t.Sequence[SiteEntry], ended: t.Collection[str] = ()
) -> tuple[StaleSession, ...]:
    """Compare one daemon's answer to ``status 3`` with the entries of that instance.

    ``ended``: sites that came with a key that no gateway lets in any more.

    Clients whose handshake still runs, or that have no address yet, read their ccd file only now: they are left alone.
    """
    wanted = {entry.site: entry for entry in entries}
    routes = session_lans(lines=lines)
    stale = []
    for client in parse_status(lines=lines).clients:
        if client.common_name in {"", UNDEF} or not client.virtual_address:
            continue
        why = ENDED if client.common_name in ended else ""
        why = why or _why_stale(
            entry=wanted.get(client.common_name),
            address=client.virtual_address,
            lans=routes.get(client.common_name, frozenset()),
        )
        if why:
            stale.append(StaleSession(site=client.common_name, client_id=client.client_id, why=why))
    return tuple(sorted(stale, key=lambda session: session.site))


def _why_stale(*, entry: SiteEntry | None, address: str, lans: frozenset[ipaddress.IPv4Network]) -> str:
    if entry is None:
        return "the plan does not place it on this instance"
    if address != str(entry.address):
        return "it has address %s instead of %s" % (address, entry.address)
    if lans != frozenset(entry.lans):
        return "it serves LANs %s instead of %s" % (_names(lans), _names(entry.lans))
    return ""


def _names(lans: t.Iterable[ipaddress.IPv4Network]) -> str:
    return ", ".join(str(lan) for lan in sorted(lans)) or "none"


def session_lans(*, lines: t.Sequence[str]) -> dict[str, frozenset[ipaddress.IPv4Network]]:
    """Common name -> the LANs its session serves (the iroutes), from the ROUTING_TABLE of ``status 3``.

    The table also holds each client's own address and, marked with a final ``C``, addresses learnt from a LAN's
    traffic; neither is an iroute. Iroutes are the rows written with a prefix length.
    """
    columns: dict[str, int] = {}
    found: dict[str, set[ipaddress.IPv4Network]] = {}
    for line in lines:
        fields = line.split("\t")
        if fields[:2] == ["HEADER", "ROUTING_TABLE"]:
            columns = {name: index for index, name in enumerate(fields[1:])}
        elif fields[0] == "ROUTING_TABLE" and columns:
            address = fields[columns["Virtual Address"]]
            if "/" in address and ":" not in address:
                lan = ipaddress.IPv4Network(address.rstrip("C"), strict=False)
                found.setdefault(fields[columns["Common Name"]], set()).add(lan)
    return {name: frozenset(lans) for name, lans in found.items()}
