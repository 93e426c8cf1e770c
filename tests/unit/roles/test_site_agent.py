# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent that runs on a site, under every shell it may meet, killed at every step."""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT = bundles.ROLE / "files" / "site-agent.sh"
UNIT = "openvpn-client@spokewright.service"
# What a kill may come between.
STEPS = ("mkdir", "mv", "ln", "rm", "tar", "sync", "sha256sum", "systemctl", "systemd-run", "cmp", "readlink", "flock")

SYSTEMCTL = """#!/bin/sh
echo "$*" >>"{home}/calls"
case $1 in
  show)
    [ -f "{home}/active" ] && echo ActiveState=active || echo ActiveState=inactive
    [ -f "{home}/enabled" ] && echo UnitFileState=enabled || echo UnitFileState=disabled
    ;;
  enable) [ ! -f "{home}/cannot-enable" ] && touch "{home}/enabled" || exit 1 ;;
  restart)
    rm -f "{home}/active"
    grep -q broken "{root}/etc/openvpn/client/spokewright.conf" && exit 1
    cat "{root}/etc/openvpn/client/spokewright.conf" >"{home}/active"
    ;;
esac
exit 0
"""

# Stands for the real one of a site without systemd.
INIT = """#!/bin/sh
home=${SPOKEWRIGHT_ROOT%/root}
echo "init $*" >>"$home/calls"
case $1 in
  status) [ -f "$home/active" ] ;;
  restart)
    rm -f "$home/active"
    grep -q broken "$SPOKEWRIGHT_ROOT/etc/spokewright/current/client.conf" && exit 1
    touch "$home/active"
    ;;
esac
"""


class Site:
    """A root directory that takes the place of a site's."""

    def __init__(self, home: Path, shell: str) -> None:
        self.home, self.root, self.bin = home, home / "root", home / "bin"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "run/systemd/system").mkdir(parents=True)
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


# How a client's unit has its guard run; an earlier release had no unit for it.
WANTED_GUARD = f"[Unit]\nWants={bundles.GUARD}\n[Service]"
EARLIER_GUARD = "[Service]\nExecStartPre=+-/bin/sh /etc/spokewright/current/agent.sh guard"
ALWAYS = (dt.date(2001, 1, 1), dt.date(9999, 1, 1))


def make(
    text: str,
    *,
    epoch: int = 1,
    valid: tuple[dt.date, dt.date] = ALWAYS,
    more: Mapping[str, str] | None = None,
    leave_out: tuple[str, ...] = (),
) -> bundles.Bundle:
    files = {
        "client.conf": text,
        "unit.conf": f"{EARLIER_GUARD if bundles.GUARD in leave_out else WANTED_GUARD}\n# {text}\n",
        bundles.GUARD: "[Service]\n# guard\n",
        "agent.sh": AGENT.read_text(),
        "site.key": f"SECRET {text}\n",
        "facts": bundles.facts_line(epoch=epoch, kid="00ff", psk_fingerprint="SHA256:aa/b+c=", valid=valid),
        "init.sh": INIT,
        "openrc.sh": INIT,
        **(more or {}),
    }
    for name in leave_out:
        del files[name]
    manifest = bundles.manifest_of(files=files)
    return bundles.Bundle(
        site="site-0001",
        epoch=epoch,
        digest=hashlib.sha256(manifest.encode()).hexdigest(),
        archive=bundles._tar({**files, "MANIFEST": manifest}),
        manifest=manifest,
    )


ONE, TWO, THREE = make('one "quoted" \\ back\n\ttab\n'), make("two\n"), make("three\n", epoch=2)


