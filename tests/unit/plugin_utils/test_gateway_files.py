# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands that look for a gateway's keys and bring them, run by the shells there are."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import typing as t
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_files import (
    CRL,
    Found,
    GatewayFiles,
    GatewayFilesError,
    KeyFile,
    answer,
    failure,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret

NAMES = ("ca.crt", "gateway.crt", "gateway.key", "tls-crypt-v2.key")
SHELLS = [
    pytest.param(
        words, marks=pytest.mark.skipif(not shutil.which(words[0]), reason=f"{words[0]} is not installed here")
    )
    for words in (["dash"], ["bash", "--posix"], ["busybox", "sh"])
]
# The steps of a first bring at which a process runs, in order; a machine may die before or after each.
STEPS = ["rm", "mkdir", *("dd", "sha256sum") * 5, "sync", "rm", "mv", "sync", "chmod", "sync", "mv", "sync"]


def files(root: Path, *, salt: str = "") -> GatewayFiles:
    return GatewayFiles(
        directory=str(root / "material" / f"0123456789abcdef{salt}"),
        crl_path=str(root / "crl.pem"),
        # No newline at the end, many lines, one byte: what is sent is what lies there.
        keys=tuple(
            KeyFile(name=name, content=Secret(text))
            for name, text in zip(NAMES, (f"ca{salt}\n", "one\n\ntwo", "$(reboot)' \"\\\n" * 50, "x"), strict=True)
        ),
        crl=KeyFile(name=CRL, content=Secret(f"revoked{salt}\n")),
    )


def run(
    command: str, data: bytes = b"", *, shell: t.Sequence[str] = (), path: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    words = shlex.split(command)
    environment = os.environ | {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"} if path else None
    return subprocess.run(
        [*(shell or words[:1]), *words[1:]], input=data, capture_output=True, check=False, timeout=60, env=environment
    )


def look(wanted: GatewayFiles, *, shell: t.Sequence[str] = ()) -> dict[str, Found]:
    done = run(wanted.look(), shell=shell)
    assert (done.returncode, done.stderr) == (0, b"")
    return answer(output=done.stdout.decode())


def bring(wanted: GatewayFiles, *, shell: t.Sequence[str] = ()) -> list[str]:
    """Bring what is missing, as the action does; the names of what was sent."""
    missing = wanted.missing(found=look(wanted, shell=shell))
    if missing:
        done = run(*wanted.bring(files=missing), shell=shell)
        assert (done.returncode, done.stderr) == (0, b"")
        assert wanted.missing(found=answer(output=done.stdout.decode())) == ()
    return [file.name for file in missing]


def lies(wanted: GatewayFiles) -> list[str]:
    """What is wrong with what lies there, read without our own shell code."""
    wrong = []
    for file in (*wanted.keys, wanted.crl):
        path = Path(wanted.crl_path) if file.name == CRL else Path(wanted.directory, file.name)
        mode = 0o644 if file.name == CRL else 0o600
        if not path.is_file() or path.is_symlink():
            wrong.append(f"{file.name} is not there")
        elif (path.read_bytes(), path.stat().st_mode & 0o777) != (file.data(), mode):
            wrong.append(f"{file.name} is not right")
    if Path(wanted.directory).exists() and Path(wanted.directory).stat().st_mode & 0o777 != 0o700:
        wrong.append("the directory is open")
    return wrong


def leftovers(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if ".new." in path.name)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_missing_is_brought_once(shell: list[str], tmp_path: Path) -> None:
    wanted = files(tmp_path)
    assert bring(wanted, shell=shell) == [*NAMES, CRL]
    assert (lies(wanted), leftovers(tmp_path)) == ([], [])
    inodes = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    assert bring(wanted, shell=shell) == []
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == inodes


@pytest.mark.parametrize("shell", SHELLS)
def test_a_new_set_comes_to_lie_beside_the_old_one(shell: list[str], tmp_path: Path) -> None:
    old, new = files(tmp_path), files(tmp_path, salt="new")
    bring(old, shell=shell)
    assert bring(new, shell=shell) == [*NAMES, CRL]
    assert lies(new) == []
    assert lies(old) == ["crl is not right"], "the list is the same for both"


def test_a_new_revocation_list_comes_alone(tmp_path: Path) -> None:
    wanted = files(tmp_path)
    bring(wanted)
    keys = {path: path.stat().st_mtime_ns for path in Path(wanted.directory).iterdir()}
    longer = replace(wanted, crl=KeyFile(name=CRL, content=Secret("one more is revoked\n")))
    assert bring(longer) == [CRL]
    assert lies(longer) == []
    assert {path: path.stat().st_mtime_ns for path in Path(wanted.directory).iterdir()} == keys


def other_byte(key: Path) -> None:
    key.write_bytes(key.read_bytes()[:-1] + b"!")


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def directory_instead(key: Path) -> None:
    key.unlink()
    key.mkdir()
    (key / "inside").touch()


TAMPER: dict[str, t.Callable[[Path], object]] = {
    "another byte": other_byte,
    "cut short": lambda key: key.write_bytes(b""),
    "open to others": lambda key: key.chmod(0o644),
    "gone": lambda key: key.unlink(),
    "a link": linked,
    "a directory": directory_instead,
    "an open directory": lambda key: key.parent.chmod(0o755),
    "a link in place of the directory": lambda key: linked(key.parent),
    "somebody else's": lambda key: os.chown(key, 12345, -1),
    "somebody else's directory": lambda key: os.chown(key.parent, 12345, -1),
}


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("how", TAMPER)
def test_what_was_tampered_with_is_mended(how: str, shell: list[str], tmp_path: Path) -> None:
    if "somebody" in how and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    wanted = files(tmp_path)
    bring(wanted)
    TAMPER[how](Path(wanted.directory, "gateway.key"))
    assert bring(wanted, shell=shell) == [*NAMES]
    assert (lies(wanted), leftovers(tmp_path)) == ([], [])
    assert Path(wanted.directory).stat().st_uid == os.geteuid()


def deadly(where: Path, *, step: int, after: bool) -> Path:
    """Programs of which the one that runs as number `step` kills the shell that called it, before or after its work."""
    where.mkdir()
    for name in sorted(set(STEPS)):
        work = f'{shutil.which(name)} "$@"\ncode=$?'
        kill = f'[ "$(wc -l <{where}/count)" -ne {step} ] || kill -9 "$PPID"'
        lines = [work, kill] if after else [kill, work]
        text = "\n".join(("#!/bin/sh", f"echo {name} >>{where}/count", *lines, "exit $code"))
        (where / name).write_text(text + "\n", encoding="ascii")
        (where / name).chmod(0o755)
    return where


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_killed_at_any_step_it_leaves_nothing_half(step: int, after: bool, tmp_path: Path) -> None:  # noqa: FBT001
    root = tmp_path / "gateway"
    root.mkdir()
    old, new = files(root), files(root, salt="new")
    bring(old)
    programs = deadly(tmp_path / "programs", step=step, after=after)
    done = run(*new.bring(files=(*new.keys, new.crl)), path=programs)
    assert done.returncode == -9
    assert (programs / "count").read_text().split()[:step] == STEPS[:step], "the steps are the ones meant"

    # Whole or not there at all, and what was in use is as it was.
    assert [line for line in lies(old) if not line.startswith(CRL)] == []
    assert not Path(new.directory).exists() or [line for line in lies(new) if not line.startswith(CRL)] == []
    assert Path(new.crl_path).read_bytes() in {old.crl.data(), new.crl.data()}
    assert Path(new.crl_path).stat().st_mode & 0o777 == 0o644
    for left in leftovers(root):
        assert (root / left).stat().st_mode & 0o077 == 0 or (root / left).read_bytes() == new.crl.data()

    # The next run finishes, and clears away.
    bring(new)
    assert (lies(new), leftovers(root)) == ([], [])


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, 22))
def test_killed_while_it_mends_it_is_mended_by_the_next_run(step: int, after: bool, tmp_path: Path) -> None:  # noqa: FBT001
    root = tmp_path / "gateway"
    root.mkdir()
    wanted = files(root)
    bring(wanted)
    other_byte(Path(wanted.directory, "gateway.key"))
    whole = {file.name for file in wanted.keys} - {"gateway.key"}
    run(*wanted.bring(files=wanted.keys), path=deadly(tmp_path / "programs", step=step, after=after))
    assert {line.split()[0] for line in lies(wanted)} & whole == set(), "no good file was away for a moment"
    bring(wanted)
    assert lies(wanted) == []


def test_a_full_disk_leaves_what_was_there_and_says_so(tmp_path: Path) -> None:
    root = tmp_path / "gateway"
    root.mkdir()
    old, new = files(root), files(root, salt="new")
    bring(old)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "dd").write_text('#!/bin/sh\necho "dd: error writing: No space left on device" >&2\nexit 1\n')
    (programs / "dd").chmod(0o755)
    done = run(*new.bring(files=(*new.keys, new.crl)), path=programs)
    said = failure(code=done.returncode, said=done.stderr.decode())
    assert "cannot write ca.crt: dd: error writing: No space left on device" in said
    assert "Check free space and permissions" in said
    assert (lies(old), leftovers(root), Path(new.directory).exists()) == ([], [], False)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("cut", [1, 40, 400])
