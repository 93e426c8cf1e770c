# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How large packets in a tunnel may be, so that what carries them fits every transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_IPV4 = 20  # RFC 791, without options
_UDP = 8  # RFC 768
# OpenVPN's P_DATA_V2 with AEAD, which is all that `data-ciphers` allows: opcode and peer id, packet id, tag. The packet
# id has 4 bytes in 2.6 and 8 with the epoch keys of 2.7; nothing is compressed, so nothing more is added.
_OPCODE, _PACKET_ID, _TAG = 4, 8, 16
OVERHEAD = _IPV4 + _UDP + _OPCODE + _PACKET_ID + _TAG

TUN_MTU = 1500
MSSFIX = 1400
# OpenVPN's own limit of a packet of the control channel (`max-packet-size`), headers included.
CONTROL_PACKET = 1250


@dataclass(frozen=True, slots=True)
class TunnelFit:
    """What both ends of every tunnel are told: a site that changes its transport keeps its tunnel."""

    tun_mtu: int
    mssfix: int
    control_packet: int


def tunnel_fit(*, mtus: Iterable[int]) -> TunnelFit:
    """Fit the tunnels into the smallest of the transports' MTUs.

    Where it is Ethernet's 1500, tunnels carry 1500 too: TCP is kept well below it, and the rare large packet of another
    protocol travels in two. Where it is less, nothing is ever cut in two: who knows such a network knows why. Where the
    largest packet fits as a whole, TCP needs no limit.
    """
    smallest = min(mtus)
    if smallest < TUN_MTU:
        return TunnelFit(
            tun_mtu=smallest - OVERHEAD, mssfix=min(MSSFIX, smallest), control_packet=min(CONTROL_PACKET, smallest)
        )
    whole = TUN_MTU + OVERHEAD
    return TunnelFit(tun_mtu=TUN_MTU, mssfix=whole if smallest >= whole else MSSFIX, control_packet=CONTROL_PACKET)
