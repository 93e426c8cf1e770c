# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read a lock file and judge it against the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, TypeGuard

from ansible_collections.spokewright.fleet.plugins.plugin_utils import names
from ansible_collections.spokewright.fleet.plugins.plugin_utils.addresses import address_number
from ansible_collections.spokewright.fleet.plugins.plugin_utils.allocation import MAX_INSTANCES, Grid, instance_index
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem
from ansible_collections.spokewright.fleet.plugins.plugin_utils.lock import VERSION, Lock, Tombstone

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import PlanFacts

_RESTORE = "Restore the lock from git; it is written by the tools, not by hand."
_SECTIONS = ("blocks", "sites", "tombstones")
_KEYS = ("version", "network", "block_prefix", "instances", *_SECTIONS)


class _RepeatedKeyError(ValueError):
    """A JSON object names a key twice."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise _RepeatedKeyError(key)
        found[key] = value
    return found


class LockReader:
    """Reads one lock."""

    def __init__(self, *, file: str, facts: PlanFacts, problems: list[Problem]) -> None:
        self._file = file
        self._facts = facts
        self._problems = problems
        self._text = ""

    def read(self, *, data: bytes) -> Lock | None:
        """Return the lock, None when there is a fault in it."""
        faults = len(self._problems)
        document = self._document(data)
        if document is None:
            return None
        network = document.get("network")
        block_prefix = document.get("block_prefix")
        instances = document.get("instances", 0)
        if not isinstance(network, str) or not _is_number(block_prefix) or not _is_count(instances):
            self._fault(
                "", "network", "", "network, block_prefix or instances is missing or of the wrong type.", _RESTORE
            )
            return None
        self._keys(document)
        sections = {name: self._section(document, name) for name in _SECTIONS}
        self._against_plan(network, block_prefix)
        if len(self._problems) > faults:
            return None
        lock = Lock(
            network=network,
            block_prefix=block_prefix,
            instances=int(str(instances)),
            blocks=self._strings(sections["blocks"], "blocks"),
            sites=self._strings(sections["sites"], "sites"),
            tombstones=self._tombstones(sections["tombstones"]),
        )
        if self._facts.tunnel_network is not None and self._facts.block_prefix is not None:
            self._judge(lock)
        return None if len(self._problems) > faults else lock

    def _fault(self, section: str, key: str, value: str, message: str, remedy: str) -> None:
        field = f"{section}.{key}" if section else key
        self._problems.append(Problem(self._file, self._line(section, key), field, value, message, remedy))

    def _line(self, section: str, key: str) -> int:
        """Find the line of a key: JSON readers do not tell, and only a fault needs it."""
        start = 0
        if section:
            found = re.search(rf'^\s*"{section}"\s*:', self._text, re.MULTILINE)
            start = found.start() if found else 0
        found = re.compile(rf'"{re.escape(key)}"\s*:').search(self._text, start)
        return self._text.count("\n", 0, found.start()) + 1 if found else 0

    def _json(self, data: bytes) -> tuple[object] | None:
        try:
            self._text = data.decode("utf-8")
            return (json.loads(self._text, object_pairs_hook=_object),)
        except UnicodeDecodeError:
            self._problems.append(Problem(self._file, 0, "", "", "the lock is no UTF-8 text.", _RESTORE))
        except json.JSONDecodeError as exc:
            message = f"the lock is no JSON: {exc.msg} at column {exc.colno}."
            remedy = "Resolve the merge conflict, if there is one. " + _RESTORE
            self._problems.append(Problem(self._file, exc.lineno, "", "", message, remedy))
        except _RepeatedKeyError as exc:
            key = str(exc)
            self._fault("", key, key, f"'{key}' stands in the lock twice.", _RESTORE)
        except (RecursionError, ValueError):
            message = "the lock is nested too deep, or holds a number with too many digits."
            self._problems.append(Problem(self._file, 0, "", "", message, _RESTORE))
        return None

    def _document(self, data: bytes) -> Mapping[str, object] | None:
        found = self._json(data)
        if found is None:
            return None
        (document,) = found
        if not isinstance(document, dict):
            self._problems.append(Problem(self._file, 1, "", "", "the lock is no JSON object.", _RESTORE))
            return None
        version = document.get("version")
        if not _is_number(version) or version != VERSION:
            message = f"the lock has version {json.dumps(version)}, these tools know version {VERSION}."
            self._fault("", "version", str(version), message, "Use the tools that wrote it, or restore it from git.")
            return None
        return document

    def _keys(self, document: Mapping[str, object]) -> None:
        """A section that is not there would mean that no site has an address yet."""
        for key in document:
            if key not in _KEYS:
                self._fault("", key, key, f"'{key}' is no key of a lock.", _RESTORE)
        for key in _SECTIONS:
            if key not in document:
                self._fault("", key, "", "is missing.", _RESTORE)

    def _section(self, document: Mapping[str, object], name: str) -> Mapping[str, object]:
        section = document.get(name, {})
        if isinstance(section, dict):
            return section
        self._fault("", name, "", f"{name} is no JSON object.", _RESTORE)
        return {}

    def _strings(self, section: Mapping[str, object], name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for key, value in section.items():
            if isinstance(value, str):
                found[key] = value
            else:
                self._fault(name, key, str(value), f"{json.dumps(value)} is no text.", _RESTORE)
        return found

    def _tombstones(self, section: Mapping[str, object]) -> dict[str, Tombstone]:
        found: dict[str, Tombstone] = {}
        for key, value in section.items():
            address = value.get("address") if isinstance(value, Mapping) else None
            removed = value.get("removed") if isinstance(value, Mapping) else None
            if not isinstance(address, str) or not isinstance(removed, str) or not _is_date(removed):
                self._fault("tombstones", key, "", "a tombstone has an address and a date (YYYY-MM-DD).", _RESTORE)
            else:
                found[key] = Tombstone(address=address, removed=removed)
        return found

    def _against_plan(self, network: str, block_prefix: int) -> None:
        plan_network, plan_prefix = self._facts.tunnel_network, self._facts.block_prefix
        if plan_network is not None and network != str(plan_network):
            self._fault(
                "",
                "network",
                network,
                f"the lock was made for {network}, the plan says {plan_network}.",
                f"Put tunnels.network back to {network}; or delete the lock, and every site gets a new address.",
            )
        if plan_prefix is not None and block_prefix != plan_prefix:
            self._fault(
                "",
                "block_prefix",
                str(block_prefix),
                f"the lock was made for /{block_prefix} blocks, the plan says /{plan_prefix}.",
                f"Put tunnels.block_prefix back to {block_prefix}; or delete the lock, "
                "and every site gets a new address.",
            )

    def _judge(self, lock: Lock) -> None:
        grid = Grid.of(network=lock.network, block_prefix=lock.block_prefix)
        blocks = self._judge_blocks(lock, grid)
        owners: dict[int, str] = {}
        places = [("sites", site_id, address) for site_id, address in lock.sites.items()]
        places += [("tombstones", site_id, stone.address) for site_id, stone in lock.tombstones.items()]
        for section, site_id, address in places:
            if section == "tombstones" and site_id in lock.sites:
                message = f"{site_id} is both a site and a tombstone."
                self._fault(section, site_id, address, message, "Remove the tombstone, or restore the lock from git.")
                continue
            if not names.LABEL.fullmatch(site_id):
                self._fault(section, site_id, address, f"{json.dumps(site_id)} is no id of a site.", _RESTORE)
                continue
            number = address_number(address)
            if number is None:
                self._fault(section, site_id, address, f"'{address}' is no IPv4 address.", _RESTORE)
                continue
            first = owners.setdefault(number, site_id)
            if first != site_id:
                message = f"{address} is the address of {first} too."
                self._fault(section, site_id, address, message, _RESTORE)
            elif not grid.first <= number <= grid.last:
                self._fault(section, site_id, address, f"{address} is not in {lock.network}.", _RESTORE)
            elif grid.block_of(number) == grid.first or number == grid.last:
                message = f"{address} is kept for the gateways or is the last of {lock.network}."
                self._fault(section, site_id, address, message, _RESTORE)
            elif grid.block_of(number) not in blocks:
                message = f"{address} lies in {grid.text(grid.block_of(number))}, which the lock gives to no instance."
                self._fault(section, site_id, address, message, _RESTORE)

    def _judge_blocks(self, lock: Lock, grid: Grid) -> set[int]:
        found: set[int] = set()
        for block, name in lock.blocks.items():
            number = address_number(block.partition("/")[0])
            if number is None or grid.text(number) != block or number != grid.block_of(number):
                self._fault("blocks", block, block, f"'{block}' is no /{grid.block_prefix} block.", _RESTORE)
                continue
            found.add(number)
            if not grid.first < number <= grid.last:
                message = f"{block} is kept for the gateways or is not in {lock.network}."
                self._fault("blocks", block, block, message, _RESTORE)
            elif instance_index(name) is None:
                self._fault("blocks", block, name, f"'{name}' is no name of an instance (tun0, tun1, ...).", _RESTORE)
        return found


def _is_number(value: object) -> TypeGuard[int]:
    """A JSON number without a fraction; to Python, true and false are integers too."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_number(value) and 0 <= value <= MAX_INSTANCES


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
