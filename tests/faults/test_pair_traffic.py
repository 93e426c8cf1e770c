# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs through the pair while it changes roles, and who may speak to it."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils.icmp_echo import checksum
from faultlib import namespaces, scene
from faults.cases import BOTH_ROLES, TIMEOUT, case
from faults.stage import PUSHED_SECONDS
from lablib import topology

if TYPE_CHECKING:
    from faults.stage import Stage

pytestmark = [TIMEOUT]

PORT = 7070
TRANSFER_SECONDS = 25
ANNOUNCED_SECONDS = 20
# Counts and sums what comes in; ends when the other side has closed.
SINK = f"""
import hashlib, socket
server = socket.create_server(("", {PORT}))
print("ready", flush=True)
link, _ = server.accept()
link.settimeout(60)
size, digest = 0, hashlib.sha256()
while data := link.recv(65536):
    size += len(data)
    digest.update(data)
print(size, digest.hexdigest(), flush=True)
"""
SOURCE = """
import hashlib, os, socket, sys, time
own, core, port, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
link = socket.create_connection((core, port), timeout=60, source_address=(own, 0))
size, digest, end = 0, hashlib.sha256(), time.monotonic() + seconds
while time.monotonic() < end:
    data = os.urandom(16384)
    link.sendall(data)
    size += len(data)
    digest.update(data)
    time.sleep(0.05)
link.close()
print(size, digest.hexdigest(), flush=True)
"""