@pytest.fixture(params=["dash", "bash", "busybox"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    return Site(tmp_path, request.param)


def cut_power(site: Site) -> None:
    """The next start of the unit is one after another boot: systemd reads all files, and starts what it finds."""
    pending = site.base / "state/pending"
    if pending.exists():
        pending.write_text(f"{pending.read_text().split()[0]} another-boot started\n")
    units = site.root / "etc/systemd/system"
    drop_in = units / f"{UNIT}.d/spokewright.conf"
    unit = drop_in.read_text() if drop_in.exists() else ""
    if EARLIER_GUARD in unit or (WANTED_GUARD in unit and (units / bundles.GUARD).exists()):
        site.start("guard")


def time_is_up(site: Site) -> None:
    """The probation has lasted its seconds."""
    pending = site.base / "state/pending"
    if pending.exists():
        pending.write_text(" ".join([*pending.read_text().split()[:3], "0"]) + "\n")


def fire(site: Site, number: str) -> None:
    time_is_up(site)
    site.start("deadman", number)


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
    assert (site.root / f"etc/systemd/system/{bundles.GUARD}").read_text() == "[Service]\n# guard\n"
    assert "daemon-reload" in site.calls()


def test_systemd_reads_its_files_again_only_when_one_of_them_changed(site: Site) -> None:
    def reloads(bundle: bundles.Bundle) -> bool:
        site.forget_calls()
        settle(site, bundle)
        return "daemon-reload" in site.calls()

    def bundle(text: str, **more: str) -> bundles.Bundle:
        return make(text, more={"unit.conf": "[Service]\n"} | more)

    guard = bundles.GUARD
    assert reloads(bundle("first\n"))
    assert not reloads(bundle("second\n"))
    assert reloads(bundle("third\n", **{guard: "[Service]\n# another guard\n"}))
    assert reloads(bundle("fourth\n", **{guard: "[Service]\n# another guard\n", "unit.conf": "[Service]\n# other\n"}))
    # A site of before, whose guard was no unit, and the way back to it.
    (site.root / f"etc/systemd/system/{guard}").unlink()
    assert site.run("show")["links"] is False
    assert reloads(bundle("fifth\n"))
    assert site.run("show")["links"] is True


def test_a_generation_whose_guard_is_no_unit_is_whole_as_well(site: Site) -> None:
    """One that an earlier release staged has it in unit.conf."""
    plain = make("plain\n", leave_out=(bundles.GUARD,))
    settle(site, plain)
    assert site.run("show")["links"] is True
    settle(site, ONE)
    assert site.run("show")["links"] is True
    site.run("revert")
    assert delivery.settled(shown=site.run("show"), digest=plain.digest)


@pytest.mark.parametrize("linked", ["etc", "etc/openvpn", "etc/spokewright", "etc/systemd"])
def test_directories_that_are_links_to_elsewhere_do_no_harm(site: Site, linked: str) -> None:
    """A small box keeps what it may write on another partition."""
    elsewhere = site.root / "data/of/the/box"
    elsewhere.mkdir(parents=True)
    if (site.root / linked).exists():
        (site.root / linked).rmdir()
    (site.root / linked).symlink_to(elsewhere)
    settle(site, ONE)
    settle(site, TWO)
    assert delivery.settled(shown=site.run("show"), digest=TWO.digest)
    assert (site.home / "active").read_text().startswith("two")
    site.run("revert")
    assert (site.home / "active").read_text().startswith("one")
    assert site.run("show")["links"] is True


def test_directories_that_are_no_generations_are_passed_over(site: Site) -> None:
    site.stage(ONE)
    for name in ("050", "7x", "1.bak"):
        shutil.copytree(site.base / "generations/1", site.base / "generations" / name)
    assert site.stage(TWO)["generation"] == 2
    assert [one["generation"] for one in site.run("show")["generations"]] == [1, 2]


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
    fire(site, "2")
    shown = site.run("show")
    assert (shown["current"], shown["confirmed"], shown["pending"], shown["reverted"]) == (1, 1, 0, 2)
    assert f"restart {UNIT}" in site.calls()
    refused = site.run("confirm", "2")
    assert refused["reason"] == "not-current"
    assert refused["message"] == "generation 1 is current, not 2: the site went back by itself"


def test_the_dead_man_leaves_a_first_generation_running(site: Site) -> None:
    site.stage(ONE)
    site.run("activate", "1", "60")
    fire(site, "1")
    shown = site.run("show")
    assert (shown["current"], shown["pending"], shown["service"]) == (1, 0, "active")
    assert site.run("activate", "1", "60")["ok"]
    assert site.run("confirm", "1")["changed"] is True


def test_a_dead_man_that_fires_after_confirm_does_nothing(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    site.forget_calls()
    fire(site, "2")
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
    fire(site, "2")
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


TODAY = dt.datetime.now(tz=dt.UTC).date()
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(("first", "last"), [(DAY * 2, DAY * 900), (-DAY * 900, -DAY * 2)])
def test_a_site_whose_clock_no_certificate_fits_keeps_the_client_that_runs(
    site: Site, first: dt.timedelta, last: dt.timedelta
) -> None:
    settle(site, ONE)
    other = make("late\n", valid=(TODAY + first, TODAY + last))
    site.stage(other)
    site.forget_calls()
    answer = site.run("activate", other.digest, "60")
    assert (answer["reason"], answer["changed"], answer["current"], answer["pending"]) == ("wrong-clock", False, 1, 0)
    said = answer["message"]
    assert re.fullmatch(
        r"its clock says \d{4}-\d\d-\d\d, and this generation's certificates are valid from "
        rf"{TODAY + first} to {TODAY + last}: its client might believe no gateway, with the keys it has now as "
        r"little\. Set the clock, then run again; nothing was changed",
        said,
    ), said
    assert not [call for call in site.calls() if "restart" in call or "systemd-run" in call]


def test_a_wrong_clock_keeps_nobody_from_a_client_that_is_down_or_half_way_back(site: Site) -> None:
    late = (TODAY + DAY * 2, TODAY + DAY * 900)
    first = make("first\n", valid=late)
    assert settle(site, first) == 1
    (site.home / "active").unlink()
    assert site.run("activate", "1", "60")["ok"]
    # A dead-man that was killed between its link and its restart.
    site.stage(TWO)
    site.run("activate", "2", "60")
    site.run("confirm", "2")
    site.run("revert", "2")
    (site.base / "state/pending").write_text("2 this-boot started 0\n")
    assert site.run("activate", "1", "60")["ok"]
    assert (site.home / "active").read_text().startswith("first")


def test_a_clock_that_says_nothing_is_not_asked(site: Site) -> None:
    settle(site, ONE)
    site.tool("date", "#!/bin/sh\nexit 1\n")
    assert settle(site, make("late\n", valid=(TODAY + DAY * 2, TODAY + DAY * 900))) == 2


def test_the_days_at_both_ends_are_good_and_a_generation_that_names_none_is_not_asked(site: Site) -> None:
    for number, bundle in enumerate(
        (
            # Midnight may pass meanwhile.
            make("ends\n", valid=(TODAY - DAY * 900, TODAY + DAY)),
            make("begins\n", valid=(TODAY, TODAY + DAY * 900)),
            make("older\n", more={"facts": '{"epoch":1,"kid":"00ff","psk_fingerprint":""}\n'}),
        ),
        start=1,
    ):
        assert settle(site, bundle) == number


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
    site.stage(ONE)
    for verb, owner in (("activate", f"{dead} {boot}\n"), ("confirm", "1 another-boot\n")):
        (site.base / "state/lock.d").mkdir(parents=True)
        (site.base / "state/lock.d/owner").write_text(owner)
        assert site.run(verb, "1")["changed"] is True
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
    if verb == "deadman":
        time_is_up(calm)
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


def test_a_power_cut_at_any_step_of_the_first_activation_with_a_guard_unit_finds_a_guard(tmp_path: Path) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, make("before\n", leave_out=(bundles.GUARD,)))
    calm.stage(TWO)
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, "activate", "2", "60")
        cut_power(site)
        shown = site.run("show")
        assert (shown["current"], shown["pending"]) == (1, 0), (step, shown)
        if not killed:
            assert step > 5
            return
    pytest.fail("the verb never ended by itself")


@pytest.mark.parametrize("verb", ["activate", "confirm", "revert"])
def test_a_dead_man_killed_at_any_step_is_finished_by_the_next_run(tmp_path: Path, verb: str) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, ONE)
    calm.stage(TWO)
    calm.run("activate", "2", "60")
    time_is_up(calm)
    for step in range(1, 80):
        site, killed = killed_at(calm, tmp_path / f"step-{step}", step, "deadman", "2")
        went_back = site.run("show")["current"] == 1
        words = (verb,) if verb == "revert" else (verb, "1")
        if went_back or verb != "confirm":
            assert site.run(*words)["ok"], step
            shown = site.run("show")
            assert (shown["current"], shown["confirmed"], shown["pending"]) == (1, 1, 0), step
            assert (site.home / "active").read_text().startswith("one"), step
        if not killed:
            assert step > 5
            return
    pytest.fail("the verb never ended by itself")


