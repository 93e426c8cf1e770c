# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tools/fleet status finds out about sites that are neither up nor simply down, on real hosts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.labtools import INVENTORY, PLAN, ROOT, fleet, fleet_of, lab, on, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SITES = 4
CLIENT = "openvpn-client@spokewright"
CURRENT = "/etc/spokewright/current"
COPY = "/tmp/copy"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module", autouse=True)
def running_fleet() -> Iterator[None]:
    """Shared by all tests here."""
    with fleet_of(SITES):
        yield


@pytest.fixture(autouse=True)
def without_memory() -> Iterator[None]:
    """What a test did to a site is no evidence in the next one."""
    yield
    shutil.rmtree(INVENTORY / "state", ignore_errors=True)


def row(report: dict[str, Any], site: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["sites"] if one["id"] == site)
    return found


def until_well(seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while (found := status()["summary"])["up"] < found["total"] and time.monotonic() < deadline:
        time.sleep(1)
    assert found["up"] == found["total"]


@contextlib.contextmanager
def watched(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A watch that writes into a file while something is done to the fleet; Ctrl-C at the end."""
    with (
        log.open("wb") as out,
        subprocess.Popen([ROOT / "tools" / "fleet", "status", "-i", PLAN, "--watch", "1"], stdout=out) as process,
    ):
        try:
            said(log, "sites up")
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)


def said(log: Path, what: str, *, seconds: float = 40) -> str:
    """The first line that has it, as soon as it is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for line in log.read_text(encoding="utf-8").splitlines():
            if what in line:
                return line
        time.sleep(0.2)
    pytest.fail(f"{what!r} was never said:\n{log.read_text(encoding='utf-8')}")


def test_a_link_that_is_down_counts_where_it_is_asked_for() -> None:
    assert lab("cut", "site-0003", "oob").status == 0
    try:
        without = fleet("status", "--format", "json")
        asked = fleet("status", "--oob", "--format", "json")
        elsewhere = fleet("status", "--oob", "--group", "canary")
    finally:
        assert lab("mend", "site-0003", "oob").status == 0

    assert without.status == 0
    assert {one["oob"] for one in json.loads(without.output)["sites"]} == {"not asked"}
    assert asked.status == 1
    report = json.loads(asked.output)
    found = row(report, "site-0003")
    assert (found["verdict"], found["oob"], found["oob_reason"]) == ("up", "down", "unreachable")
    assert report["summary"]["oob_up"] == report["summary"]["total"] - 1
    other = row(report, "site-0001")
    assert other["own_generation"] >= 1
    assert other["own_epoch"] == other["epoch"] >= 1
    assert elsewhere.status == 0, elsewhere.output


def test_two_boxes_with_one_bundle_are_told_from_one(tmp_path: Path) -> None:
    until_well()
    files = subprocess.run(
        [ROOT / "tools" / "lab", "run", "site-0003", "--", "tar", "-C", f"{CURRENT}/", "-cf", "-", "."],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    log = tmp_path / "watch"
    with watched(log) as process:
        subprocess.run(
            [ROOT / "tools" / "lab", "run", "site-0004", "--", "sh", "-c", f"mkdir -m 700 {COPY}; tar -C {COPY} -xf -"],
            check=True,
            input=files,
        )
        try:
            began = on(
                "site-0004",
                f"systemctl stop {CLIENT}; sed -i s#{CURRENT}#{COPY}#g {COPY}/client.conf; "
                f"systemd-run --quiet --unit copy openvpn --config {COPY}/client.conf",
            )
            assert began.status == 0, began.output
            line = said(log, "site-0003 up -> duplicate session: more than one box comes with its key")
            assert re.search(r"in turn from 198\.19\.\d+\.3 and 198\.19\.\d+\.4: \d+ changes in the last", line), line
            assert row(status(), "site-0003")["verdict"] == "duplicate session"
        finally:
            on("site-0004", f"systemctl stop copy; rm -rf {COPY}; systemctl start {CLIENT}")
    assert process.returncode == 1, "it ends as its last look did"


def test_a_site_that_comes_and_goes_is_flapping_and_a_dead_one_is_down(tmp_path: Path) -> None:
    until_well()
    log = tmp_path / "watch"
    with watched(log):
        for _time in range(3):
            since = row(status(), "site-0002")["since"]
            assert on("site-0002", f"systemctl restart {CLIENT}").status == 0
            deadline = time.monotonic() + 20
            while row(status(), "site-0002")["since"] in {since, None} and time.monotonic() < deadline:
                time.sleep(0.5)
        said(log, "-> flapping: connected to")
        assert "its session began anew 3 times in the last" in row(status(), "site-0002")["why"]
        assert lab("kill", "site-0001").status == 0
        said(log, "site-0001 up -> down: no gateway has a session of it")
        assert "last seen" in fleet("status").output
        assert lab("boot", "site-0001").status == 0
        said(log, "site-0001 down -> up")
