# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read YAML into a tree whose every value knows its line, so that every fault can name it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

import yaml

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem

Kind = Literal["mapping", "list", "text", "integer", "number", "boolean", "nothing"]

_KINDS: dict[str, Kind] = {
    "tag:yaml.org,2002:str": "text",
    "tag:yaml.org,2002:int": "integer",
    "tag:yaml.org,2002:float": "number",
    "tag:yaml.org,2002:bool": "boolean",
    "tag:yaml.org,2002:null": "nothing",
    "tag:yaml.org,2002:timestamp": "text",
}


class _Loader(yaml.SafeLoader):
    """Without aliases: a value then stands in one place, and no document can grow or loop in memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = cast(Any, self).peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "an alias (*name) is not supported here", mark)
        return super().compose_node(parent, index)


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the file: `text` for a scalar as written, `entries` for a mapping, `items` for a list."""

    path: str
    line: int
    kind: Kind
    text: str = ""
    entries: dict[str, Node] = field(default_factory=dict)
    items: tuple[Node, ...] = ()


def read_yaml(*, text: str, file: str, problems: list[Problem]) -> Node | None:
    """Return the one document of `text`, or None when it is no YAML; faults go to `problems`."""
    try:
        root = yaml.compose(text, Loader=_Loader)
        return None if root is None else _convert(node=root, path="", file=file, problems=problems)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = mark.line + 1 if mark else 0
        what = exc.problem or exc.context or "unreadable"
        problems.append(
            Problem(
                file, line, "", "", f"this is no YAML: {what}.", "Correct the syntax (indentation, colons, quotes)."
            )
        )
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1 if isinstance(exc.position, int) else 0
        problems.append(
            Problem(
                file,
                line,
                "",
                "",
                f"this is no YAML: {exc.reason}.",
                "Remove the character; write the file as plain UTF-8.",
            )
        )
    except (RecursionError, ValueError, OverflowError):
        message = "this is no YAML a plan can be: it is nested too deep, or holds an impossible character or number."
        problems.append(Problem(file, 0, "", "", message, "Correct it, or restore the file from git."))
    return None


def _convert(*, node: yaml.Node, path: str, file: str, problems: list[Problem]) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return _mapping(node=node, path=path, file=file, problems=problems)
    if isinstance(node, yaml.SequenceNode):
        items = tuple(
            _convert(node=item, path=f"{path}[{number}]", file=file, problems=problems)
            for number, item in enumerate(node.value)
        )
        return Node(path=path, line=line, kind="list", items=items)
    return Node(path=path, line=line, kind=_KINDS.get(node.tag, "text"), text=str(node.value))


def _mapping(*, node: yaml.MappingNode, path: str, file: str, problems: list[Problem]) -> Node:
    entries: dict[str, Node] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
        dotted = f"{path}.{key}" if path else key
        if key in entries:
            problems.append(
                Problem(
                    file,
                    line,
                    dotted,
                    key,
                    f"'{key}' stands here a second time, first in line {lines[key]}.",
                    "Keep one of the two.",
                )
            )
            continue
        lines[key] = line
        value = _convert(node=value_node, path=dotted, file=file, problems=problems)
        if value.kind == "nothing" or value.kind in ("mapping", "list"):
            # The key's line is where an operator looks for a block or an empty value.
            value = Node(path=dotted, line=line, kind=value.kind, entries=value.entries, items=value.items)
        entries[key] = value
    return Node(path=path, line=node.start_mark.line + 1, kind="mapping", entries=entries)