@pytest.mark.parametrize("verb", ["stage", "activate", "confirm", "revert", "forget"])
def test_killed_at_any_step_nothing_is_lost_and_the_next_run_finishes(tmp_path: Path, verb: str) -> None:
    calm = Site(tmp_path / "calm", "dash")
    settle(calm, ONE)
    if verb != "stage":
        calm.stage(TWO)
    if verb in {"confirm", "revert"}:
        calm.run("activate", "2", "60")
    if verb == "revert":
        calm.run("confirm", "2")
    if verb == "forget":
        settle(calm, TWO)
    words = {
        "stage": ("stage", TWO.digest),
        "activate": ("activate", "2", "60"),
        "revert": ("revert",),
        "forget": ("forget", "1"),
    }.get(verb, (verb, "2"))
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
            assert (site.home / "active").read_text().startswith("one"), step
            assert site.run("revert")["current"] == 1, step
        elif verb == "forget":
            assert (generations(site), again["previous"]) == (["2"], 0), step
        else:
            assert site.run("activate", "2", "60")["ok"], step
            assert site.run("confirm", "2")["ok"], step
            assert site.run("show")["current"] == site.run("show")["confirmed"] == 2, step
            assert (site.home / "active").read_text().startswith("two"), step
        assert not list(site.base.rglob(".[io][nl][cd]*")), step
        if not killed:
            assert step > (3 if verb == "forget" else 5)
            return
    pytest.fail("the verb never ended by itself")


