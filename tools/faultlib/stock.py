# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pair as its programs' own defaults make it, on the same hosts: what the product is compared with.

keepalived with nothing but a sync group (adverts every second, MASTER and BACKUP, multicast), OpenVPN with `keepalive
10 60`, started on promotion by a notify script, and clients with no timer of ours. Devices, routes, packet filter, keys
and client-config directories stay the product's: they are not what is compared, and without them stock fares worse.
Everything lies in files of its own; the product's units are kept from starting while a marker file is there.
"""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING

from . import scene

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .fleet_view import FleetView

PLACE = "/etc/spokewright-bench"
MARKER = f"{PLACE}/stock"
DROP_IN = "00-spokewright-bench.conf"
KEEPALIVED = "stock-keepalived"
CLIENT = "openvpn-client@stock"
# The host's own devices, routes and packet filter stay.
STAYING = ("spokewright-routing", "spokewright-firewall")
INTERFACES = {"inside": "inside0", "frame_relay": "fr0", "internet": "inet0"}
# What the product sets and a stock configuration has not.
SERVER_OURS = re.compile(
    r"^(keepalive|hand-window|explicit-exit-notify|max-clients|connect-freq-initial|rcvbuf|sndbuf|management|status)\b"
)
CLIENT_OURS = re.compile(r"^\s*(hand-window|connect-retry|server-poll-timeout|explicit-exit-notify)\b")


def server_config(*, text: str, name: str) -> str:
    """A daemon's configuration with what is ours taken out and the usual keepalive put in."""
    lines = [line for line in text.splitlines() if not SERVER_OURS.match(line)]
    lines += ["keepalive 10 60", f"management /run/openvpn-server/{name}.sock unix"]
    return "\n".join(lines) + "\n"


def client_config(*, text: str) -> str:
    """A site's configuration with every timer at OpenVPN's own default."""
    return "\n".join(line for line in text.splitlines() if not CLIENT_OURS.match(line)) + "\n"


# The story's pair: one daemon for every site, the options its author names. The server's files are the product's own,
# so its network, its certificates and its fixed addresses stay; what 2.6 does not start with (none of these) would go.
STORY_GONE = re.compile(r"^(tls-crypt-v2-verify|client-config-dir|mssfix|connect-freq|persist-key|allow-compression)\b")
STORY_BOTH = ["fragment 1200", "mssfix", "allow-compression yes", "comp-lzo", "persist-key"]


def story_server_config(*, text: str, name: str) -> str:
    """The story's daemon as it was on the morning of the panic: before `connect-freq` was tried."""
    lines = [line for line in server_config(text=text, name=name).splitlines() if not STORY_GONE.match(line)]
    lines = ["keepalive 60 300" if line == "keepalive 10 60" else line for line in lines]
    lines += [f"client-config-dir {PLACE}/ccd", *STORY_BOTH]
    return "\n".join(lines) + "\n"


def story_client_config(*, text: str, port: str) -> str:
    """A site of the story: no timer at all, and one port for everybody."""
    lines = [line for line in client_config(text=text).splitlines() if not STORY_GONE.match(line)]
    lines = [re.sub(r"^(remote \S+) \d+", rf"\1 {port}", line) for line in lines]
    # In front: a <connection> block has what was said before it, and `fragment` belongs to a connection.
    return "\n".join([*STORY_BOTH, *lines]) + "\n"


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """What takes the product's place: how its daemons and clients are configured, and whether one daemon is all."""

    name: str
    server: Callable[..., str]
    client: Callable[..., str]
    single: bool = False


def _client_as_is(*, text: str, port: str) -> str:  # noqa: ARG001 - every site keeps the port of its instance
    return client_config(text=text)


DEFAULTS = Flavour(name="stock", server=server_config, client=_client_as_is)
STORY = Flavour(name="story", server=story_server_config, client=story_client_config, single=True)


