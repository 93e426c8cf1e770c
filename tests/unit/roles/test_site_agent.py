# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent that runs on a site, under every shell it may meet, killed at every step."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer

AGENT = bundles.ROLE / "files" / "site-agent.sh"
UNIT = "openvpn-client@spokewright.service"
# What a kill may come between.
STEPS = ("mkdir", "mv", "ln", "rm", "tar", "sync", "sha256sum", "chmod", "systemctl", "systemd-run", "cmp", "readlink")

SYSTEMCTL = """#!/bin/sh
echo "$*" >>"{home}/calls"
case $1 in
  is-active) [ -f "{home}/active" ] && echo active || {{ echo inactive; exit 3; }} ;;
  is-enabled) [ -f "{home}/enabled" ] && echo enabled || {{ echo disabled; exit 1; }} ;;
  enable) [ ! -f "{home}/cannot-enable" ] && touch "{home}/enabled" || exit 1 ;;
  restart)
    rm -f "{home}/active"
    grep -q broken "{root}/etc/openvpn/client/spokewright.conf" && exit 1
    touch "{home}/active"
    ;;
esac
exit 0
"""


class Site:
    """A root directory that takes the place of a site's."""

    def __init__(self, home: Path, shell: str) -> None:
        self.home, self.root, self.bin = home, home / "root", home / "bin"
        (self.root / "etc").mkdir(parents=True)
        self.bin.mkdir()
        self.tool("systemctl", SYSTEMCTL.format(home=home, root=self.root))
        self.tool("systemd-run", f'#!/bin/sh\necho "systemd-run $*" >>"{home}/calls"\n')
        self.tool("openvpn", '#!/bin/sh\necho "OpenVPN 2.6.14 x86_64"\n')
        self.path = f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.shell = [shell]
        if shell == "busybox":
            applets = home / "busybox"
            applets.mkdir()
            program = shutil.which("busybox")
            assert program is not None
            for name in subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split():
                (applets / name).symlink_to(program)
            self.path = f"{self.bin}:{applets}"
            self.shell = [program, "ash"]

    def tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.shell, str(AGENT), *words],
            check=False,
            input=stdin,
            capture_output=True,
            timeout=60,
            start_new_session=True,
            env={"SPOKEWRIGHT_ROOT": str(self.root), "SPOKEWRIGHT_PATH": self.path},
        )

    def run(self, *words: str, stdin: bytes = b"") -> dict[str, Any]:
        ran = self.start(*words, stdin=stdin)
        answer = Answer(exit_status=ran.returncode, stdout=ran.stdout, stderr=ran.stderr, seconds=0)
        receipt = delivery.read_receipt(site="site-0001", answer=answer)
        assert receipt["ok"] is (ran.returncode == 0)
        return receipt

    def stage(self, bundle: bundles.Bundle) -> dict[str, Any]:
        return self.run("stage", bundle.digest, stdin=bundle.archive)

    def calls(self) -> list[str]:
        path = self.home / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def forget_calls(self) -> None:
        (self.home / "calls").unlink(missing_ok=True)

    @property
    def base(self) -> Path:
        return self.root / "etc/spokewright"


def make(text: str) -> bundles.Bundle:
    files = {
        "client.conf": text,
        "unit.conf": f"[Service]\n# {text}\n",
        "agent.sh": AGENT.read_text(),
        "site.key": f"SECRET {text}\n",
    }
    manifest = bundles.manifest_of(files=files)
    return bundles.Bundle(
        site="site-0001",
        epoch=1,
        digest=hashlib.sha256(manifest.encode()).hexdigest(),
        archive=bundles._tar({**files, "MANIFEST": manifest}),
        manifest=manifest,
    )


ONE, TWO, THREE = make('one "quoted" \\ back\n\ttab\n'), make("two\n"), make("three\n")


@pytest.fixture(params=["dash", "bash", "busybox"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, request.param)


def cut_power(site: Site) -> None:
    """The next start of the unit is one after another boot."""
    pending = site.base / "state/pending"
    if pending.exists():
        pending.write_text(f"{pending.read_text().split()[0]} another-boot started\n")
    site.start("guard")


def settle(site: Site, bundle: bundles.Bundle) -> int:
    number = int(site.stage(bundle)["generation"])
    assert site.run("activate", str(number), "60")["ok"]
    assert site.run("confirm", str(number))["ok"]
    return number


def test_the_whole_life(site: Site) -> None:
    empty = site.run("show")
    assert (empty["generations"], empty["current"], empty["openvpn"]) == ([], 0, "2.6.14")
    staged = site.stage(ONE)
    assert (staged["changed"], staged["generation"], staged["digest"]) == (True, 1, ONE.digest)
    assert site.run("show")["current"] == 0
    assert site.run("activate", "1", "60")["changed"] is True
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["confirmed"], shown["service"]) == (1, 1, 0, "active")
    assert site.run("confirm", "1")["changed"] is True
    assert settle(site, TWO) == 2
    assert site.run("revert", "2")["generation"] == 1
    shown = site.run("show")
    assert (shown["current"], shown["confirmed"], shown["pending"]) == (1, 1, 0)