def test_the_command_fits_where_dropbear_is_the_server() -> None:
    assert len(delivery.command(user="somebody", words=("stage", "0" * 64, "texts"))) < 1000
    # Room for what a login on a site may put before it
    assert len(delivery.command(user="somebody", words=("stage", "0" * 64))) < 8000


SHELLS = (["bash", "-c"], ["dash", "-c"], ["busybox", "ash", "-c"])


def log_in(site: Site, shell: list[str], *words: str, stdin: bytes, path: str = os.environ["PATH"]) -> bytes:
    return subprocess.run(
        [*shell, delivery.command(user="root", words=words)],
        check=False,
        input=stdin,
        capture_output=True,
        timeout=60,
        env={"SPOKEWRIGHT_ROOT": str(site.root), "SPOKEWRIGHT_PATH": site.path, "PATH": path},
    ).stdout


def read(out: bytes) -> dict[str, Any]:
    return delivery.read_receipt(site="x", answer=Answer(exit_status=0, stdout=out, stderr=b"", seconds=0))


@pytest.mark.parametrize("shell", SHELLS)
def test_agent_and_bundle_arrive_on_standard_input_whatever_the_login_shell(tmp_path: Path, shell: list[str]) -> None:
    site = Site(tmp_path, "dash")
    out = log_in(site, shell, "stage", ONE.digest, "texts", stdin=delivery.agent_bytes() + ONE.archive)
    noisy = b"Welcome!\r\n" + out.replace(b"\n", b"\r\n") + b"logout\r\n"
    for one in (out, noisy):
        receipt = read(one)
        assert (receipt["generation"], receipt["changed"], receipt["installed"]) == (1, True, True)
    assert out.count(delivery.WANT) == 1
    assert delivery.WANT not in log_in(site, shell, "stage", ONE.digest, "texts", stdin=delivery.agent_bytes())
    assert read(log_in(site, shell, "confirm", ONE.digest, stdin=delivery.agent_bytes()))["reason"] == "not-current"


@pytest.mark.parametrize("shell", SHELLS)
def test_an_agent_of_which_a_part_is_missing_is_not_run(tmp_path: Path, shell: list[str]) -> None:
    site = Site(tmp_path, "dash")
    whole = delivery.agent_bytes()
    for part in (b"", whole[:100], whole[:-1], whole[1:], whole[3000:] + ONE.archive):
        receipt = read(log_in(site, shell, "stage", ONE.digest, "texts", stdin=part))
        assert receipt["reason"] == "incomplete"
        assert "does something in the login on this site read standard input?" in receipt["message"]
    assert not site.base.exists()


