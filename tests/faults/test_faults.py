# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that goes wrong on the way to a site, at once, on real hosts.

The fleet is up and every site works with a key; then all sites are given a new one. Whatever happens to its delivery,
the key a site works with stays whole, and what did arrive is whole too. Each test goes on where the one before ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from integration.labtools import (
    INVENTORY,
    PLAN,
    PLAYBOOK,
    ROOT,
    fleet,
    forget_fleet,
    lab,
    newest_keys,
    on,
    playbook,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(900),
]


def names(*numbers: int) -> list[str]:
    return [f"site-{number:04}" for number in numbers]


ALL = names(*range(1, 19))
OFF = names(2, 3, 4, 5, 6)
FOREIGN = names(7, 8, 9)
FULL = names(10, 11)
(FROZEN,) = names(12)
(REFUSED,) = names(13)
(REBOOTED,) = names(14)
BAD = [*OFF, *FOREIGN, *FULL, FROZEN, REFUSED, REBOOTED]
WELL = [site for site in ALL if site not in BAD]

GENERATIONS = "/etc/spokewright/generations"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
# A program of the site that stops at the moment the test waits for, once, and then does its work.
STOPS = """#!/bin/sh
case $* in *{when}*)
  if [ ! -e /run/{name}.reached ]; then
    touch /run/{name}.reached
    sleep 300
  fi ;;
esac
exec /usr/bin/{name}.real "$@"
"""
SLOW = '#!/bin/sh\nsleep 1\nexec /usr/bin/tar.real "$@"\n'


@pytest.fixture(scope="module", autouse=True)
def working_fleet() -> Iterator[None]:
    """Sites that all work with their first key."""
    forget_fleet()
    up = lab("up", "--sites", str(len(ALL)))
    assert up.status == 0, up.output
    run = playbook("site.yml")
    assert run.status == 0, run.output[-5000:]
    yield
    if os.environ.get("SPOKEWRIGHT_KEEP_LAB") is None:
        forget_fleet()


def replace_program(site: str, name: str, text: str) -> None:
    """Put a script in the place of one of the site's programs."""
    script = f"mv /usr/bin/{name} /usr/bin/{name}.real && cat >/usr/bin/{name} && chmod 755 /usr/bin/{name}"
    done = subprocess.run(
        [str(ROOT / "tools/lab"), "run", site, "--", "sh", "-c", script], input=text, text=True, check=False, timeout=60
    )
    assert done.returncode == 0


def restore_program(site: str, name: str) -> None:
    assert on(site, f"mv -f /usr/bin/{name}.real /usr/bin/{name}; rm -f /run/{name}.reached").status == 0


def wait_until_reached(site: str, name: str, *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if on(site, f"test -e /run/{name}.reached", seconds=10).status == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"{site} never came as far as {name}")


def new_keys_for(sites: Sequence[str]) -> None:
    run = fleet("key", "regenerate", *sites, "--yes", "--reason", "tests of faults")
    assert run.status == 0, run.output


def whole_generations(site: str) -> list[str]:
    """The site's generations; every one of them is whole, and so is the one it works with."""
    script = (
        "whole() { (cd $1 && sha256sum --quiet -c MANIFEST) || echo BROKEN; };"
        f"cd {GENERATIONS} && for g in [0-9]*; do whole $g; echo $g; done;"
        "whole ../current; systemctl is-active openvpn-client@spokewright"
    )
    words = on(site, script).output.split()
    assert "BROKEN" not in words, f"{site}: {words}"
    assert words[-1] == "active", f"{site}: {words}"
    return words[:-1]


def last_report() -> dict[str, Any]:
    newest = max((INVENTORY / "reports").glob("distribute_keys-*.json"), key=lambda path: path.stat().st_mtime_ns)
    report: dict[str, Any] = json.loads(newest.read_text(encoding="utf-8"))
    return report


def distribute(*options: str) -> Any:
    return playbook("distribute_keys.yml", *options, seconds=600)


def break_everything() -> list[threading.Thread]:
    for site in OFF:
        assert lab("kill", site).status == 0
    for site in FOREIGN:
        script = f"cp -p {HOST_KEY} {HOST_KEY}.kept; rm {HOST_KEY}; ssh-keygen -q -t ed25519 -N '' -f {HOST_KEY}"
        assert on(site, f"{script}; systemctl restart ssh").status == 0
    for site in FULL:
        # What the site holds stays readable; there is just no room beside it.
        size = "$(( $(du -sk /etc/spokewright | cut -f1) + 8 ))"
        script = (
            f"cp -a /etc/spokewright /run/kept && mount -t tmpfs -o size={size}k none /etc/spokewright"
            " && cp -a /run/kept/. /etc/spokewright/; dd if=/dev/zero of=/etc/spokewright/filler bs=1k;"
            "df /etc/spokewright"
        )
        assert " 100% " in on(site, script).output
    replace_program(FROZEN, "tar", STOPS.format(name="tar", when=""))
    assert on(REFUSED, "mv /root/.ssh/authorized_keys /root/.ssh/kept").status == 0
    replace_program(REBOOTED, "mv", STOPS.format(name="mv", when=GENERATIONS))

    def freeze() -> None:
        wait_until_reached(FROZEN, "tar")
        assert lab("cut", FROZEN, "oob", "--how", "silent").status == 0

    def cut_the_power() -> None:
        wait_until_reached(REBOOTED, "mv")
        assert lab("kill", REBOOTED).status == 0
        assert lab("boot", REBOOTED).status == 0

    helpers = [threading.Thread(target=freeze), threading.Thread(target=cut_the_power)]
    for helper in helpers:
        helper.start()
    return helpers


