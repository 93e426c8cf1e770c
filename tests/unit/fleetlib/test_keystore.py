# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/fleet keystore and ledger over a real key store."""

from __future__ import annotations

import io
import json
import shutil
from typing import TYPE_CHECKING

import pytest

from fleetlib.cli import main
from fleetlib.progress import Progress
from unit.plugin_utils.fleet_files import PLAN, write_fleet
from unit.plugin_utils.stores import reopened, secrets_of, store_in

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore


@pytest.fixture
def plan(tmp_path: Path) -> str:
    return str(write_fleet(tmp_path))


@pytest.fixture
def store(tmp_path: Path, plan: str) -> KeyStore:
    assert plan
    return store_in(tmp_path)


def test_a_whole_store_is_checked(plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keystore", "check", "-i", plan]) == 0
    assert (
        f"{store.path}: 3 keys of 2 sites opened and proven, the revocation list lives for 36"
        in capsys.readouterr().out
    )
    assert main(["keystore", "check", "-i", plan, "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["problems"], report["sites"], report["keys"]) == ([], 2, 3)


def test_a_damaged_store_is_not_well(plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    (store.path / "sites/site-0001/1.vault").chmod(0o644)
    (store.path / "sites/site-0002/1.vault").unlink()
    assert main(["keystore", "check", "-i", plan]) == 1
    shown = capsys.readouterr()
    assert "2 problems" in shown.out
    assert len(shown.err.splitlines()) == 2
    store.key.path.unlink()
    assert main(["keystore", "check", "-i", plan]) == 1
    assert "no key can be used" in capsys.readouterr().out


def test_without_a_store_nothing_is_well(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keystore", "check", "-i", plan]) == 1
    assert "there is no key store at" in capsys.readouterr().err
    for words in (["ledger", "verify"], ["ledger", "show"], ["keystore", "backup", "x"], ["keystore", "rekey"]):
        assert main([*words, "-i", plan]) == 2, words
        assert " yet, so " in capsys.readouterr().err


def test_backup_and_restore(plan: str, store: KeyStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = secrets_of(store)
    assert main(["keystore", "backup", str(tmp_path / "b.tar"), "-i", plan]) == 0
    out = capsys.readouterr().out
    assert "written, read back and found right." in out
    assert f"The store's own key is not in it: {store.key.path}." in out
    assert main(["keystore", "restore", str(tmp_path / "b.tar"), "-i", plan]) == 2
    assert "is not empty. A restore never mixes two stores" in capsys.readouterr().err
    shutil.rmtree(store.path)
    assert main(["keystore", "restore", str(tmp_path / "b.tar"), "-i", plan]) == 0
    assert "and in place.\nKeys made since then are not in it." in capsys.readouterr().out
    assert secrets_of(reopened(store)) == before


def test_a_restore_elsewhere_says_what_the_plan_lacks(
    plan: str, store: KeyStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["keystore", "backup", str(tmp_path / "b.tar"), "-i", plan])
    to = tmp_path / "elsewhere"
    assert main(["keystore", "restore", str(tmp_path / "b.tar"), "--to", str(to), "-i", plan]) == 0
    assert f"Say key_store: {to} there to use this one." in capsys.readouterr().out
    (store.path / "sites/site-0001/1.vault").unlink()
    main(["keystore", "backup", str(tmp_path / "c.tar"), "-i", plan])
    assert main(["keystore", "restore", str(tmp_path / "c.tar"), "--to", str(tmp_path / "c"), "-i", plan]) == 1
    assert "1.vault is missing, but the index knows this key" in capsys.readouterr().err


def test_a_new_own_key(plan: str, store: KeyStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = secrets_of(store)
    assert main(["keystore", "rekey", "-i", plan]) == 0
    out = capsys.readouterr().out
    assert f"{store.path}: 6 files open with {store.key.path} and with no other key." in out
    assert "Backups made before open only with the former key, which stays as" in out
    assert "key_store_key:" not in out
    assert secrets_of(reopened(store)) == before
    other = tmp_path / "other.key"
    assert main(["keystore", "rekey", "--to", str(other), "-i", plan]) == 0
    assert f"Before anything else, say in {plan}:\n    key_store_key: {other}\n" in capsys.readouterr().out
    assert main(["keystore", "check", "-i", plan]) == 1
    assert "does not open" in capsys.readouterr().err
    (tmp_path / "test.fleet.yml").write_text(
        PLAN.replace("key_store: keystore", f"key_store: keystore\nkey_store_key: {other}")
    )
    assert main(["keystore", "check", "-i", plan]) == 0


def test_a_change_of_the_own_key_that_was_stopped_says_what_it_needs(
    plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = secrets_of(store)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "__call__", stopped)
        assert main(["keystore", "rekey", "-i", plan]) == 130
    said = capsys.readouterr().err
    assert said == "Half done: until it is run again and ends, both keys are needed.\nstopped\n"
    assert secrets_of(reopened(store)) == before
    assert main(["keystore", "rekey", "-i", plan]) == 0
    assert secrets_of(reopened(store)) == before


def test_a_whole_ledger(plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    count = len(list(store.ledger.entries()))
    assert main(["ledger", "verify", "-i", plan]) == 0
    assert capsys.readouterr().out == f"{store.ledger.path}: {count} lines, whole, and the index says the same\n"
    assert main(["ledger", "show", "-i", plan, "--site", "site-0002"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["SEQ", "TIME", "WHO", "EVENT", "SITE", "EPOCH", "REASON"]
    assert [line.split()[3:6] for line in lines[1:]] == [["issued", "site-0002", "1"], ["issued", "site-0002", "2"]]
    assert lines[2].endswith("a second epoch")
    for last, seqs in (("1", [count]), ("2", [count - 1, count]), ("0", [])):
        assert main(["ledger", "show", "-i", plan, "--last", last, "--format", "json"]) == 0
        assert [one["seq"] for one in json.loads(capsys.readouterr().out)] == seqs


def test_one_flipped_byte_of_the_ledger_is_found_and_named(
    plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store.ledger.path
    data = path.read_bytes()
    starts = [0, *(place + 1 for place, byte in enumerate(data) if byte == 10)]
    for line, start in enumerate(starts[:-1], start=1):
        place = start + 20
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert main(["ledger", "verify", "-i", plan]) == 1
        shown = capsys.readouterr()
        assert f"{path}:{line}: " in shown.err
        assert "NOT whole" in shown.out
    path.write_bytes(data[: starts[-2]])
    assert main(["ledger", "verify", "-i", plan, "--format", "json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["whole"] is False
    assert "1 lost at the end" in report["problems"][0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_written_over_on_a_terminal_and_plain_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("fleetlib.progress.time.monotonic", lambda: clock[0])
    for stream, wanted in (
        (Terminal(), "\rsites: 5 of 20, 1 failed\rsites: 20 of 20        \r                      \rdone\n"),
        (io.StringIO(), "sites: 5 of 20, 1 failed\ndone\n"),
    ):
        clock[0] = 0.0
        shown = Progress(what="sites", stream=stream)
        shown(1, 20)
        clock[0] = 4.0
        shown(5, 20, ", 1 failed")
        shown(6, 20)
        shown(20, 20)
        shown.note("done")
        shown.end()
        assert stream.getvalue().replace(" ", "") == wanted.replace(" ", "")