def test_a_dd_without_fullblock_is_enough(tmp_path: Path) -> None:
    site = Site(tmp_path, "dash")
    old = tmp_path / "old"
    old.mkdir()
    (old / "dd").write_text('#!/bin/sh\ncase "$*" in *fullblock*) exit 1 ;; esac\nexec /usr/bin/dd "$@"\n')
    (old / "dd").chmod(0o755)
    out = log_in(
        site,
        ["dash", "-c"],
        "stage",
        ONE.digest,
        "texts",
        stdin=delivery.agent_bytes() + ONE.archive,
        path=f"{old}:{os.environ['PATH']}",
    )
    assert read(out)["generation"] == 1


def test_an_mv_that_cannot_keep_off_a_directory_is_enough(site: Site) -> None:
    real = shutil.which("mv")
    site.tool("mv", f'#!/bin/sh\ncase $1 in -*T*) exit 1 ;; esac\nexec {real} "$@"\n')
    assert settle(site, ONE) == 1
    assert settle(site, TWO) == 2
    assert site.run("revert")["current"] == 1
    assert [one["intact"] for one in site.run("show")["generations"]] == [True, True]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_new_bundle_needs_the_first_part_of_the_agent_only(tmp_path: Path, shell: list[str]) -> None:
    site = Site(tmp_path, "dash")
    out = log_in(site, shell, "stage", ONE.digest, stdin=ONE.archive)
    assert (out.count(delivery.WANT), out.count(delivery.MORE)) == (1, 0)
    receipt = read(out)
    assert (receipt["generation"], receipt["changed"], receipt["installed"]) == (1, True, True)
    assert "generations" not in receipt


@pytest.mark.parametrize("shell", SHELLS)
def test_a_site_that_holds_the_bundle_asks_for_the_second_part_to_tell_about_its_service(
    tmp_path: Path, shell: list[str]
) -> None:
    site = Site(tmp_path, "dash")
    settle(site, ONE)
    out = log_in(site, shell, "stage", ONE.digest, stdin=delivery.rest_bytes())
    assert (out.count(delivery.WANT), out.count(delivery.MORE)) == (0, 1)
    receipt = read(out)
    assert receipt["changed"] is False
    assert delivery.settled(shown=receipt, digest=ONE.digest)
    for part in (b"", delivery.rest_bytes()[:-1], ONE.archive):
        assert read(log_in(site, shell, "stage", ONE.digest, stdin=part))["reason"] == "incomplete"


def test_the_second_part_is_asked_for_on_a_line_of_its_own_whatever_the_login_printed(tmp_path: Path) -> None:
    site = Site(tmp_path, "dash")
    site.stage(ONE)
    out = log_in(site, ["dash", "-c"], "stage", ONE.digest, stdin=delivery.rest_bytes())
    assert b"\x1b]0;title\x07" + out == b"\x1b]0;title\x07\nSPOKEWRIGHT-MORE\n" + out.partition(b"MORE\n")[2]


@pytest.mark.parametrize("tool", ["sha256sum", "tar", "sync"])
def test_a_program_that_a_site_lacks_is_named(tmp_path: Path, tool: str) -> None:
    site = Site(tmp_path, "busybox")
    if tool == "sha256sum":
        site.stage(ONE)
    (tmp_path / "busybox" / tool).unlink()
    for words in (("stage", TWO.digest), ("activate", "1", "60")):
        failed = site.run(*words, stdin=TWO.archive)
        if tool == "sha256sum" or words[0] == "stage":
            assert (failed["reason"], failed["message"]) == ("tool-missing", f"{tool} is not installed")
    assert not list(site.base.glob("generations/.incoming*"))


@pytest.mark.parametrize("name", [".incoming.", ".old.1."])
def test_what_a_killed_run_left_goes_although_its_number_is_somebody_elses_by_now(site: Site, name: str) -> None:
    site.stage(ONE)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        left = site.base / f"generations/{name}{stranger.pid}"
        left.mkdir()
        (left / "psk.key").write_text("SECRET")
        site.stage(TWO)
        stranger.kill()
    assert generations(site) == ["1", "2"]


