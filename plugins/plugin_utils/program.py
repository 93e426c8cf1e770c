# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of our modules as a program for managed hosts: a directory that `python3 -I DIRECTORY` runs.

It holds the module, what it imports of module_utils, and a starter that lends them the names they have in the
collection. Nothing is translated: what runs there is the text that is tested here.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

PACKAGE: Final = "ansible_collections.spokewright.fleet.plugins.module_utils"
STARTER: Final = "__main__.py"
_ROOT: Final = Path(__file__).resolve().parent.parent / "module_utils"

_STARTER_TEXT: Final = '''\
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Written by Ansible. Runs {entry}.py beside it; the files here go by the names they have in the collection."""

import importlib
import os
import sys
import types

PACKAGE = "{package}"
for depth in range(PACKAGE.count(".") + 1):
    name = ".".join(PACKAGE.split(".")[: depth + 1])
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [os.path.dirname(os.path.abspath(__file__))]

sys.exit(importlib.import_module(PACKAGE + ".{entry}").main())
'''


class ProgramError(FleetError):
    """There is no such module."""


def files(*, entry: str) -> dict[str, str]:
    """File names and texts of the program that runs ``main()`` of a module: the same wherever it is asked for."""
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if f"{name}.py" not in found:
            text = _source(name)
            found[f"{name}.py"] = text
            waiting += _imports(text)
    return {STARTER: _STARTER_TEXT.format(entry=entry, package=PACKAGE), **dict(sorted(found.items()))}


def _source(name: str) -> str:
    path = _ROOT / f"{name}.py"
    if not name.isidentifier() or not path.is_file():
        raise ProgramError(f"plugins/module_utils has no module {name}.")
    return path.read_text(encoding="utf-8")


def _imports(text: str) -> list[str]:
    """The modules of ours that a text imports."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            names.append((node.module or "").removeprefix(f"{PACKAGE}."))
    return names
