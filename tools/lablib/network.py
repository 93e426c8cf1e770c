# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's wires: bridges in a namespace of their own, one namespace per host, veth pairs between them."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any

from . import disk, paths, shell, topology
from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .state import State

CONTROLLER_LINK = "lab-oob"
CONTROLLER_PORT = "controller.oob"
# As bad as a metric gets: any route to a part of these ranges is preferred.
METRIC = 4294967295
# The link group of ports that are about to go.
DOOMED = 4242
# The switch answers for the addresses of its bridges where they are, and passes nothing on between them.
SWITCH_SYSCTLS = ("net.ipv4.ip_forward=0", "net.ipv4.conf.all.arp_ignore=1", "net.ipv4.conf.all.arp_announce=2")
OFF = ("net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")


def _json(command: list[str]) -> list[dict[str, Any]]:
    text = shell.run(command)
    return [entry for entry in json.loads(text or "[]") if entry]


def foreign_uses() -> list[str]:
    """Addresses and routes of this machine inside the lab's ranges that are not the lab's."""
    ranges = [ipaddress.ip_network(text) for text in topology.LAB_RANGES]
    uses: list[str] = []
    for link in _json(["ip", "-4", "-j", "address", "show"]):
        if link["ifname"] != CONTROLLER_LINK:
            uses += [
                f"address {address['local']}/{address['prefixlen']} on {link['ifname']}"
                for address in link.get("addr_info", [])
                if any(ipaddress.ip_address(address["local"]) in network for network in ranges)
            ]
    for route in _json(["ip", "-4", "-j", "route", "show", "table", "all"]):
        destination = route["dst"]
        ours = route.get("dev") == CONTROLLER_LINK or route.get("metric") == METRIC
        if destination in {"default", "0.0.0.0/0"} or ours or route.get("type") in {"local", "broadcast"}:
            continue
        network = ipaddress.ip_network(destination, strict=False)
        # A shorter prefix (a VPN's 10.0.0.0/8) is no conflict: the lab's own routes are longer and win.
        if any(network.version == r.version and network.subnet_of(r) for r in ranges):  # type: ignore[arg-type]
            uses.append(f"route {destination} on {route.get('dev', 'this machine')}")
    return sorted(set(uses))


def require_free_ranges() -> None:
    """The lab's addresses must not be anybody's on this machine."""
    uses = foreign_uses()
    if uses:
        raise LabError(
            f"The lab's address ranges ({', '.join(topology.LAB_RANGES)}) are in use on this machine: "
            f"{'; '.join(uses)}. Remove that first, or use another machine."
        )


def _add_namespace(name: str, *, state: State, sysctls: tuple[str, ...] = ()) -> None:
    if not disk.mounted(paths.NETNS) and not state.made_netns_directory:
        state.made_netns_directory = True
        state.save()
    shell.run(["ip", "netns", "add", name])
    shell.run(["ip", "netns", "exec", name, "sysctl", "-qw", *OFF, *sysctls])


def prepare(*, state: State) -> None:
    """Make the switch, the controller's plug and the routes that keep lab traffic on this machine."""
    have = {route["dst"] for route in lab_routes()}
    shell.ip_batch(
        f"route add unreachable {destination} metric {METRIC}"
        for destination in topology.LAB_RANGES
        if destination not in have
    )
    if not paths.netns(paths.SWITCH).exists():
        _add_namespace(paths.SWITCH, state=state)
    shell.run(["ip", "netns", "exec", paths.SWITCH, "sysctl", "-qw", *SWITCH_SYSCTLS])
    links = set(link_names(paths.SWITCH))
    lines = []
    for network in topology.NETWORKS.values():
        if network.name not in links:
            lines.append(f"link add {network.name} type bridge mcast_snooping 0 forward_delay 0")
        lines.append(f"link set {network.name} address {network.bridge_mac} up")
        if network.router:
            lines.append(f"address replace {network.router}/{network.prefix} broadcast + dev {network.name}")
    shell.ip_batch(lines, namespace=paths.SWITCH)
    machine_links = set(link_names(None))
    if CONTROLLER_LINK in machine_links and CONTROLLER_PORT not in links:
        shell.ip_batch([f"link delete {CONTROLLER_LINK}"])
        machine_links.discard(CONTROLLER_LINK)
    if CONTROLLER_LINK not in machine_links:
        shell.ip_batch([f"link add {CONTROLLER_LINK} type veth peer name {CONTROLLER_PORT} netns {paths.SWITCH}"])
    shell.ip_batch([f"link set {CONTROLLER_PORT} master oob up"], namespace=paths.SWITCH)
    shell.run(["sysctl", "-qw", f"net.ipv6.conf.{CONTROLLER_LINK}.disable_ipv6=1"], check=False)
    shell.ip_batch(
        [f"address replace {topology.CONTROLLER_OOB} dev {CONTROLLER_LINK}", f"link set {CONTROLLER_LINK} up"]
    )


def link_names(namespace: str | None) -> list[str]:
    """The links of a namespace, or of the machine's own."""
    where = ["-n", namespace] if namespace else []
    return [link["ifname"] for link in _json(["ip", *where, "-j", "link", "show"])]


