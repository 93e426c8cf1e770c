# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take typed values out of a YAML tree. A missing or bad value becomes None and one problem; nothing is raised."""

from __future__ import annotations

import difflib
import re
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.addresses import (
    address_number,
    host_mask,
    parse_prefix,
    prefix_text,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_MOST_DIGITS = 20
_THIS_NETWORK_END = 1 << 24
_LOOPBACK, _LOOPBACK_END = 127 << 24, 128 << 24
_MULTICAST = 224 << 24
_KIND_WORDS = {
    "mapping": "a mapping",
    "list": "a list",
    "text": "text",
    "integer": "a number",
    "number": "a number",
    "boolean": "a boolean",
    "nothing": "empty",
}


def closest(*, word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?`, or nothing when no known word is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean '{found[0]}'?" if found else ""


def _short(number: str) -> str:
    return number if len(number) <= _MOST_DIGITS else f"{number[:_MOST_DIGITS]}..."


def listing(words: Iterable[str]) -> str:
    """Return words as an operator reads them: a, b, c."""
    return ", ".join(words)


class FieldReader:
    """Reads the fields of one file and collects what is wrong with them."""

    def __init__(
        self, *, file: str, problems: list[Problem], keys_shown_in: str = "the example inventory shows every key"
    ) -> None:
        self.file = file
        self._problems = problems
        self._keys_shown_in = keys_shown_in

    def fault(self, node: Node, message: str, remedy: str) -> None:
        """Note a problem at a node."""
        self._problems.append(Problem(self.file, node.line, node.path, node.text, message, remedy))

    def section(
        self, node: Node | None, *, required: Collection[str], optional: Collection[str] = ()
    ) -> Mapping[str, Node] | None:
        """Return the entries of a mapping after naming unknown and missing keys; None when it is no mapping."""
        if node is None:
            return None
        if node.kind != "mapping":
            self.fault(
                node,
                f"{'' if node.path else 'the plan '}is {self._kind(node)}, not a mapping.",
                f"Write it with the keys {listing(sorted(required))}.",
            )
            return None
        known = [*required, *optional]
        for key, entry in node.entries.items():
            if key not in known:
                guess = closest(word=key, known=known)
                self.fault(
                    entry, f"'{key}' is no key that is known here.", guess or f"Known: {listing(sorted(known))}."
                )
        for key in sorted(set(required) - set(node.entries)):
            path = f"{node.path}.{key}" if node.path else key
            self._problems.append(
                Problem(self.file, node.line, path, "", "is missing.", f"Add it; {self._keys_shown_in}.")
            )
        return node.entries

    def items(self, node: Node | None, *, of: str, least: int = 1) -> tuple[Node, ...] | None:
        """Return the items of a list."""
        if node is None:
            return None
        if node.kind != "list":
            self.fault(node, f"is {self._kind(node)}, not a list.", f"Write a list in square brackets: {of}.")
            return None
        if len(node.items) < least:
            self.fault(node, "is an empty list.", f"Name at least one: {of}.")
            return None
        return node.items

    def text(self, node: Node | None) -> str | None:
        """Return non-empty text."""
        if node is None:
            return None
        if node.kind in ("mapping", "list", "nothing"):
            self.fault(node, f"is {self._kind(node)}, not text.", "Write one value.")
            return None
        if node.kind == "boolean":
            self.fault(node, f"'{node.text}' is a boolean in YAML, not text.", f'Put it in quotes: "{node.text}".')
            return None
        if not node.text.strip():
            self.fault(node, "is empty.", "Write a value or remove the key.")
            return None
        return node.text

    def matching(self, node: Node | None, *, pattern: re.Pattern[str], what: str, remedy: str) -> str | None:
        """Return text of a certain shape."""
        value = self.text(node)
        if node is None or value is None:
            return None
        if not pattern.fullmatch(value):
            self.fault(node, f"'{value}' is no {what}.", remedy)
            return None
        return value

    def choice(self, node: Node | None, *, allowed: Collection[str]) -> str | None:
        """Return one of a few words."""
        value = self.text(node)
        if node is None or value is None:
            return None
        if value not in allowed:
            if len(allowed) == 1:
                (only,) = allowed
                self.fault(node, f"'{value}' is not {only}, the only choice.", f"Write {only}.")
                return None
            remedy = closest(word=value, known=allowed) or "Pick one."
            self.fault(node, f"'{value}' is not one of {listing(allowed)}.", remedy)
            return None
        return value

    def integer(self, node: Node | None, *, low: int, high: int) -> int | None:
        """Return a whole number in a range."""
        if node is None:
            return None
        if node.kind not in ("integer", "number", "text") or not _INTEGER.fullmatch(node.text):
            self.fault(node, f"{self._shown(node)} is no whole number.", f"Write a number from {low} to {high}.")
            return None
        # Python refuses to convert thousands of digits.
        value = int(node.text) if len(node.text) <= _MOST_DIGITS else None
        if value is None or not low <= value <= high:
            self.fault(node, f"{_short(node.text)} is out of range.", f"Write a number from {low} to {high}.")
            return None
        return value

    def number(self, node: Node | None, *, low: float, high: float) -> float | None:
        """Return a decimal number in a range."""
        if node is None:
            return None
        if node.kind not in ("integer", "number", "text") or not _NUMBER.fullmatch(node.text):
            self.fault(node, f"{self._shown(node)} is no number.", f"Write a number from {low} to {high}.")
            return None
        value = float(node.text)
        if not low <= value <= high:
            self.fault(node, f"{_short(node.text)} is out of range.", f"Write a number from {low} to {high}.")
            return None
        return value

    def boolean(self, node: Node | None) -> bool | None:
        """Return true or false."""
        if node is None:
            return None
        if node.kind != "boolean":
            self.fault(node, f"{self._shown(node)} is neither true nor false.", "Write true or false.")
            return None
        return node.text.lower() in ("true", "yes", "on")

    def address(self, node: Node | None) -> IPv4Address | None:
        """Return an IPv4 address."""
        value = self.text(node)
        if node is None or value is None:
            return None
        number = address_number(value)
        if number is None:
            self.fault(
                node, f"'{value}' is no IPv4 address.", "Write four numbers from 0 to 255 with dots, as in 192.0.2.1."
            )
            return None
        return IPv4Address(number)

    def network(self, node: Node | None) -> IPv4Network | None:
        """Return an IPv4 network without host bits."""
        value = self.text(node)
        if node is None or value is None:
            return None
        parsed = parse_prefix(value)
        if parsed is None:
            self.fault(node, f"'{value}' is no IPv4 prefix.", "Write it as ADDRESS/LENGTH, as in 192.0.2.0/24.")
            return None
        number, length = parsed
        if number & host_mask(length):
            right = prefix_text(number & ~host_mask(length), length)
            self.fault(node, f"'{value}' has bits set behind its prefix length.", f"The network is {right}.")
            return None
        last = number | host_mask(length)
        if number < _THIS_NETWORK_END or last >= _MULTICAST or (number < _LOOPBACK_END and last >= _LOOPBACK):
            remedy = "Write a range of hosts' addresses: nothing of 0.0.0.0/8, 127.0.0.0/8 and 224.0.0.0/3."
            self.fault(node, f"'{value}' holds addresses no host can have.", remedy)
            return None
        return IPv4Network((number, length))

    def _kind(self, node: Node) -> str:
        return _KIND_WORDS[node.kind]

    def _shown(self, node: Node) -> str:
        return f"'{node.text}'" if node.text else self._kind(node)
