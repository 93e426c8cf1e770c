# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each site gets from a gateway: one ccd file per site and tunnel, and the lint that OpenVPN does not do.

Runs on gateways: standard library only. OpenVPN checks nothing here: two sites with one address connect without a
word and the later one takes the route. So everything is checked before a file is written.
"""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import dataclass

SITE_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
MAX_LANS = 256
"""``max-routes-per-client`` of OpenVPN: further iroutes would be left out with a line in the log."""


class SiteConfigError(Exception):
    """The sites of this plan contradict each other. ``problems`` lists every contradiction."""

    def __init__(self, problems: t.Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class SiteEntry:
    """One tunnel of one site as this gateway serves it."""

    site: str
    instance: str
    address: ipaddress.IPv4Address
    lans: tuple[ipaddress.IPv4Network, ...]


def read_sites(
    *,
    sites: t.Sequence[t.Mapping[str, t.Any]],
    instances: t.Collection[str],
    network: str,
) -> tuple[SiteEntry, ...]:
    """Turn the plan's rows into entries, sorted by instance and site.

    Args:
        sites: rows with ``id``, ``tunnel_address``, ``instance`` and ``lans``.
        instances: names of the tunnel instances of this gateway.
        network: the tunnel network, for instance ``10.101.0.0/16``.

    Raises:
        SiteConfigError: with every problem of every row.
    """
    problems: list[str] = []
    entries: list[SiteEntry] = []
    for row in sites:
        try:
            entries.append(_entry(row=row))
        except ValueError as exc:
            problems.append("site %r: %s" % (row.get("id"), exc))
    problems += _lint(entries=entries, instances=instances, network=ipaddress.IPv4Network(network))
    if problems:
        raise SiteConfigError(problems)
    return tuple(sorted(entries, key=lambda entry: (entry.instance, entry.site)))


def _entry(*, row: t.Mapping[str, t.Any]) -> SiteEntry:
    site = str(row["id"])
    if not SITE_ID.fullmatch(site):
        raise ValueError("the id is no host name in lower case, so it cannot be a certificate's name and a file's name")
    lans = tuple(sorted(ipaddress.IPv4Network(lan) for lan in row["lans"]))
    if len(lans) > MAX_LANS:
        raise ValueError("%d LAN prefixes, but OpenVPN serves %d per site; join some of them" % (len(lans), MAX_LANS))
    return SiteEntry(
        site=site,
        instance=str(row["instance"]),
        address=ipaddress.IPv4Address(row["tunnel_address"]),
        lans=lans,
    )


def _lint(
    *,
    entries: t.Sequence[SiteEntry],
    instances: t.Collection[str],
    network: ipaddress.IPv4Network,
) -> t.Iterator[str]:
    reserved = {
        network.network_address: "the network's own address",
        network.network_address + 1: "the gateways' address",
        network.broadcast_address: "the broadcast address",
    }
    holders: dict[ipaddress.IPv4Address, SiteEntry] = {}
    tunnels: set[tuple[str, str]] = set()
    for entry in entries:
        if entry.instance not in instances:
            yield "site %s: instance %r is not one of %s" % (entry.site, entry.instance, ", ".join(sorted(instances)))
        if (entry.site, entry.instance) in tunnels:
            yield "site %s: listed twice on %s; remove one row" % (entry.site, entry.instance)
        tunnels.add((entry.site, entry.instance))
        if entry.address not in network:
            yield "site %s: tunnel address %s lies outside %s" % (entry.site, entry.address, network)
        elif entry.address in reserved:
            yield "site %s: tunnel address %s is %s" % (entry.site, entry.address, reserved[entry.address])
        other = holders.setdefault(entry.address, entry)
        if other is not entry:
            yield "site %s: tunnel address %s is already that of site %s; OpenVPN would serve only the later one" % (
                entry.site,
                entry.address,
                other.site,
            )
    yield from _overlaps(entries=entries)


def _overlaps(*, entries: t.Sequence[SiteEntry]) -> t.Iterator[str]:
    owned = sorted({(lan, entry.site) for entry in entries for lan in entry.lans})
    widest: tuple[ipaddress.IPv4Network, str] | None = None
    for lan, site in owned:
        if widest and lan.subnet_of(widest[0]):
            if site != widest[1]:
                yield "site %s: LAN %s overlaps %s of site %s" % (site, lan, widest[0], widest[1])
        else:
            widest = (lan, site)


def ccd_text(*, entry: SiteEntry, netmask: str) -> str:
    """The ccd file of one site: its fixed address and the LANs behind it."""
    lines = ["# Written by Ansible from the fleet's plan; changes made here are lost.\n"]
    lines.append("ifconfig-push %s %s\n" % (entry.address, netmask))
    lines += ["iroute %s %s\n" % (lan.network_address, lan.netmask) for lan in entry.lans]
    return "".join(lines)


def ccd_files(
    *,
    entries: t.Sequence[SiteEntry],
    instances: t.Collection[str],
    netmask: str,
) -> dict[str, dict[str, str]]:
    """Instance -> site -> text. An instance without sites has an empty directory, never none."""
    files: dict[str, dict[str, str]] = {name: {} for name in instances}
    for entry in entries:
        files[entry.instance][entry.site] = ccd_text(entry=entry, netmask=netmask)
    return files