def test_what_another_run_is_receiving_is_left_alone(site: Site) -> None:
    first = subprocess.Popen(
        [*site.shell, str(AGENT), "stage", ONE.digest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"SPOKEWRIGHT_ROOT": str(site.root), "SPOKEWRIGHT_PATH": site.path},
    )
    assert first.stdin is not None
    # One record: enough for the first files, and the rest is still to come.
    first.stdin.write(ONE.archive[:10240])
    first.stdin.flush()
    end = time.monotonic() + 20
    while not list(site.base.glob("generations/.incoming.*/*")):
        assert time.monotonic() < end
        time.sleep(0.02)
    site.stage(TWO)
    out, _ = first.communicate(ONE.archive[10240:], timeout=30)
    assert read(out)["ok"] is True
    assert generations(site) == ["1", "2"]


def test_new_directories_are_on_the_disk_before_what_lies_in_them(site: Site) -> None:
    site.tool("sync", f'#!/bin/sh\necho "sync $*" >>"{site.home}/calls"\n')
    site.stage(ONE)
    assert site.calls()[0] == f"sync {site.base} {site.root}/etc"
    site.forget_calls()
    site.stage(TWO)
    assert not [call for call in site.calls() if f"{site.root}/etc" in call.split()]


def test_a_disk_that_takes_nothing_when_it_is_synced_is_no_success(site: Site) -> None:
    settle(site, ONE)
    site.tool("sync", "#!/bin/sh\nexit 1\n")
    assert site.run("stage", TWO.digest, stdin=TWO.archive)["reason"] == "unwritable"
    assert generations(site) == ["1"]


def processes(site: Site, *words: str, stdin: bytes = b"") -> list[str]:
    """The programs a verb starts."""
    log = site.home / "started"
    log.unlink(missing_ok=True)
    counters = site.home / "counters"
    counters.mkdir(exist_ok=True)
    for directory in reversed(site.path.split(":")):
        for program in Path(directory).iterdir() if Path(directory).is_dir() else ():
            if program.name in {"test", "[", "printf", "echo", "kill", "true", "false", "sh"}:
                continue
            counter = counters / program.name
            counter.unlink(missing_ok=True)
            counter.write_text(f'#!/bin/sh\necho {program.name} >>"{log}"\nexec "{program}" "$@"\n')
            counter.chmod(0o755)
    plain, site.path = site.path, str(counters)
    assert site.run(*words, stdin=stdin)["ok"]
    site.path = plain
    return log.read_text().split() if log.exists() else []


def test_a_bundle_costs_a_site_few_processes(tmp_path: Path) -> None:
    site = Site(tmp_path, "dash")
    site.stage(TWO)
    (site.base / "generations/1").rename(tmp_path / "away")
    began = processes(site, "stage", ONE.digest, stdin=ONE.archive)
    assert began == ["tar", "sync", "sha256sum", "mv", "sync"]
    assert processes(site, "stage", ONE.digest) == ["sha256sum", "systemctl"]
    again = processes(site, "stage", TWO.digest, stdin=TWO.archive)
    assert again == ["tar", "sync", "sha256sum", "mv", "sync"]


@pytest.mark.parametrize("refuses", ["--one-top-level", "nothing"])
def test_any_tar_will_do_and_what_it_says_is_passed_on(tmp_path: Path, refuses: str) -> None:
    site = Site(tmp_path, "dash")
    refusal = f'case "$*" in *{refuses}*) echo "tar: unrecognized option" >&2; exit 64 ;; esac'
    site.tool("tar", f'#!/bin/sh\n{refusal}\nexec /bin/tar "$@"\n')
    assert site.stage(ONE)["changed"]
    assert stat.S_IMODE((site.base / "generations/1").stat().st_mode) == 0o700
    cut = site.run("stage", TWO.digest, stdin=TWO.archive[:5000])
    assert cut["reason"] == "incomplete"
    assert "Unexpected EOF" in cut["message"]
    site.tool(
        "tar",
        f"#!/bin/sh\n{refusal}\nmkdir -p {site.base}/generations/.incoming.$PPID\n"
        'echo "tar: a: No space left on device" >&2; exit 2\n',
    )
    assert site.stage(TWO)["reason"] == "no-space"
    assert generations(site) == ["1"]


def test_a_generation_is_looked_into_unless_it_was_staged_as_another(site: Site) -> None:
    site.stage(ONE)
    name = site.base / "generations/1/.digest"
    assert name.read_text().strip() == ONE.digest
    for said in (None, "", "cut off", f"{ONE.digest}\n"):
        name.unlink(missing_ok=True)
        if said is not None:
            name.write_text(said)
        assert site.stage(ONE)["message"] == "generation 1 already holds it"
    (site.base / "generations/1/site.key").write_text("changed")
    again = site.stage(ONE)
    assert (again["changed"], again["generation"]) == (True, 2)