def lab_routes() -> list[dict[str, Any]]:
    """The `unreachable` routes the lab made on this machine."""
    routes = _json(["ip", "-4", "-j", "route", "show", "type", "unreachable"])
    return [route for route in routes if route["dst"] in topology.LAB_RANGES and route.get("metric") == METRIC]


def require_no_namespace(name: str) -> None:
    """A namespace of that name must not be there yet: it would be somebody else's."""
    if paths.netns(name).exists():
        raise LabError(
            f"A network namespace '{name}' exists and is not the lab's. Remove it with: ip netns delete {name}"
        )


def plug_in(*, host: topology.Host, lans: Iterable[str], cuts: dict[str, str], state: State) -> None:
    """Make the host's namespace, its links, addresses and routes; cables that were cut stay cut."""
    _add_namespace(host.name, state=state, sysctls=(f"net.ipv4.ip_forward={int(host.forwards)}",))
    switch = []
    for nic in host.nics:
        peer = f"peer name {nic.network.interface} address {nic.mac} netns {host.name}"
        switch.append(f"link add {nic.port} type veth {peer}")
        switch += _port_lines(nic=nic, how=cuts.get(nic.network.name))
    shell.ip_batch(switch, namespace=paths.SWITCH)
    inside = ["link set lo up"]
    for nic in host.nics:
        inside += [
            f"address add {nic.cidr} broadcast + dev {nic.network.interface}",
            f"link set {nic.network.interface} up",
        ]
    inside += [f"route add {destination} via {via}" for destination, via in host.routes]
    if host.kind == "site":
        inside += ["link add lan0 type bridge", "link set lan0 up"]
    shell.ip_batch(inside, namespace=host.name)
    if host.kind == "site":
        set_lans(host=host, lans=lans)


def set_lans(*, host: topology.Host, lans: Iterable[str]) -> None:
    """Give the site the first address of each LAN on lan0, and no other."""
    shown = _json(["ip", "-n", host.name, "-4", "-j", "address", "show", "dev", "lan0"])
    have = {f"{entry['local']}/{entry['prefixlen']}" for link in shown for entry in link.get("addr_info", [])}
    wanted = []
    for lan in lans:
        network = ipaddress.ip_network(lan)
        first = network.network_address + (1 if network.num_addresses > 1 else 0)
        wanted.append(f"{first}/{network.prefixlen}")
    lines = [f"address add {address} broadcast + dev lan0" for address in wanted if address not in have]
    lines += [f"address delete {address} dev lan0" for address in sorted(have.difference(wanted))]
    shell.ip_batch(lines, namespace=host.name)


def _port_lines(*, nic: topology.Nic, how: str | None) -> list[str]:
    if how == "cable":
        return [f"link set {nic.port} master {nic.network.name} down"]
    if how == "silent":
        return [f"link set {nic.port} nomaster up"]
    return [f"link set {nic.port} master {nic.network.name} up"]


def set_cable(*, nic: topology.Nic, how: str | None) -> None:
    """Cut the cable (`cable`: no carrier, `silent`: carrier but nothing passes) or mend it (None)."""
    shell.ip_batch(_port_lines(nic=nic, how=how), namespace=paths.SWITCH)


def mute(hosts: Iterable[topology.Host]) -> None:
    """Let no packet of these hosts pass from this instant, while they notice nothing.

    A host that loses power says no goodbye: without this, killing its processes would send FIN and VRRP farewells.
    """
    lines = [f"link set dev {nic.port} state 0\n" for host in hosts for nic in host.nics]
    shell.run(["bridge", "-n", paths.SWITCH, "-force", "-batch", "-"], stdin="".join(lines), check=False)


def unplug(hosts: Iterable[topology.Host]) -> None:
    """Remove the hosts' links and namespaces; the links are gone when this returns, their names are free.

    Deleting them as one group costs one wait in the kernel instead of one for every link.
    """
    hosts = list(hosts)
    if paths.netns(paths.SWITCH).exists():
        have = set(link_names(paths.SWITCH))
        ports = [nic.port for host in hosts for nic in host.nics if nic.port in have]
        lines = [f"link set {port} group {DOOMED}" for port in ports]
        shell.ip_batch([*lines, f"link delete group {DOOMED}"] if ports else [], namespace=paths.SWITCH)
    shell.ip_batch(f"netns delete {host.name}" for host in hosts if paths.netns(host.name).exists())


def remove(*, state: State) -> None:
    """Take away the switch, the controller's plug, the routes and the namespace directory if the lab made it."""
    if CONTROLLER_LINK in link_names(None):
        shell.ip_batch([f"link delete {CONTROLLER_LINK}"])
    if paths.netns(paths.SWITCH).exists():
        shell.run(["ip", "netns", "delete", paths.SWITCH])
    shell.ip_batch(f"route delete unreachable {route['dst']} metric {METRIC}" for route in lab_routes())
    if state.made_netns_directory and paths.NETNS.is_dir() and not any(paths.NETNS.iterdir()):
        while disk.mounted(paths.NETNS):
            shell.run(["umount", str(paths.NETNS)])
        paths.NETNS.rmdir()