def test_every_verb_run_again_changes_nothing(site: Site) -> None:
    site.stage(ONE)
    assert site.stage(ONE)["changed"] is False
    site.run("activate", "1", "60")
    assert site.run("activate", "1", "60")["changed"] is False
    site.run("confirm", "1")
    site.forget_calls()
    assert site.run("confirm", "1")["changed"] is False
    assert site.run("activate", "1", "60")["changed"] is False
    assert not [call for call in site.calls() if call.startswith(("restart", "systemd-run", "enable", "daemon-reload"))]
    settle(site, TWO)
    site.run("revert", "2")
    assert site.run("revert", "2")["changed"] is False


def test_show_returns_the_configuration_as_it_is_and_no_key(site: Site) -> None:
    settle(site, ONE)
    shown = site.run("show")
    assert shown["config"] + "\n" == 'one "quoted" \\ back\n\ttab\n'
    assert shown["manifest"] + "\n" == ONE.manifest
    assert "SECRET" not in json.dumps(shown)


def test_files_are_closed_to_others(site: Site) -> None:
    settle(site, ONE)
    for path in site.base.rglob("*"):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o077 == 0, path


def test_links_lead_where_the_unit_looks(site: Site) -> None:
    settle(site, ONE)
    assert (site.root / "etc/openvpn/client/spokewright.conf").read_text().startswith("one")
    assert "one" in (site.root / f"etc/systemd/system/{UNIT}.d/spokewright.conf").read_text()
    assert "daemon-reload" in site.calls()


def test_a_timer_is_armed_before_the_client_restarts_and_disarmed_by_confirm(site: Site) -> None:
    site.stage(ONE)
    site.run("activate", "1", "77")
    calls = site.calls()
    armed = next(at for at, call in enumerate(calls) if call.startswith("systemd-run") and "--on-active=77" in call)
    assert armed < next(at for at, call in enumerate(calls) if call.startswith("restart"))
    assert "generations/1/agent.sh deadman 1" in calls[armed]
    site.forget_calls()
    site.run("confirm", "1")
    assert "stop spokewright-deadman.timer" in site.calls()


def test_the_dead_man_goes_back_to_what_was_confirmed(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    site.forget_calls()
    site.start("deadman", "2")
    shown = site.run("show")
    assert (shown["current"], shown["confirmed"], shown["pending"], shown["reverted"]) == (1, 1, 0, 2)
    assert f"restart {UNIT}" in site.calls()
    refused = site.run("confirm", "2")
    assert refused["reason"] == "not-current"
    assert refused["message"] == "generation 1 is current, not 2: the site went back by itself"


def test_the_dead_man_leaves_a_first_generation_running(site: Site) -> None:
    site.stage(ONE)
    site.run("activate", "1", "60")
    site.start("deadman", "1")
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["service"]) == (1, 0, "active")
    assert site.run("activate", "1", "60")["ok"]
    assert site.run("confirm", "1")["changed"] is True


def test_a_dead_man_that_fires_after_confirm_does_nothing(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    site.forget_calls()
    site.start("deadman", "2")
    assert site.run("show")["current"] == 2
    assert not [call for call in site.calls() if call.startswith("restart")]


def test_after_a_power_cut_on_probation_the_unit_guard_goes_back(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    site.start("guard")
    assert site.run("show")["current"] == 2
    (site.base / "state/pending").write_text("2 another-boot started\n")
    site.start("guard")
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["reverted"]) == (1, 0, 2)


def test_a_client_that_does_not_start_is_left_at_once(site: Site) -> None:
    settle(site, ONE)
    site.stage(make("broken\n"))
    failed = site.run("activate", "2", "60")
    assert failed["reason"] == "service-failed"
    assert "did not start on generation 2; went back to 1" in failed["message"]
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["service"]) == (1, 0, "active")


def test_a_client_that_cannot_be_enabled_is_left_at_once(site: Site) -> None:
    settle(site, ONE)
    (site.home / "enabled").unlink()
    (site.home / "cannot-enable").touch()
    site.stage(TWO)
    failed = site.run("activate", "2", "60")
    assert failed["reason"] == "service-failed"
    assert "the client cannot be enabled on generation 2; went back to 1" in failed["message"]
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["enabled"]) == (1, 0, False)