def keepalived_config(*, template: str, owner: bool, vips: Mapping[str, str], ids: Mapping[str, int]) -> str:
    """What a page of keepalived's manual shows."""
    instances = "".join(
        f"""
vrrp_instance {network} {{
    state {"MASTER" if owner else "BACKUP"}
    interface {INTERFACES[network]}
    virtual_router_id {ids[network]}
    priority {150 if owner else 100}
    virtual_ipaddress {{
        {vip}
    }}
}}
"""
        for network, vip in vips.items()
    )
    return Template(template).substitute(members=" ".join(vips), place=PLACE, instances=instances)


def write(host: str, path: str, text: str, *, mode: str = "0644") -> None:
    """A file on a lab host, its text on standard input."""
    command = scene.command_in(host, ["sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path} && chmod {mode} {path}"])
    subprocess.run(command, input=text, text=True, check=True, capture_output=True, timeout=60)


# One daemon gets the sites of all: their client-config files, and their routes on its device. What was is kept. A
# gateway that was without power has its own routes again, so it is asked after each scene.
_GATHER = """
mkdir -p {place}/ccd
for conf in /etc/openvpn/server/{first}.conf $(for name in {others}; do echo /etc/openvpn/server/$name.conf; done); do
  cp -a "$(sed -n 's/^client-config-dir //p' $conf)"/. {place}/ccd/
done
for name in {others}; do
  ip -4 route show dev $name | sed 's/ linkdown//' >>{place}/routes.$name
  sort -u -o {place}/routes.$name {place}/routes.$name
  while read -r route; do ip route replace $route dev {first} || exit 1; done <{place}/routes.$name
done
"""
_MOVE_BACK = """
for name in {others}; do
  [ ! -f {place}/routes.$name ] ||
    while read -r route; do ip route replace $route dev $name || exit 1; done <{place}/routes.$name
done
"""


