# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of a rollout, a file that a person writes and reads: what changes, where, and in which waves."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError, InputErrors, Problem
from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import FieldReader, closest, listing
from ansible_collections.spokewright.fleet.plugins.plugin_utils.waves import (
    FAILED,
    PERCENT,
    UNREACHABLE,
    Rule,
    Share,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

What = Literal["configuration", "keys"]

WHATS: Final = ("configuration", "keys")
MOST_SITES: Final = 1_000_000
# A week: a soak that outlives every change window is a mistake.
LONGEST_SOAK: Final = 7 * 24 * 3600
ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
ID_RULE: Final = "Write small letters, digits and dashes, 63 at most, as in 2026-q4-keys."
_SHARE = re.compile(r"(0|[1-9][0-9]{0,6})(%?)")
_ANY = re.compile(r"[^\x00-\x1f\x7f]+")


@dataclass(frozen=True, kw_only=True)
class WavePlan:
    """A rollout as it was planned."""

    what: What
    reason: str
    rules: tuple[Rule, ...]
    failed: Share = FAILED
    unreachable: Share = UNREACHABLE
    exclude: tuple[str, ...] = ()


def usual(*, what: What, reason: str, groups: Sequence[str]) -> WavePlan:
    """What is done without a wave plan: a wave for each site group."""
    return WavePlan(what=what, reason=reason, rules=tuple(Rule(group=group) for group in groups))


def refuse_id(rollout: str) -> None:
    """Refuse an id that is none: it becomes the name of a directory."""
    if not ID.fullmatch(rollout):
        raise FleetError(f"rollout: {rollout!r} is no id of a rollout. {ID_RULE}")


def read_share(text: str) -> Share | None:
    """A number of sites or a percentage of them; nothing when it is neither."""
    found = _SHARE.fullmatch(text)
    if found is None or (found[2] and int(found[1]) > PERCENT):
        return None
    return Share(number=int(found[1]), percent=bool(found[2]))


def sites_by_group(*, plan: WavePlan, fleet: Fleet) -> dict[str, list[str]]:
    """The sites of each group that the plan is for, in the order of the registry."""
    groups: dict[str, list[str]] = {rule.group: [] for rule in plan.rules}
    for site in fleet.sites:
        if site.group in groups and site.id not in plan.exclude:
            groups[site.group].append(site.id)
    return groups


def read_wave_plan(*, text: str, file: str, fleet: Fleet) -> WavePlan:
    """Read one.

    Raises:
        InputErrors: everything that is wrong with it.
    """
    problems: list[Problem] = []
    root = read_yaml(text=text, file=file, problems=problems)
    if root is None and not problems:
        problems.append(Problem(file, 0, "", "", "is empty.", "Write one with `tools/fleet rollout plan`."))
    plan = None if root is None else _Reader(_fields(file, problems), fleet).read(root)
    if problems or plan is None:
        raise InputErrors(problems)
    return plan


def _fields(file: str, problems: list[Problem]) -> FieldReader:
    return FieldReader(file=file, problems=problems, keys_shown_in="docs/rollouts.md tells every key")


class _Reader:
    def __init__(self, reader: FieldReader, fleet: Fleet) -> None:
        self._reader = reader
        self._fleet = fleet

    def read(self, root: Node) -> WavePlan | None:
        reader = self._reader
        top = reader.section(root, required=("what", "waves"), optional=("reason", "budgets", "exclude"))
        if top is None:
            return None
        what = reader.choice(top.get("what"), allowed=WHATS)
        reason = self._reason(top, what=what)
        budgets = self._budgets(top.get("budgets"))
        rules = self._rules(top.get("waves"))
        exclude = self._exclude(top.get("exclude"))
        if what is None or reason is None or budgets is None or rules is None or exclude is None:
            return None
        return WavePlan(
            what="keys" if what == "keys" else "configuration",
            reason=reason,
            rules=rules,
            failed=budgets[0],
            unreachable=budgets[1],
            exclude=exclude,
        )

    def _reason(self, top: Mapping[str, Node], *, what: str | None) -> str | None:
        if "reason" in top:
            return self._reader.matching(
                top["reason"], pattern=_ANY, what="reason", remedy="Write one line of plain text."
            )
        if what == "keys":
            node = top["what"]
            self._reader.fault(
                node, "new keys want a reason.", "Add `reason:`. It is kept in the ledger and names the rotation."
            )
            return None
        return ""

    def _budgets(self, node: Node | None) -> tuple[Share, Share] | None:
        if node is None:
            return FAILED, UNREACHABLE
        entries = self._reader.section(node, required=(), optional=("failed", "unreachable"))
        if entries is None:
            return None
        failed = self._share(entries["failed"]) if "failed" in entries else FAILED
        unreachable = self._share(entries["unreachable"]) if "unreachable" in entries else UNREACHABLE
        return None if failed is None or unreachable is None else (failed, unreachable)

    def _share(self, node: Node) -> Share | None:
        share = read_share(node.text) if node.kind in {"integer", "text"} else None
        if share is None:
            self._reader.fault(
                node, f"'{node.text}' is no number of sites.", "Write a number, as 3, or a percentage of all, as 10%."
            )
        return share

    def _rules(self, node: Node | None) -> tuple[Rule, ...] | None:
        items = self._reader.items(node, of="- group: NAME")
        if items is None:
            return None
        rules = [self._rule(item) for item in items]
        good = tuple(rule for rule in rules if rule is not None)
        for item, rule, later in zip(items, rules, range(1, len(rules) + 1), strict=True):
            follows = [one for one in rules[later:] if one is not None and rule is not None and one.group == rule.group]
            if rule is not None and follows and not rule.limit:
                self._reader.fault(
                    item, f"takes all of {rule.group}, and a later wave names it again.", "Give this one a `limit`."
                )
        return good if len(good) == len(items) else None

    def _rule(self, node: Node) -> Rule | None:
        entries = self._reader.section(
            node, required=("group",), optional=("limit", "soak_seconds", "approval", "success")
        )
        if entries is None:
            return None
        groups = self._fleet.plan.groups
        group = self._reader.text(entries.get("group"))
        if group is not None and group not in groups:
            remedy = closest(word=group, known=groups) or f"There are: {listing(groups)}."
            self._reader.fault(entries["group"], f"'{group}' is no site group.", remedy)
            group = None
        numbers = {"limit": (1, MOST_SITES), "soak_seconds": (0, LONGEST_SOAK)}
        found = {
            key: self._reader.integer(entries[key], low=low, high=high)
            for key, (low, high) in numbers.items()
            if key in entries
        }
        approval = self._reader.boolean(entries["approval"]) if "approval" in entries else False
        success = self._success(entries["success"]) if "success" in entries else 0
        if group is None or approval is None or success is None or None in found.values():
            return None
        return Rule(
            group=group,
            limit=found.get("limit") or 0,
            soak_seconds=found.get("soak_seconds") or 0,
            approval=approval,
            success_percent=success,
        )

    def _success(self, node: Node) -> int | None:
        share = self._share(node)
        if share is not None and not share.percent:
            self._reader.fault(
                node, f"'{node.text}' is no percentage.", "Write the part of the wave that has to be well, as 95%."
            )
            return None
        return None if share is None else share.number

    def _exclude(self, node: Node | None) -> tuple[str, ...] | None:
        if node is None:
            return ()
        items = self._reader.items(node, of="site ids", least=0)
        if items is None:
            return None
        known = {site.id for site in self._fleet.sites}
        names = [self._reader.text(item) for item in items]
        for item, name in zip(items, names, strict=True):
            if name is not None and name not in known:
                remedy = closest(word=name, known=known) or "Correct or remove it."
                self._reader.fault(item, f"'{name}' is not in the registry.", remedy)
        return tuple(name for name in names if name is not None)


def wave_plan_text(*, plan: WavePlan, rollout: str) -> str:
    """The plan as a file that a person can change before it is run."""
    lines = [
        f"# The plan of rollout {rollout}. Show it: tools/fleet rollout show {rollout}",
        f"# Run it, and go on after a halt: ansible-playbook playbooks/rollout.yml -e rollout={rollout}",
        "# Every key and its default: docs/rollouts.md.",
        f"what: {plan.what}",
        *([f"reason: {json.dumps(plan.reason)}"] if plan.reason else []),
        f"budgets: {{failed: {plan.failed}, unreachable: {plan.unreachable}}}",
        *([f"exclude: [{', '.join(plan.exclude)}]"] if plan.exclude else []),
        "waves:",
    ]
    for rule in plan.rules:
        lines.append(f"  - group: {rule.group}")
        lines += [f"    limit: {rule.limit}"] if rule.limit else []
        lines += [f"    soak_seconds: {rule.soak_seconds}"] if rule.soak_seconds else []
        lines += ["    approval: true"] if rule.approval else []
        lines += [f"    success: {rule.success_percent}%"] if rule.success_percent else []
    return "\n".join([*lines, ""])