def test_what_does_not_arrive_whole_is_thrown_away(cut: int, shell: list[str], tmp_path: Path) -> None:
    wanted = files(tmp_path)
    command, data = wanted.bring(files=(*wanted.keys, wanted.crl))
    done = run(command, data[:-cut], shell=shell)
    assert done.returncode == 1
    assert b"did not arrive whole" in done.stderr
    assert (Path(wanted.directory).exists(), Path(wanted.crl_path).exists(), leftovers(tmp_path)) == (False, False, [])


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    wanted = replace(files(tmp_path), directory=str(tmp_path / "none/material/0123456789abcdef"))
    command, data = wanted.bring(files=wanted.keys)
    done = run(command, data)
    assert f"cannot make {tmp_path}/none/material" in failure(code=done.returncode, said=done.stderr.decode())


def test_without_its_answer_nothing_is_taken_for_missing() -> None:
    for output in ("", "This account is not available.\n", "@ me - 0 -\n"):
        with pytest.raises(GatewayFilesError, match=r"the gateway did not say what keys it has\. It needs sh, ls"):
            answer(output=output)


def test_a_login_shell_that_talks_is_passed_over(tmp_path: Path) -> None:
    wanted = files(tmp_path)
    bring(wanted)
    said = run(wanted.look()).stdout.decode()
    assert wanted.missing(found=answer(output=f"Welcome @ gw1!\n@ all\n\n{said}bye\n")) == ()


def test_no_secret_is_in_a_command_or_in_what_is_shown(tmp_path: Path) -> None:
    wanted = files(tmp_path)
    body = wanted.keys[2].content.reveal().splitlines()[0]
    command, data = wanted.bring(files=wanted.keys)
    assert body.encode() in data
    assert body not in command + wanted.look() + repr(wanted) + wanted.lines()
    assert wanted.keys[2].digest in wanted.lines()


def test_a_failure_without_a_word_is_still_one() -> None:
    assert "(exit 255): not a word why" in failure(code=255, said="\n")
