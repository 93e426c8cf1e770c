# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own inventory: a plan, a registry and an SSH key pair, as an operator would keep them."""

from __future__ import annotations

import contextlib
import csv
import io
import ipaddress
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import disk, paths, topology
from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

COLUMNS = ("id", "group", "oob_address", "host_key", "lan", "options")
PLAN = "lab.fleet.yml"
REGISTRY = "sites.csv"
CLIENT_KEY = "ssh/id_ed25519"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the lab knows about one site."""

    id: str
    group: str
    oob_address: str
    host_key: str
    lan: str


def row(*, host: topology.Host, host_key: str) -> Row:
    """The registry row of a lab site as it is first written."""
    return Row(
        id=host.name,
        group=topology.group(host.number),
        oob_address=host.oob_address,
        host_key=host_key,
        lan=topology.default_lan(host.number),
    )


def _parse(text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    if reader.fieldnames is None:
        return []
    missing = [column for column in COLUMNS if column not in reader.fieldnames]
    if missing:
        raise LabError(
            f"{REGISTRY}:1: column {', '.join(missing)} is missing (the header is "
            f"{','.join(COLUMNS)}). Correct the header, or move the file away and run tools/lab up again."
        )
    return [{column: entry.get(column) or "" for column in COLUMNS} for entry in reader if entry.get("id")]


def merge_registry(*, text: str, rows: Iterable[Row]) -> str:
    """Bring a registry up to date: host keys corrected, new sites added, sites of a larger lab removed.

    Everything else in a row is the operator's, and so are rows whose id is none of the lab's.
    """
    wanted = {row.id: row for row in rows}
    merged = []
    for entry in _parse(text):
        if entry["id"] in wanted:
            entry["host_key"] = wanted.pop(entry["id"]).host_key
        elif re.fullmatch(r"site-\d{4}", entry["id"]):
            continue
        merged.append(entry)
    merged += [
        {
            "id": new.id,
            "group": new.group,
            "oob_address": new.oob_address,
            "host_key": new.host_key,
            "lan": new.lan,
            "options": "",
        }
        for new in wanted.values()
    ]
    output = io.StringIO()
    writer = csv.DictWriter(output, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(merged)
    return output.getvalue()


def lans(*, text: str) -> dict[str, list[str]]:
    """The LAN prefixes of each row, as far as they are valid: judging them is not the lab's business."""
    found: dict[str, list[str]] = {}
    with contextlib.suppress(LabError, csv.Error):
        for entry in _parse(text):
            for lan in entry["lan"].split():
                with contextlib.suppress(ValueError):
                    prefix = str(ipaddress.IPv4Network(lan))
                    found.setdefault(entry["id"], []).append(prefix)
    return found


def plan_text(*, host_keys: dict[str, str], cores: int) -> str:
    """The lab's plan as it is first written."""
    gateways = "".join(
        f"""\
  {host.name}:
    host_key: {host_keys[host.name]}
    cores: {cores}
    oob: {{interface: oob0, address: {host.nic("oob").address}}}
    inside: {{interface: inside0, address: {host.nic("inside").address}}}
    transports:
      frame_relay: {{interface: fr0, address: {host.nic("frame_relay").address}}}
      internet: {{interface: inet0, address: {host.nic("internet").address}}}
"""
        for host in (topology.gateway(1), topology.gateway(2))
    )
    networks = topology.NETWORKS
    return f"""\
---
# Written by `tools/lab up`, which from then on only corrects the gateways' host keys: the rest is yours to change.
plugin: spokewright.fleet.fleet
fleet: lab
registry: {REGISTRY}
lock: lab.lock.json
key_store: keystore
ssh: {{user: root, port: 22, private_key_file: {CLIENT_KEY}}}
tunnels:
  mode: single
  network: 10.101.0.0/16
  block_prefix: 28
  keepalive: {{interval: 2, timeout: 6}}
  instances: {{count: auto, base_port: 1194}}
  key_type: p256
inside:
  network: 10.200.0.0/24
  vip: {topology.INSIDE_VIP}
  vrrp_id: 10
  core_networks: [10.200.0.0/24]
  probes: [{topology.core().nic("inside").address}]
transports:
  - name: frame_relay
    network: 198.19.0.0/17
    vip: 198.19.0.1
    vrrp_id: 20
    probes: [{networks["frame_relay"].router}]
  - name: internet
    network: 198.19.128.0/17
    vip: 198.19.128.1
    vrrp_id: 30
    probes: [{networks["internet"].router}]
oob: {{network: 198.18.0.0/16, vrrp_id: 40}}
site_networks: [{topology.SITE_LANS}]
groups: [canary, north, south]
gateways:
{gateways}"""


def merge_plan(*, text: str, host_keys: dict[str, str], cores: int) -> str:
    """Correct the gateways' host keys in an existing plan and leave every other byte alone."""
    if not text.strip():
        return plan_text(host_keys=host_keys, cores=cores)
    for name, key in host_keys.items():
        pattern = rf"(^  {name}:[ \t]*\n(?:    .*\n|\s*\n|\s*#.*\n)*?    host_key:[ \t]*)[^\n]*"
        text, count = re.subn(pattern, rf"\g<1>{key}", text, count=1, flags=re.MULTILINE)
        if count == 0:
            raise LabError(
                f"{PLAN}: no line `    host_key:` under `  {name}:`, so its new host key cannot be written. "
                f"Add it, or move the file away and run tools/lab up again."
            )
    return text


def client_key() -> str:
    """The public half of the operator's key pair in this checkout, made when there is none."""
    private = paths.INVENTORY / CLIENT_KEY
    private.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = private.with_suffix(".pub")
    if not private.exists():
        public.unlink(missing_ok=True)
        disk.make_key(path=private, comment="spokewright-lab")
    if not public.exists():
        raise LabError(f"{public} is missing beside its private key. Remove {private} and run tools/lab up again.")
    for path in (private.parent, private, public):
        _give_to_owner(path)
    return public.read_text(encoding="ascii").strip()


def registry_text() -> str:
    """The registry as it lies on disk, empty when there is none."""
    return _read(paths.INVENTORY / REGISTRY)


def write(*, hosts: Iterable[topology.Host], host_keys: dict[str, str], cores: int) -> None:
    """Bring plan and registry on disk up to date."""
    rows = [row(host=host, host_key=host_keys[host.name]) for host in hosts if host.kind == "site"]
    gateways = {name: host_keys[name] for name in ("gw1", "gw2")}
    registry, plan = paths.INVENTORY / REGISTRY, paths.INVENTORY / PLAN
    _replace(registry, merge_registry(text=_read(registry), rows=rows))
    _replace(plan, merge_plan(text=_read(plan), host_keys=gateways, cores=cores))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as exc:
        raise LabError(f"{path.name} is not UTF-8 ({exc}). Save it as UTF-8, or move it away.") from exc


def _replace(path: Path, text: str) -> None:
    if _read(path) == text:
        return
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _give_to_owner(temporary)
    temporary.replace(path)


def _give_to_owner(path: Path) -> None:
    """With sudo the files still belong to whoever owns the checkout."""
    owner = paths.PROJECT.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
