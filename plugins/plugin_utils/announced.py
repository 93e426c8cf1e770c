# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which prefixes the owner of the virtual addresses announces to the core.

Both gateways always have routes to every site, so a routing daemon cannot tell the owner by these. keepalived gives the
owner routes of its own: each aggregate cut in two. No other route has their prefixes, and a static route of the core to
the whole aggregate stays a backup without further ado, because it is the less specific one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from ipaddress import IPv4Network

_HOST = 32


def announced(*, aggregates: Iterable[IPv4Network], taken: Collection[str]) -> tuple[str, ...]:
    """Cut each aggregate in two, and again where a half is the prefix of a route that both gateways have (`taken`)."""
    return tuple(str(part) for aggregate in sorted(aggregates) for part in _parts(aggregate, taken))


def _parts(network: IPv4Network, taken: Collection[str]) -> Iterator[IPv4Network]:
    if network.prefixlen == _HOST:
        yield network
        return
    for half in network.subnets():
        if str(half) in taken:
            yield from _parts(half, taken)
        else:
            yield half