@pytest.mark.parametrize(
    "gone",
    ["enabled", "root/etc/openvpn/client/spokewright.conf", f"root/etc/systemd/system/{UNIT}.d/spokewright.conf"],
)
def test_a_site_that_would_not_come_up_at_its_next_boot_is_seen_and_mended(site: Site, gone: str) -> None:
    settle(site, ONE)
    shown = site.run("show")
    assert (shown["enabled"], shown["links"]) == (True, True)
    assert delivery.settled(shown=shown, digest=ONE.digest)
    (site.home / gone).unlink()
    shown = site.run("show")
    assert (shown["enabled"], shown["links"]) == (gone != "enabled", gone == "enabled")
    assert not delivery.settled(shown=shown, digest=ONE.digest)
    assert site.run("activate", "1", "60")["changed"] is True
    assert delivery.settled(shown=site.run("show"), digest=ONE.digest)


def test_a_site_that_cannot_go_back_now_does_so_later(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    # A file system that has become read-only lets no link be made.
    site.tool("ln", "#!/bin/sh\nexit 1\n")
    site.start("deadman", "2")
    shown = site.run("show")
    assert (shown["current"], shown["pending"]) == (2, 2)
    refused = site.run("revert", "2")
    assert (refused["reason"], site.run("show")["pending"]) == ("unwritable", 2)
    (site.bin / "ln").unlink()
    cut_power(site)
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["reverted"]) == (1, 0, 2)


def test_a_bundle_that_was_cut_leaves_nothing(site: Site) -> None:
    settle(site, ONE)
    for keep in (0, 100, 600, len(TWO.archive) // 2):
        cut = site.run("stage", TWO.digest, stdin=TWO.archive[:keep])
        assert cut["reason"] == "incomplete", keep
    assert sorted(path.name for path in (site.base / "generations").iterdir()) == ["1"]


def test_a_bundle_with_a_changed_byte_is_refused(site: Site) -> None:
    archive = TWO.archive.replace(b"SECRET two", b"SECRET twO")
    refused = site.run("stage", TWO.digest, stdin=archive)
    assert (refused["reason"], refused["message"]) == (
        "incomplete",
        "what was read back from the disk is not what was sent",
    )


def test_a_damaged_generation_is_not_intact_and_is_staged_anew(site: Site) -> None:
    settle(site, ONE)
    (site.base / "generations/1/site.key").write_text("x")
    assert site.run("show")["generations"] == [{"generation": 1, "digest": "", "intact": False}]
    assert site.stage(ONE)["generation"] == 2
    assert site.run("activate", "1", "60")["reason"] == "no-generation"


def test_old_generations_go_and_what_may_be_needed_stays(site: Site) -> None:
    settle(site, ONE)
    for number in range(2, 8):
        assert settle(site, make(f"text {number}\n")) == number
    assert sorted(path.name for path in (site.base / "generations").iterdir()) == ["5", "6", "7"]
    assert site.run("revert", "7")["generation"] == 6


def test_openvpn_missing_is_said_before_anything_is_touched(site: Site) -> None:
    site.stage(ONE)
    (site.bin / "openvpn").unlink()
    site.path = site.path.replace(":/usr/sbin", "").replace(":/sbin", "")
    assert site.run("show")["openvpn"] == ""
    assert site.run("activate", "1", "60")["reason"] == "openvpn-missing"
    assert site.run("show")["current"] == 0


def test_a_second_run_at_the_same_time_waits_its_turn(site: Site) -> None:
    site.tool("tar", '#!/bin/sh\nsleep 1\nPATH=${PATH#*:} exec tar "$@"\n')
    words = [*site.shell, str(AGENT), "stage"]
    env = {"SPOKEWRIGHT_ROOT": str(site.root), "SPOKEWRIGHT_PATH": site.path}
    running = [
        subprocess.Popen([*words, one.digest], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        for one in (ONE, TWO)
    ]
    for process, one in zip(running, (ONE, TWO), strict=True):
        assert process.stdin is not None
        process.stdin.write(one.archive)
        process.stdin.close()
    for process in running:
        assert process.wait(timeout=30) == 0
    assert [one["intact"] for one in site.run("show")["generations"]] == [True, True]


def test_without_flock_the_lock_of_a_dead_process_does_not_block(tmp_path: Path) -> None:
    site = Site(tmp_path, "busybox")
    (tmp_path / "busybox/flock").unlink(missing_ok=True)
    dead = subprocess.run(["sh", "-c", "echo $$"], check=True, capture_output=True, text=True).stdout.strip()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    for owner in (f"{dead} {boot}\n", "1 another-boot\n"):
        (site.base / "state/lock.d").mkdir(parents=True)
        (site.base / "state/lock.d/owner").write_text(owner)
        assert site.stage(ONE)["ok"]
        assert not (site.base / "state/lock.d").exists()


def killed_at(calm: Site, here: Path, step: int, *words: str, stdin: bytes = b"") -> tuple[Site, bool]:
    """A copy of the calm site on which the verb was killed before that step, and whether it came so far."""
    shutil.copytree(calm.home, here, symlinks=True)
    site = Site.__new__(Site)
    site.home, site.root, site.bin, site.shell = here, here / "root", here / "bin", ["dash"]
    site.tool("systemctl", SYSTEMCTL.format(home=here, root=site.root))
    traps = here / "traps"
    traps.mkdir()
    for name in STEPS:
        real = site.bin / name if (site.bin / name).exists() else shutil.which(name)
        (traps / name).write_text(
            f'#!/bin/sh\necho x >>"{here}/count"\n[ "$(wc -l <"{here}/count")" -eq {step} ] && kill -9 0\n'
            f'exec {real} "$@"\n'
        )
        (traps / name).chmod(0o755)
    plain = f"{site.bin}:/usr/sbin:/usr/bin:/sbin:/bin"
    site.path = f"{traps}:{plain}"
    killed = site.start(*words, stdin=stdin).returncode == -signal.SIGKILL
    site.path = plain
    return site, killed


@pytest.mark.parametrize("verb", ["deadman", "guard", "revert", "activate"])
def test_a_power_cut_at_any_step_of_going_back_ends_on_the_confirmed_generation(tmp_path: Path, verb: str) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, ONE)
    calm.stage(make("broken\n") if verb == "activate" else TWO)
    if verb != "activate":
        calm.run("activate", "2", "60")
    if verb == "guard":
        (calm.base / "state/pending").write_text("2 another-boot started\n")
    if verb == "revert":
        calm.run("confirm", "2")
    words = {"activate": ("activate", "2", "60"), "guard": ("guard",)}.get(verb, (verb, "2"))
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, *words)
        confirmed = (site.base / "state/confirmed").read_text()
        cut_power(site)
        shown = site.run("show")
        assert (shown["current"], shown["pending"]) == (int(confirmed), 0), (step, shown)
        if not killed:
            assert (shown["current"], step > 5) == (1, True)
            return
    pytest.fail("the verb never ended by itself")