class Stock:
    """Puts the stock configuration in the product's place, and takes it away again."""

    def __init__(
        self, *, view: FleetView, ids: Mapping[str, int], templates: Path, owner: str, flavour: Flavour = DEFAULTS
    ) -> None:
        self.view = view
        self.flavour = flavour
        self.ids = ids
        self.templates = templates
        self.owner = owner
        self.instances = sorted(set(view.instances.values()))
        self.daemons = self.instances[:1] if flavour.single else self.instances
        self._port = scene.must(owner, f"sed -n 's/^port //p' /etc/openvpn/server/{self.instances[0]}.conf").strip()

    def unit(self, instance: str) -> str:
        """The unit of a stock daemon."""
        return f"openvpn-server@stock-{instance}"

    def put(self) -> None:
        """Stop the product, start stock."""
        for host in scene.GATEWAYS:
            self._prepare(host)
        for host in scene.GATEWAYS:
            units = " ".join(self._ours(host))
            scene.must(host, f"systemctl daemon-reload; systemctl stop {units}", seconds=120)
            self._unfence(host)
        self._each_site(self._client)
        for host in (self.owner, scene.other(self.owner)):
            scene.must(host, f"systemctl enable --now {KEEPALIVED}")
        scene.wait_owner(self.view, wanted=self.owner, seconds=30)

    def take_away(self) -> None:
        """Leave nothing of it; the product's units start again with the next boot or playbook, or here."""
        for host in scene.GATEWAYS:
            daemons = " ".join(self.unit(name) for name in self.daemons)
            scene.on(host, f"systemctl disable --now {KEEPALIVED}; systemctl stop {daemons}", seconds=120)
            if self.flavour.single:
                scene.must(host, _MOVE_BACK.format(place=PLACE, others=" ".join(self.instances[1:])))
            files = f"{PLACE} /etc/systemd/system/{KEEPALIVED}.service /etc/openvpn/server/stock-*.conf"
            scene.on(host, f"rm -rf {files} /etc/systemd/system/*.service.d/{DROP_IN}; systemctl daemon-reload")
        self._each_site(self._client_back)
        for host in scene.GATEWAYS:
            scene.on(host, "systemctl start --no-block multi-user.target; systemctl reset-failed")
            units = " ".join(f"openvpn-server@{name}" for name in self.instances)
            # Whatever is to run at boot runs again: their order is systemd's.
            scene.on(host, f"systemctl start {units} keepalived $({self._enabled()})", seconds=120)

    @staticmethod
    def _unfence(host: str) -> None:
        """What keeps a node silent for which the product's keepalived does not vouch would keep stock silent."""
        for line in scene.must(host, "nft list tables").splitlines():
            if "fence" in line:
                scene.must(host, f"nft delete {line}")

    @staticmethod
    def _enabled() -> str:
        listing = "systemctl list-unit-files --state=enabled --type=service --plain --no-legend 'spokewright-*'"
        return f"{listing} | cut -d' ' -f1"

    def restart_sites(self) -> None:
        """Let the clients begin anew, so that the next fault does not wait for the one before."""
        self._each_site(lambda site: scene.must(site, f"systemctl restart {CLIENT}"))

    def _ours(self, host: str) -> list[str]:
        listed = scene.must(
            host,
            "systemctl list-units --all --plain --no-legend --type=service,path,timer,socket 'spokewright-*'"
            " keepalived.service | cut -d' ' -f1",
        ).split()
        named = [unit for unit in listed if unit.rpartition(".")[0] not in STAYING]
        return [*named, *(f"openvpn-server@{name}.service" for name in self.instances)]

    def _prepare(self, host: str) -> None:
        for unit in self._ours(host):
            drop_in = f"/etc/systemd/system/{unit}.d/{DROP_IN}"
            write(host, drop_in, f"[Unit]\nConditionPathExists=!{MARKER}\n")
        for name in self.daemons:
            text = scene.must(host, f"cat /etc/openvpn/server/{name}.conf")
            text = self.flavour.server(text=text, name=f"stock-{name}")
            write(host, f"/etc/openvpn/server/stock-{name}.conf", text)
        self._gather(host)
        units = " ".join(self.unit(name) for name in self.daemons)
        write(host, f"{PLACE}/up", f"#!/bin/sh\nexec systemctl start {units}\n", mode="0755")
        write(host, f"{PLACE}/down", f"#!/bin/sh\nexec systemctl stop {units}\n", mode="0755")
        template = (self.templates / "keepalived.conf").read_text(encoding="utf-8")
        config = keepalived_config(template=template, owner=host == self.owner, vips=self.view.vips, ids=self.ids)
        write(host, f"{PLACE}/keepalived.conf", config)
        unit_file = (self.templates / "stock-keepalived.service").read_text(encoding="utf-8")
        write(host, f"/etc/systemd/system/{KEEPALIVED}.service", Template(unit_file).substitute(place=PLACE))
        write(host, MARKER, "")

    def _gather(self, host: str) -> None:
        if self.flavour.single:
            names = {"place": PLACE, "first": self.instances[0], "others": " ".join(self.instances[1:])}
            scene.must(host, _GATHER.format(**names))

    def _client(self, site: str) -> None:
        text = scene.must(site, "cat /etc/spokewright/current/client.conf")
        write(site, "/etc/openvpn/client/stock.conf", self.flavour.client(text=text, port=self._port), mode="0600")
        scene.must(site, f"systemctl stop openvpn-client@spokewright && systemctl start {CLIENT}")

    def _client_back(self, site: str) -> None:
        scene.on(site, f"systemctl stop {CLIENT}; rm -f /etc/openvpn/client/stock.conf")
        scene.on(site, "systemctl start openvpn-client@spokewright")

    def _each_site(self, work: Callable[[str], object]) -> None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(work, self.view.lans))

    def reset(self) -> None:
        """Everything of stock back as before the fault."""
        scene.mend_all()
        for host in (self.owner, scene.other(self.owner)):
            self._unfence(host)
            self._gather(host)
            scene.must(host, f"systemctl start {KEEPALIVED}", seconds=30)
        scene.wait_owner(self.view, wanted=self.owner, seconds=30)
        daemons = " ".join(self.unit(name) for name in self.daemons)
        scene.must(self.owner, f"systemctl restart {daemons}", seconds=60)
        scene.must(scene.other(self.owner), f"systemctl stop {daemons}", seconds=60)
        self.restart_sites()
