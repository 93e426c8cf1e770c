# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small fleet on disk for tests: a good plan and registry, to be bent by each test."""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def host_key(seed: str) -> str:
    """Return a well-formed ed25519 host key, the same for the same seed."""
    kind = b"ssh-ed25519"
    blob = len(kind).to_bytes(4, "big") + kind + (32).to_bytes(4, "big") + hashlib.sha256(seed.encode()).digest()
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


PLAN = f"""---
plugin: spokewright.fleet.fleet
fleet: test
registry: sites.csv
lock: test.lock.json
key_store: keystore
ssh: {{user: root, port: 22, private_key_file: id_ed25519}}
tunnels:
  mode: single
  network: 10.101.0.0/24
  block_prefix: 28
  second_network: 10.102.0.0/24
  keepalive: {{interval: 2, timeout: 6}}
  instances: {{count: 2, base_port: 1194}}
  key_type: p256
inside:
  network: 10.200.0.0/24
  vip: 10.200.0.1
  vrrp_id: 10
  core_networks: [10.200.0.0/24, 10.201.0.0/24]
  core_next_hop: 10.200.0.10
transports:
  - {{name: frame_relay, network: 192.168.32.0/24, vip: 192.168.32.1, vrrp_id: 20}}
  - {{name: internet, network: 203.0.113.0/24, vip: 203.0.113.1, vrrp_id: 30}}
oob: {{network: 172.20.0.0/16, vrrp_id: 40}}
site_networks: [10.64.0.0/14]
groups: [canary, north]
policies: {{gate_seconds: 60, deadman_seconds: 120, advert_seconds: 0.1}}
gateways:
  gw1:
    host_key: {host_key("gw1")}
    cores: 2
    oob: {{interface: oob0, address: 172.20.0.1}}
    inside: {{interface: inside0, address: 10.200.0.2}}
    transports:
      frame_relay: {{interface: fr0, address: 192.168.32.2}}
      internet: {{interface: inet0, address: 203.0.113.2}}
  gw2:
    host_key: {host_key("gw2")}
    cores: 4
    oob: {{interface: oob0, address: 172.20.0.2}}
    inside: {{interface: inside0, address: 10.200.0.3}}
    transports:
      frame_relay: {{interface: fr0, address: 192.168.32.3}}
      internet: {{interface: inet0, address: 203.0.113.3}}
"""

HEADER = "id,group,oob_address,host_key,lan,options"


def site_line(number: int, *, group: str = "north", options: str = "") -> str:
    """Return the registry's line of a site."""
    name = f"site-{number:04d}"
    return f"{name},{group},172.20.1.{number},{host_key(name)},10.64.{number}.0/24,{options}"


SITES = "\n".join([HEADER, site_line(1, group="canary"), *(site_line(number) for number in (2, 3, 4))]) + "\n"


def write_fleet(
    folder: Path, *, plan: str = PLAN, sites: str | bytes | None = SITES, lock: str | bytes | None = None
) -> Path:
    """Write the files of a fleet and return its plan."""
    for name, content in (("sites.csv", sites), ("test.lock.json", lock)):
        if content is not None:
            (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    plan_file = folder / "test.fleet.yml"
    plan_file.write_text(plan, encoding="utf-8")
    return plan_file