@pytest.mark.parametrize("verb", ["stage", "activate", "confirm", "revert"])
def test_killed_at_any_step_nothing_is_lost_and_the_next_run_finishes(tmp_path: Path, verb: str) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, ONE)
    if verb != "stage":
        calm.stage(TWO)
    if verb in {"confirm", "revert"}:
        calm.run("activate", "2", "60")
    if verb == "revert":
        calm.run("confirm", "2")
    words = {"stage": ("stage", TWO.digest), "activate": ("activate", "2", "60")}.get(verb, (verb, "2"))
    stdin = TWO.archive if verb == "stage" else b""
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, *words, stdin=stdin)
        shown = site.run("show")
        assert all(one["intact"] for one in shown["generations"]), (step, shown)
        assert shown["current"] in {1, 2}, (step, shown)
        again = site.run(*words, stdin=stdin)
        assert again["ok"], (step, again)
        if verb == "revert":
            shown = site.run("show")
            assert (shown["current"], shown["pending"], shown["service"]) == (1, 0, "active"), step
        else:
            assert site.run("activate", "2", "60")["ok"], step
            assert site.run("confirm", "2")["ok"], step
            assert site.run("show")["current"] == site.run("show")["confirmed"] == 2, step
        assert not list(site.base.rglob(".incoming*")) or verb != "stage"
        if not killed:
            assert step > 5
            return
    pytest.fail("the verb never ended by itself")


def test_the_command_fits_where_dropbear_is_the_server() -> None:
    command = delivery.command(user="root", words=("stage", "0" * 64))
    assert len(command) < 9000
    assert "\n#" not in command


def test_the_command_survives_the_login_shell(tmp_path: Path) -> None:
    for shell in (["bash", "-c"], ["dash", "-c"], ["busybox", "ash", "-c"]):
        site = Site(tmp_path / "-".join(shell), "dash")
        ran = subprocess.run(
            [*shell, delivery.command(user="root", words=("stage", ONE.digest))],
            check=False,
            input=ONE.archive,
            capture_output=True,
            env={"SPOKEWRIGHT_ROOT": str(site.root), "SPOKEWRIGHT_PATH": site.path, "PATH": os.environ["PATH"]},
        )
        answer = Answer(exit_status=ran.returncode, stdout=b"Welcome!\n" + ran.stdout, stderr=b"", seconds=0)
        assert delivery.read_receipt(site="x", answer=answer)["generation"] == 1


def test_the_archive_of_a_test_is_a_real_one() -> None:
    with tarfile.open(fileobj=io.BytesIO(ONE.archive)) as archive:
        assert "MANIFEST" in archive.getnames()
