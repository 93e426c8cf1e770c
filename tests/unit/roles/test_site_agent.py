# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent that runs on a site: what it stages, shows and links, under every shell it may meet."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from unit.roles.site_agent_support import AGENT, ALWAYS, ONE, THREE, TWO, UNIT, Site, generations, make, settle


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
    # A guard that somebody took away is missed, and put back.
    (site.root / f"etc/systemd/system/{guard}").unlink()
    assert site.run("show")["links"] is False
    assert reloads(bundle("fifth\n"))
    assert site.run("show")["links"] is True


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
    site.stage(ONE)
    for verb, owner in (("activate", f"{dead} {boot}\n"), ("confirm", "1 another-boot\n")):
        (site.base / "state/lock.d").mkdir(parents=True)
        (site.base / "state/lock.d/owner").write_text(owner)
        assert site.run(verb, "1")["changed"] is True
        assert not (site.base / "state/lock.d").exists()


def test_an_mv_that_cannot_keep_off_a_directory_is_enough(site: Site) -> None:
    real = shutil.which("mv")
    site.tool("mv", f'#!/bin/sh\ncase $1 in -*T*) exit 1 ;; esac\nexec {real} "$@"\n')
    assert settle(site, ONE) == 1
    assert settle(site, TWO) == 2
    assert site.run("revert")["current"] == 1
    assert [one["intact"] for one in site.run("show")["generations"]] == [True, True]


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


def test_show_tells_the_key_of_each_generation_and_what_the_site_has(site: Site) -> None:
    settle(site, ONE)
    site.stage(THREE)
    shown = site.run("show")
    facts = {"kid": "00ff", "psk_fingerprint": "SHA256:aa/b+c=", "valid": [day.isoformat() for day in ALWAYS]}
    assert [one["facts"] for one in shown["generations"]] == [{"epoch": 1, **facts}, {"epoch": 2, **facts}]
    assert shown["init"] == "systemd"
    assert shown["free_kb"] > 0
    assert "systemd-run" in shown["tools"]


def test_the_archive_of_a_test_is_a_real_one() -> None:
    with tarfile.open(fileobj=io.BytesIO(ONE.archive)) as archive:
        assert "MANIFEST" in archive.getnames()