def generations(site: Site) -> list[str]:
    return sorted(path.name for path in (site.base / "generations").iterdir())


def test_show_tells_the_key_of_each_generation_and_what_the_site_has(site: Site) -> None:
    settle(site, ONE)
    site.stage(THREE)
    shown = site.run("show")
    facts = {"kid": "00ff", "psk_fingerprint": "SHA256:aa/b+c=", "valid": [day.isoformat() for day in ALWAYS]}
    assert [one["facts"] for one in shown["generations"]] == [{"epoch": 1, **facts}, {"epoch": 2, **facts}]
    assert shown["init"] == "systemd"
    assert shown["free_kb"] > 0
    assert "systemd-run" in shown["tools"]


def test_forget_takes_what_is_old_and_leaves_what_is_needed(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    site.stage(THREE)
    site.run("activate", "3", "60")
    for number, why in (("2", "the confirmed one"), ("3", "current")):
        refused = site.run("forget", number)
        assert (refused["reason"], refused["changed"]) == ("in-use", False)
        assert f"generation {number} is {why}" in refused["message"]
    refused = site.run("forget", ONE.digest)
    assert "generation 1 is the way back; forget it by its number" in refused["message"]
    assert site.run("forget", "old")["changed"] is False
    assert generations(site) == ["1", "2", "3"]
    gone = site.run("forget", "1")
    assert (gone["changed"], gone["forgotten"], gone["previous"]) == (True, [1], 0)
    assert generations(site) == ["2", "3"]
    again = site.run("forget", "1")
    assert (again["ok"], again["changed"], again["forgotten"]) == (True, False, [])
    fire(site, "3")
    gone = site.run("forget", THREE.digest)
    assert (gone["changed"], gone["forgotten"], gone["reverted"]) == (True, [3], 0)


def test_forget_below_takes_every_older_key_also_the_way_back_and_never_what_is_needed(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    settle(site, THREE)
    assert site.run("forget", "below", "1")["forgotten"] == []
    gone = site.run("forget", "below", "2")
    assert (gone["ok"], gone["forgotten"], gone["previous"]) == (True, [1, 2], 0)
    assert generations(site) == ["3"]
    refused = site.run("forget", "below", "3")
    assert (refused["reason"], refused["changed"]) == ("in-use", False)
    assert generations(site) == ["3"]


def test_what_waits_for_its_activation_is_not_old(site: Site) -> None:
    site.stage(ONE)
    assert site.run("forget", "old")["forgotten"] == []
    for bundle in (ONE, TWO, make("3\n")):
        settle(site, bundle)
    site.stage(THREE)
    assert site.run("forget", "old")["forgotten"] == [1]
    assert generations(site) == ["2", "3", "4"]
    assert site.run("forget", "4")["forgotten"] == [4]


def test_forget_by_epoch_takes_a_key_that_leaked_off_the_site(site: Site) -> None:
    for text in ("a\n", "b\n", "c\n"):
        site.stage(make(text, epoch=int(text == "c\n") + 1))
    site.run("activate", "3", "60")
    assert site.run("forget", "epoch", "1")["forgotten"] == [1, 2]
    refused = site.run("forget", "epoch", "2")
    assert (refused["reason"], generations(site)) == ("in-use", ["3"])
    assert not list(site.base.rglob(".old*"))


def test_revert_goes_back_once(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    settle(site, THREE)
    assert site.run("revert")["generation"] == 2
    again = site.run("revert")
    assert (again["changed"], again["current"]) == (False, 2)
    assert again["message"] == "went back from generation 3 to 2 before"
    assert site.run("activate", "3", "60")["changed"] is True
    assert site.run("revert")["current"] == 2


def test_a_probation_that_was_prolonged_is_not_cut_short_by_the_first_timer(site: Site) -> None:
    settle(site, ONE)
    site.stage(TWO)
    site.run("activate", "2", "60")
    time_is_up(site)
    site.run("activate", "2", "2")
    began = time.monotonic()
    site.start("deadman", "2")
    assert time.monotonic() - began > 1
    assert site.run("show")["current"] == 1


def without_systemd(site: Site, kind: str) -> None:
    (site.root / "run/systemd/system").rmdir()
    initd = site.root / "etc/init.d"
    initd.mkdir()
    log = f'echo "${{0##*/}} $*" >>"{site.home}/calls"'
    for name, text in {
        "update-rc.d": f'{log}; ln -s ../init.d/spokewright "{site.root}/etc/rc2.d/S01spokewright"',
        "chkconfig": "exit 1",
        "rc-service": f'{log}; shift; exec sh "{initd}/spokewright" "$@"',
        "rc-update": f'{log}; mkdir -p "{site.root}/etc/runlevels/default"; : >"{site.root}/etc/runlevels/default/$2"',
    }.items():
        site.tool(name, f"#!/bin/sh\n{text}\n")
    if kind == "openrc":
        (site.root / "etc/runlevels").mkdir()
    if kind.startswith("sysv"):
        for level in range(7):
            (site.root / f"etc/rc{level}.d").mkdir()
        if kind == "sysv-links":
            site.tool("update-rc.d", "#!/bin/sh\nexit 1\n")
    if kind == "busybox-links":
        (initd / "rcS").write_text("for i in /etc/init.d/S??* ;do $i start; done\n")
    if kind == "busybox-line":
        (site.root / "etc/inittab").write_text("::sysinit:/etc/init.d/rcS")


@pytest.mark.parametrize("kind", ["openrc", "sysv", "sysv-links", "busybox-links", "busybox-line"])
def test_the_whole_life_without_systemd(site: Site, kind: str) -> None:
    without_systemd(site, kind)
    assert site.run("show")["init"] == kind.split("-", maxsplit=1)[0]
    site.stage(ONE)
    shown = site.run("show")
    assert (shown["enabled"], shown["links"], shown["service"]) == (False, False, "inactive")
    assert site.run("activate", "1", "60")["changed"] is True
    shown = site.run("show")
    assert (shown["enabled"], shown["links"], shown["service"]) == (True, True, "active")
    assert site.run("confirm", "1")["changed"] is True
    assert delivery.settled(shown=site.run("show"), digest=ONE.digest)
    site.forget_calls()
    assert site.run("activate", "1", "60")["changed"] is False
    assert not [call for call in site.calls() if "start" in call.split()[1]]
    site.stage(make("broken\n"))
    failed = site.run("activate", "2", "60")
    assert failed["reason"] == "service-failed"
    assert "did not start on generation 2; went back to 1" in failed["message"]
    settle(site, TWO)
    assert site.run("revert")["current"] == 1
    assert site.run("show")["service"] == "active"
    assert not any("systemctl" in call for call in site.calls())
    script = site.root / "etc/init.d/spokewright"
    if kind == "openrc":
        assert script.stat().st_mode & 0o777 == 0o755
        assert script.read_text() == (site.base / "current/openrc.sh").read_text()
        script.write_text("edited")
        assert site.run("show")["links"] is False
    else:
        assert script.readlink() == site.base / "current/init.sh"
    if kind == "busybox-line":
        line = f"::once:/bin/sh {site.root}/etc/init.d/spokewright start\n"
        assert (site.root / "etc/inittab").read_text() == f"::sysinit:/etc/init.d/rcS\n{line}"


def test_the_timer_without_systemd_goes_back_by_itself(site: Site) -> None:
    without_systemd(site, "busybox-line")
    settle(site, ONE)
    site.stage(TWO)
    assert site.run("activate", "2", "1")["ok"]
    end = time.monotonic() + 20
    while site.run("show")["pending"] and time.monotonic() < end:
        time.sleep(0.2)
    shown = site.run("show")
    assert (shown["current"], shown["reverted"], shown["pending"]) == (1, 2, 0)


def test_where_no_init_system_is_known_nothing_is_touched(site: Site) -> None:
    (site.root / "run/systemd/system").rmdir()
    site.stage(ONE)
    assert site.run("activate", "1", "60")["reason"] == "no-service-manager"
    assert site.run("show")["current"] == 0


def test_the_archive_of_a_test_is_a_real_one() -> None:
    with tarfile.open(fileobj=io.BytesIO(ONE.archive)) as archive:
        assert "MANIFEST" in archive.getnames()
