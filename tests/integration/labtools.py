# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drive the real lab and the real playbooks as an operator would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "inventories" / "lab"
PLAN = INVENTORY / "lab.fleet.yml"
PLAYBOOK = ROOT / ".venv" / "bin" / "ansible-playbook"

_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Recap:
    """One host's line at the end of a run."""

    ok: int
    changed: int
    unreachable: int
    failed: int


@dataclass(frozen=True)
class Run:
    """One ended command."""

    status: int
    output: str

    @property
    def recap(self) -> dict[str, Recap]:
        """Each host's counts."""
        return {host: Recap(*(int(number) for number in numbers)) for host, *numbers in _RECAP.findall(self.output)}

    @property
    def changed(self) -> dict[str, int]:
        """The hosts on which something changed."""
        return {host: line.changed for host, line in self.recap.items() if line.changed}


def run(*command: str | Path, seconds: float = 600) -> Run:
    """Run a command in the project's root."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=seconds,
    )
    return Run(status=done.returncode, output=done.stdout)


def lab(*words: str, seconds: float = 300) -> Run:
    """tools/lab."""
    return run(ROOT / "tools" / "lab", *words, seconds=seconds)


def forget_fleet() -> None:
    """Power the lab off and forget what was recorded of its fleet, as on a fresh checkout."""
    lab("down")
    for name in ("keystore", "reports", "rollouts", "state"):
        shutil.rmtree(INVENTORY / name, ignore_errors=True)
    for name in ("sites.csv", "lab.fleet.yml", "lab.lock.json", "lab.capacity.json", "keystore.key"):
        (INVENTORY / name).unlink(missing_ok=True)


def on(host: str, script: str, *, seconds: float = 60) -> Run:
    """Run a shell line on a lab host."""
    return lab("run", host, "--", "sh", "-c", script, seconds=seconds)


def playbook(name: str, *options: str, seconds: float = 900) -> Run:
    """Run one of the project's playbooks on the lab."""
    return run(PLAYBOOK, "-i", PLAN, ROOT / "playbooks" / name, *options, seconds=seconds)


def begin(name: str, *options: str) -> subprocess.Popen[bytes]:
    """Begin a playbook in the background, with all its processes in one group."""
    return subprocess.Popen(
        [str(PLAYBOOK), "-i", str(PLAN), f"playbooks/{name}", *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill what `begin` began, with all its processes."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(what: str, met: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


def fleet(*words: str) -> Run:
    """tools/fleet on the lab."""
    return run(ROOT / "tools" / "fleet", *words, "-i", str(PLAN))


def newest_keys() -> dict[str, tuple[int, str]]:
    """Each site's newest key as the key store's index knows it: its epoch and its state."""
    rows = json.loads(fleet("keys", "--format", "json").output)["keys"]
    return {row["site"]: (row["epoch"], row["state"]) for row in rows}


def status() -> dict[str, Any]:
    """What tools/fleet status says, as data."""
    answer = fleet("status", "--format", "json")
    report: dict[str, Any] = json.loads(answer.output)
    return report


def up() -> set[str]:
    """The sites that are up; one whose power a test has cut more than once is still called flapping."""
    return {site["id"] for site in status()["sites"] if site["verdict"] in {"up", "flapping"}}


def well(sites: set[str]) -> bool:
    """Whether all of these are up and status has nothing else to say; sites that a test restarted may be flapping."""
    answer = fleet("status", "--format", "json")
    verdicts = {site["id"]: site["verdict"] for site in json.loads(answer.output)["sites"]}
    found = set(verdicts.values())
    return verdicts.keys() == sites and found <= {"up", "flapping"} and (answer.status == 0 or "flapping" in found)


# What a site that did not come back has to say for itself.
CLIENTS_WORDS = (
    "ls -l /etc/spokewright /etc/spokewright/generations 2>&1; systemctl status --no-pager openvpn-client@spokewright;"
    " journalctl --no-pager --boot -n 80"
)


def wait_up(sites: set[str], *, seconds: float) -> None:
    """Wait until these sites are up, by themselves."""
    deadline = time.monotonic() + seconds
    while not sites <= (found := up()) and time.monotonic() < deadline:
        time.sleep(1)
    missing = sorted(sites - found)
    assert not missing, (
        f"without a tunnel after {seconds:.0f} s, and without the controller: {missing}\n"
        f"{status()}\n{fleet('keys').output}\n{lab('run', missing[0], '--', 'sh', '-c', CLIENTS_WORDS).output}"
    )


def wait_pair(*, seconds: float = 90) -> None:
    """Wait until nothing is wrong with the pair."""
    deadline = time.monotonic() + seconds
    while (found := fleet("pair")).status != 0 and time.monotonic() < deadline:
        time.sleep(2)
    assert found.status == 0, found.output


def owner() -> str:
    """The one gateway that holds the virtual addresses."""
    (name,) = [one["name"] for one in status()["gateways"] if one["vips"]]
    return str(name)


def daemon_pids() -> dict[str, int]:
    """The process id of each tunnel instance of each gateway that answers, as its own management socket says."""
    return {
        f"{gateway['name']}/{instance['name']}": instance["pid"]
        for gateway in status()["gateways"]
        for instance in gateway["instances"]
    }


@contextlib.contextmanager
def fleet_of(sites: int, *, exactly: bool = False) -> Iterator[None]:
    """A fleet of at least that many sites, up and as planned; one that is there already will do, and it stays."""
    there = 0 if exactly else json.loads(lab("status", "--format", "json").output).get("sites") or 0
    up = lab("up", "--sites", str(max(sites, there)))
    assert up.status == 0, up.output
    if fleet("status").status != 0:
        built = playbook("site.yml")
        assert built.status == 0, built.output[-5000:]
    yield
