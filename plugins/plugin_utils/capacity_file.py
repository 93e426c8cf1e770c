# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured on the gateways, and the limits that follow, as a file beside the plan.

It is JSON like the lock, so that Ansible takes it for no inventory; it is read as YAML, so that a fault has a line.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import MAX_INSTANCES
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import MOST_SPREAD, Measured, Values
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem
from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import FieldReader
from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

VERSION: Final = 1
REMEDY: Final = "`tools/fleet capacity --write` writes the whole file anew; without the file the roles' defaults hold"
MOST_LINK: Final = 1e10
_MODE: Final = 0o644
_WORDS: Final = re.compile(r"[^\x00-\x1f\ud800-\udfff{}]{1,120}")
_DATE: Final = re.compile(r"20[0-9]{2}-[01][0-9]-[0-3][0-9]")
_TEXTS: Final = ("gateway", "cpu", "kernel", "openvpn", "key_type")
# Least and most of what a trial can have seen, and of what a role takes.
_SEEN: Final[dict[str, tuple[float, float]]] = {
    "cores": (1, 4096),
    "handshakes": (1, 10000),
    "handshake_ms": (0.01, 10000),
    "handshake_wall_ms": (0.01, 60000),
    "handshake_bytes": (100, 1000000),
    "hook_ms": (0, 10000),
    "hook_p99_ms": (0, 60000),
    "first_packet_ms": (0.0001, 1000),
    "mbit_per_core": (1, 1000000),
    "buffer_limit": (1024, 1 << 40),
    "daemon_kb": (100, 1 << 30),
    "client_kb": (1, 1 << 20),
}
_VALUES: Final[dict[str, tuple[int, int]]] = {
    "sites": (1, 1000000),
    "instances": (1, MAX_INSTANCES),
    "capacity": (1, 1 << 20),
    "max_clients": (10, 1 << 22),
    "connect_freq": (0, 1 << 20),
    "connect_freq_initial": (10, 1 << 22),
    "socket_buffer": (65536, 1 << 33),
    "hand_window": (10, 600),
    "keepalive_interval": (1, 3600),
    "keepalive_timeout": (2, 7200),
    "spread": (1, MOST_SPREAD),
    "reconnects_per_second": (1, 1000),
}
_WHOLE: Final = frozenset(
    ("cores", "handshakes", "handshake_bytes", "mbit_per_core", "buffer_limit", "daemon_kb", "client_kb")
)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The file: what each gateway said, and the limits for so many sites and that link; 0 is one that is no limit."""

    measured: tuple[Measured, ...]
    values: Values
    link_mbit: float = 0.0


def capacity_file(plan_file: Path) -> Path:
    """Where it lies: `lab.capacity.json` beside `lab.fleet.yml`."""
    return plan_file.with_name(re.sub(r"\.fleet\.ya?ml$", "", plan_file.name) + ".capacity.json")


def capacity_text(*, capacity: Capacity) -> str:
    """The file's text: the same for the same content."""
    content = {
        "version": VERSION,
        "link_mbit": float(capacity.link_mbit),
        "measured": [asdict(one) for one in capacity.measured],
        "values": asdict(capacity.values),
    }
    return json.dumps(content, indent=2) + "\n"


def write_capacity(*, plan_file: Path, capacity: Capacity) -> bool:
    """Write it when it differs from the disk, and say whether it did."""
    path = capacity_file(plan_file)
    text = capacity_text(capacity=capacity).encode()
    if path.is_file() and path.read_bytes() == text:
        return False
    write_atomic(path, text, _MODE)
    return True


def read_capacity(*, data: bytes, file: str, gateways: Sequence[str], problems: list[Problem]) -> Capacity | None:
    """Read the file; None when something in it is missing or bad, which `problems` then says.

    What a gateway said that the plan no longer has is left out; the limits hold until somebody measures anew.
    """
    before = len(problems)
    try:
        root = read_yaml(text=data.decode("utf-8-sig"), file=file, problems=problems)
    except UnicodeDecodeError:
        root = None
    if root is None or root.kind != "mapping":
        if len(problems) == before:
            problems.append(Problem(file, 0, "", "", "is no file of measured capacity.", f"{REMEDY}."))
        return None
    reader = FieldReader(file=file, problems=problems, keys_shown_in=REMEDY)
    top = reader.section(root, required=("version", "link_mbit", "measured", "values")) or {}
    reader.integer(top.get("version"), low=VERSION, high=VERSION)
    link = reader.number(top.get("link_mbit"), low=0, high=MOST_LINK)
    rows = reader.items(top.get("measured"), of="what each gateway said")
    measured = [_measured(reader, row) for row in rows or ()]
    values = _values(reader, top.get("values"))
    if len(problems) > before or values is None or link is None:
        return None
    known = tuple(one for one in measured if one is not None and one.gateway in gateways)
    return Capacity(measured=known, values=values, link_mbit=link)


def _measured(reader: FieldReader, node: Node) -> Measured | None:
    entries = reader.section(node, required=[field.name for field in fields(Measured)])
    if entries is None:
        return None
    found: dict[str, Any] = {
        name: reader.matching(entries.get(name), pattern=_WORDS, what="line of plain text", remedy=f"{REMEDY}.")
        for name in _TEXTS
    }
    date = entries.get("date")
    found["date"] = reader.matching(date, pattern=_DATE, what="date", remedy="Write it as 2026-11-27.")
    for name, (low, high) in _SEEN.items():
        if name in _WHOLE:
            found[name] = reader.integer(entries.get(name), low=int(low), high=int(high))
        else:
            found[name] = reader.number(entries.get(name), low=low, high=high)
    return None if None in found.values() else Measured(**found)


def _values(reader: FieldReader, node: Node | None) -> Values | None:
    entries = reader.section(node, required=list(_VALUES))
    if entries is None:
        return None
    found = {name: reader.integer(entries.get(name), low=low, high=high) for name, (low, high) in _VALUES.items()}
    numbers = {name: number for name, number in found.items() if number is not None}
    if len(numbers) < len(found):
        return None
    values = Values(**numbers)
    if values.keepalive_timeout < 2 * values.keepalive_interval:
        text = f"{values.keepalive_timeout} is less than twice the interval of {values.keepalive_interval}."
        reader.fault(entries["keepalive_timeout"], text, f"Write at least {2 * values.keepalive_interval}.")
    return values
