# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every test stands on: the checkout's own Ansible settings, whatever the shell pytest was started from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.labtools import forget_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

# Before anything imports ansible: it reads its settings once.
os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
os.environ["ANSIBLE_HOME"] = str(ROOT / ".ansible")
os.environ["LC_ALL"] = "C.UTF-8"
os.environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
for name in [name for name in os.environ if name.startswith(("ANSIBLE_", "MOLECULE_"))]:
    if name not in {"ANSIBLE_CONFIG", "ANSIBLE_HOME"}:
        del os.environ[name]


LONG = "long: runs with `make e2e LONG=1`, as before a release"


# Who begins with hosts as new comes first. These go on with the fleet that the README's reader has built, and leave it
# whole. The changes of the pair come late: they give the daemons another configuration than the plan does.
SHARE_A_FLEET = (
    *("test_docs", "test_revocation", "test_hold", "test_pair"),
    *("test_pair_daemons", "test_pair_hosts", "test_pair_paths", "test_pair_traffic", "test_rotation"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A run of everything on two cores takes more than an hour and a half; what every change runs is the rest."""
    items.sort(key=lambda item: SHARE_A_FLEET.index(item.path.stem) if item.path.stem in SHARE_A_FLEET else -1)
    if not os.environ.get("SPOKEWRIGHT_LONG"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason=LONG))


@pytest.fixture(scope="session")
def lab_goes_off() -> Iterator[None]:
    """When all is done the lab is powered off, unless somebody wants to go on with it."""
    yield
    if os.environ.get("SPOKEWRIGHT_KEEP_LAB") is None:
        forget_fleet()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT
