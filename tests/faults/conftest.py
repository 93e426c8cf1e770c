# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults of the pair by name: `make fault CASE=owner-dead`. The short ones also run in `make e2e`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from faults.stage import Stage, stage_for_tests

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = "all"
BY_NAME = "long: runs by its name, as in `make fault CASE=owner-dead`; `make fault` lists them, CASE=all runs them all"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--case", action="append", default=[], help="a fault of the pair by name, or 'all'")
    parser.addoption("--list-cases", action="store_true", help="list the faults of the pair")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(name, short=()): a fault of the pair; short: roles that run in make e2e")


def case_of(item: pytest.Item) -> tuple[str, tuple[str, ...]] | None:
    marker = item.get_closest_marker("case")
    return None if marker is None else (marker.args[0], marker.kwargs.get("short", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = set(config.getoption("--case"))
    if config.getoption("--list-cases"):
        list_cases(items)
        config.hook.pytest_deselected(items=list(items))
        items[:] = []
        return
    if not wanted:
        for item in items:
            found = case_of(item)
            role = item.callspec.params.get("owner", "") if isinstance(item, pytest.Function) and has_role(item) else ""
            if found is not None and role not in found[1] and not item.get_closest_marker("skip"):
                item.add_marker(pytest.mark.skip(reason=BY_NAME))
        return
    known = {found[0] for item in items if (found := case_of(item))}
    if unknown := sorted(wanted - known - {ALL}):
        raise pytest.UsageError(f"no case is called {', '.join(unknown)}. There are: {', '.join(sorted(known))}")
    keep = [item for item in items if (found := case_of(item)) and (ALL in wanted or found[0] in wanted)]
    config.hook.pytest_deselected(items=[item for item in items if item not in keep])
    items[:] = keep


def has_role(item: pytest.Function) -> bool:
    return hasattr(item, "callspec")


def list_cases(items: list[pytest.Item]) -> None:
    seen: dict[str, str] = {}
    for item in items:
        found = case_of(item)
        if found and found[0] not in seen:
            skipped = item.get_closest_marker("skip")
            words = item.name.partition("[")[0].removeprefix("test_").replace("_", " ")
            seen[found[0]] = f"{words}{'  (cannot be made here)' if skipped else ''}"
    for name, words in sorted(seen.items()):
        sys.stdout.write(f"  {name:<28} {words}\n")


@pytest.fixture(scope="session")
def stage(pytestconfig: pytest.Config) -> Iterator[Stage]:
    """A lab with a fleet that works; what a case breaks is whole again before the next one."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    with stage_for_tests(root=pytestconfig.rootpath) as ready:
        yield ready
