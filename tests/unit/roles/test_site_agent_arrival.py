# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How agent and bundle reach a site: whatever its login shell, its tar and its tools are like."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer

if TYPE_CHECKING:
    from pathlib import Path
from unit.roles.site_agent_support import AGENT, ONE, TWO, Site, generations, settle


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
