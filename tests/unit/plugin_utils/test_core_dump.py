# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that holds keys and crashes does not write its memory, keys and all, to a file."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from key_support import new_store

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import os, resource, sys
from pathlib import Path
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

here = Path(sys.argv[1])
if sys.argv[2] == "keys":
    key = KeyStore(path=here / "store", key=here / "store.key").site_key(site="site-0001")
print(resource.getrlimit(resource.RLIMIT_CORE)[0], flush=True)
os.abort()
"""


def crash(directory: Path, what: str) -> tuple[int, list[str]]:
    """The limit a process has when it crashes, and the core files it leaves."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    cwd = directory / what
    cwd.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, directory, what],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT / "collections"), "LC_ALL": "C.UTF-8"},
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
    )
    assert done.returncode < 0, done.stderr
    return int(done.stdout), [path.name for path in cwd.iterdir()]


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="nothing can dump core here anyway")
def test_a_crash_with_keys_in_memory_leaves_no_core(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=["site-0001"])

    assert crash(tmp_path, "nothing")[0] != 0
    assert crash(tmp_path, "keys") == (0, [])