def mend_everything() -> None:
    for site in OFF:
        assert lab("boot", site).status == 0
    for site in FOREIGN:
        script = f"mv {HOST_KEY}.kept {HOST_KEY}; ssh-keygen -y -f {HOST_KEY} >{HOST_KEY}.pub; systemctl restart ssh"
        assert on(site, script).status == 0
    for site in FULL:
        assert on(site, "umount -l /etc/spokewright && rm -rf /run/kept").status == 0
    assert lab("mend", FROZEN, "oob").status == 0
    # What had not come through when the link froze never does.
    assert on(FROZEN, "pkill -9 -x tar; pkill -x sleep; true").status == 0
    restore_program(FROZEN, "tar")
    assert on(REFUSED, "mv /root/.ssh/kept /root/.ssh/authorized_keys").status == 0
    restore_program(REBOOTED, "mv")


def test_each_bad_site_is_reported_with_its_own_reason_and_the_others_are_served() -> None:
    new_keys_for(ALL)
    before = {site: whole_generations(site) for site in ALL}
    helpers = break_everything()

    run = distribute()
    for helper in helpers:
        helper.join(timeout=60)

    assert run.status == 2, run.output[-5000:]
    sites = last_report()["sites"]
    assert {site: sites[site]["ok"] for site in ALL} == {site: site in WELL for site in ALL}
    reasons = {site: sites[site]["reason"] for site in BAD}
    assert {reasons[site] for site in OFF} <= {"unreachable"}
    assert {reasons[site] for site in FOREIGN} == {"host-key-changed"}
    assert all(sites[site]["message"].count("SHA256:") == 2 for site in FOREIGN)
    assert {reasons[site] for site in FULL} <= {"no-space", "unwritable"}
    assert reasons[FROZEN] == "timeout"
    assert reasons[REFUSED] == "auth-refused"
    assert reasons[REBOOTED] in {"closed", "timeout"}
    for site in ALL:
        line = run.recap[site]
        assert (line.failed, line.unreachable) == (int(site in BAD), 0), f"{site}: {line}"
        assert site in WELL or f"{site}: " in sites[site]["message"]
    for site in WELL:
        assert len(whole_generations(site)) == len(before[site]) + 1
    for site in (REBOOTED, REFUSED, *FOREIGN, *FULL):
        assert whole_generations(site) == before[site]


def test_the_second_run_finishes_exactly_what_is_missing() -> None:
    mend_everything()

    run = distribute()

    assert run.status == 0, run.output[-5000:]
    assert sorted(site for site in run.changed if site.startswith("site-")) == sorted(BAD)
    for site in ALL:
        assert len(whole_generations(site)) == 2
        assert on(site, f"ls -A {GENERATIONS}").output.split() == ["1", "2"], "nothing half is left"
    again = distribute()
    assert (again.status, again.changed) == (0, {}), again.output[-3000:]
    assert status()["summary"]["up"] == len(ALL)


def test_a_controller_killed_half_way_loses_nothing_and_the_next_run_finishes() -> None:
    new_keys_for(ALL)
    for site in ALL:
        replace_program(site, "tar", SLOW)
    command = [str(PLAYBOOK), "-i", str(PLAN), "playbooks/distribute_keys.yml", "-e", "distribute_workers=2"]
    running = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )

    def served() -> list[str]:
        return [site for site in ALL if on(site, f"test -d {GENERATIONS}/3").status == 0]

    try:
        end = time.monotonic() + 120
        while time.monotonic() < end and len(served()) < 4:
            assert running.poll() is None, "the run ended before it could be killed"
    finally:
        # Ansible's workers have process groups of their own.
        family = subprocess.run(["pgrep", "-s", str(running.pid)], check=False, capture_output=True, text=True)
        for pid in {int(word) for word in family.stdout.split()} | {running.pid} | workers_of(running.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.wait(timeout=30)
    time.sleep(3)
    had = served()
    assert 4 <= len(had) < len(ALL)
    for site in ALL:
        restore_program(site, "tar")
        whole_generations(site)
    assert fleet("ledger", "verify").status == 0

    run = distribute()

    assert run.status == 0, run.output[-5000:]
    assert sorted(site for site in run.changed if site.startswith("site-")) == sorted(set(ALL) - set(had))
    assert served() == ALL
    assert fleet("ledger", "verify").status == 0
    assert {site for site in ALL if whole_generations(site) != ["1", "2", "3"]} == set()
    assert newest_keys() == dict.fromkeys(ALL, (3, "staged"))
    assert status()["summary"]["up"] == len(ALL)


def workers_of(pid: int) -> set[int]:
    """The processes that descend from this one, in whatever session."""
    found: set[int] = set()
    todo = [pid]
    while todo:
        answer = subprocess.run(["pgrep", "-P", str(todo.pop())], check=False, capture_output=True, text=True)
        children = {int(word) for word in answer.stdout.split()} - found
        found |= children
        todo += children
    return found