@case("tcp-survives")
@BOTH_ROLES
@pytest.mark.parametrize("fault", ["planned", "dead"])
def test_a_tcp_transfer_from_a_site_survives_a_failover(stage: Stage, owner: str, fault: str) -> None:
    site = min(stage.view.lans)
    with stage.trial(owner=owner, name=f"tcp-survives-{fault}") as trial:
        sink = subprocess.Popen(
            scene.command_in("core1", ["python3", "-c", SINK]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert sink.stdout is not None
            assert sink.stdout.readline() == "ready\n"
            words = [stage.view.lans[site], stage.view.core_address, str(PORT), str(TRANSFER_SECONDS)]
            source = subprocess.Popen(
                scene.command_in(site, ["python3", "-c", SOURCE, *words]),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                time.sleep(3)
                trial.fault = scene.hand_over(owner) if fault == "planned" else trial.kill(owner)
                sent, source_errors = source.communicate(timeout=120)
                got, sink_errors = sink.communicate(timeout=60)
            finally:
                source.kill()
                source.wait()
        finally:
            sink.kill()
            sink.wait()
        trial.settle()

    assert sent == got, (source_errors, sink_errors)
    assert int(sent.split()[0]) > 1_000_000
    trial.assert_moved()


@case("core-follows")
@BOTH_ROLES
def test_the_core_sends_to_the_new_owner_at_once(stage: Stage, owner: str) -> None:
    """The static route to the inside address: what changes is whose MAC the core has for it."""
    with stage.trial(owner=owner, name="core-follows") as trial:
        trial.fault = scene.hand_over(owner)
        scene.wait_owner(stage.view, wanted=trial.standby)
        time.sleep(0.5)
        neighbour = scene.must("core1", f"ip neighbour show {stage.view.inside_vip}")
        trial.settle()

    assert stage.view.macs[trial.standby]["inside"] in neighbour
    trial.assert_moved()
    trial.assert_sites(within=PUSHED_SECONDS)


def core_route(stage: Stage, site: str) -> str:
    """What core1 has learned of the way to a site."""
    return scene.must("core1", f"ip -4 route show match {stage.view.lans[site]} proto {stage.routing}")


@case("core-follows-routing")
@BOTH_ROLES
@pytest.mark.parametrize("fault", ["planned", "dead"])
def test_the_core_learns_the_new_owner_by_its_routing_protocol(stage: Stage, owner: str, fault: str) -> None:
    if stage.routing == "static":
        pytest.skip("the lab's plan says `routing: {protocol: static}`; set ospf or bgp there and run site.yml")
    site = min(stage.view.lans)
    with stage.trial(owner=owner, name=f"core-follows-routing-{fault}") as trial:
        trial.fault = scene.hand_over(owner) if fault == "planned" else trial.kill(owner)
        trial.settle()
        inside = topology.gateway(int(trial.standby.removeprefix("gw"))).nic("inside").address
        wanted = (f"via {inside} ", f"via {stage.view.inside_vip} ")
        # One that has just booted is told its own old announcements first, and OSPF makes it wait before new ones.
        deadline = time.monotonic() + ANNOUNCED_SECONDS
        while not any(one in (route := core_route(stage, site)) for one in wanted) and time.monotonic() < deadline:
            time.sleep(0.2)

    assert any(one in route for one in wanted), route or "nothing learned"
    trial.assert_moved()
    trial.assert_sites()


@case("forged-adverts")
@BOTH_ROLES
def test_adverts_of_a_stranger_change_nothing(stage: Stage, owner: str) -> None:
    with stage.trial(owner=owner, name="forged-adverts") as trial:
        trial.fault = time.monotonic()
        forge(stage, seconds=5)
        trial.settle()

    trial.assert_unmoved()


@case("forged-as-peer")
@BOTH_ROLES
def test_adverts_in_the_peers_name_stop_the_pair_only_while_they_last(stage: Stage, owner: str) -> None:
    """Whoever may send from a gateway's address on a network could as well answer for the virtual one there."""
    with stage.trial(owner=owner, name="forged-as-peer") as trial:
        forge(stage, seconds=5, as_peer=True)
        trial.fault = time.monotonic()
        trial.settle()

    (gateway,) = trial.seen.holders(stage.view.inside_vip)
    trial.assert_one_owner(gateway)
    trial.assert_sites()


def forge(stage: Stage, *, seconds: float, as_peer: bool = False) -> None:
    """From a site on the outside network: the highest priority, to both gateways, in its own name or in the other's."""
    site = topology.site(int(min(stage.view.lans).removeprefix("site-"))).nic("frame_relay").address
    gateways = [topology.gateway(number).nic("frame_relay").address for number in (1, 2)]
    if as_peer:
        ends = list(zip(reversed(gateways), gateways, strict=True))
    else:
        ends = [(site, target) for target in (*gateways, "224.0.0.18")]

    def make() -> socket.socket:
        link = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        link.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(site))
        return link

    vrrp_id = stage.vrrp_ids["frame_relay"]
    with namespaces.inside(min(stage.view.lans), make) as link:
        end = time.monotonic() + seconds
        sent = 0
        while time.monotonic() < end:
            for sender, target in ends:
                body = advert(sender=sender, target=target, vrrp_id=vrrp_id, vip=stage.view.outside_vip)
                link.sendto(ip_header(sender=sender, target=target) + body, (target, 0))
                sent += 1
            time.sleep(0.02)
    assert sent > 100


def ip_header(*, sender: str, target: str) -> bytes:
    """With the time to live of a neighbour. The kernel fills in length and checksum."""
    head = struct.pack("!BBHHHBBH", 0x45, 0xC0, 0, 0, 0, 255, 112, 0)
    return head + socket.inet_aton(sender) + socket.inet_aton(target)


def advert(*, sender: str, target: str, vrrp_id: int, vip: str) -> bytes:
    """A VRRPv3 advert (RFC 5798) of the highest priority a router may have without being the addresses' owner."""
    head = struct.pack("!BBBBH", 0x31, vrrp_id, 254, 1, 10)
    body = socket.inet_aton(vip)
    length = len(head) + 2 + len(body)
    pseudo = socket.inet_aton(sender) + socket.inet_aton(target) + struct.pack("!BBH", 0, 112, length)
    return head + struct.pack("!H", checksum(pseudo + head + b"\0\0" + body)) + body
