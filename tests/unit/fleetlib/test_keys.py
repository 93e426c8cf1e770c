# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/fleet keys, key show, key bundle and key regenerate over a real key store."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import os
import pty
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_view import key_report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import keys_table
from fleetlib import keys
from fleetlib.cli import main
from unit.plugin_utils.fleet_files import SITES, write_fleet
from unit.plugin_utils.stores import reopened, store_in

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollover_steps import Rolled

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def plan(tmp_path: Path) -> str:
    return str(write_fleet(tmp_path))


@pytest.fixture
def store(tmp_path: Path, plan: str) -> KeyStore:
    assert plan
    return store_in(tmp_path)


def events(store: KeyStore) -> list[str]:
    return [line["event"] for line in reopened(store).ledger.entries()]


def test_keys_of_a_fleet_without_a_store(plan: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "-i", plan]) == 1
    assert "0 keys, 4 sites have none yet; no revocation list yet" in capsys.readouterr().out


def test_keys_shows_the_newest_epoch_of_each_site(
    plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", "-i", plan, "site-0001", "site-0002"]) == 0
    lines = capsys.readouterr().out.splitlines()
    key = store.site_key(site="site-0002")
    assert lines[0].split() == ["SITE", "GROUP", "EPOCH", "KEY", "ID", "FINGERPRINT", "STATE", "ISSUED", "SINCE", "AGE"]
    assert lines[2].split()[:6] == ["site-0002", "north", "2", key.kid, key.public()["psk_fingerprint"][:19], "issued"]
    assert len(lines) == 5
    assert lines[-1].startswith("2 keys; the revocation list lives for 36")


def test_keys_shows_older_epochs_when_asked(plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert store
    assert main(["keys", "-i", plan, "site-0002", "--all", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [one["epoch"] for one in report["keys"]] == [1, 2]
    assert report["keys"][0]["issued"] == report["keys"][0]["since"] != ""


def test_keys_that_became_old_are_told_and_very_old_ones_are_not_well(plan: str, store: KeyStore) -> None:
    def after(days: int) -> dict[str, Any]:
        fleet = load_fleet(plan_file=Path(plan))
        now = dt.datetime.now(tz=dt.UTC) + dt.timedelta(days=days)
        return key_report(fleet=fleet, store=store, sites=["site-0001"], all_epochs=False, now=now)

    young, old, very_old = after(89), after(90), after(365)
    assert (young["due"], young["overdue"], young["well"]) == ([], [], True)
    assert (old["due"], old["overdue"], old["well"]) == (["site-0001"], [], True)
    assert (very_old["due"], very_old["overdue"], very_old["well"]) == (["site-0001"], ["site-0001"], False)
    assert old["keys"][0]["age_days"] == 90
    assert "90 d\n" in keys_table(old)
    assert "\n1 due: run playbooks/rotate_keys.yml" in keys_table(old)
    assert "\n1 due, 1 overdue: run playbooks/rotate_keys.yml" in keys_table(very_old)


@pytest.mark.parametrize(("what", "playbook"), [("server key", "rotate_server_key.yml"), ("CA", "rotate_ca.yml")])
def test_keys_says_that_a_server_key_or_a_ca_is_to_follow_and_how_to_go_on(
    plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str], what: str, playbook: str
) -> None:
    def said() -> str:
        main(["keys", "-i", plan])
        return capsys.readouterr().out

    assert f"{what}: " not in said()
    rolled: Rolled = store.server_keys if what == "server key" else store.authorities(fleet="test", key_type="p256")
    with store.operation("test"):
        rolled.make_next(reason="gw2 was stolen")
    there = rolled.there()
    old, new = there.serving[:19], there.other[:19]
    go_on = f"(gw2 was stolen): go on with playbooks/{playbook}"
    assert f"\n{what}: {old} serves, {new} is to follow {go_on}\n" in said()
    with store.operation("test"):
        rolled.turn(reason="gw2 was stolen")
    assert f"\n{what}: {new} serves, {old} is still let in {go_on}\n" in said()
    with store.operation("test"):
        rolled.settle(reason="gw2 was stolen")
        rolled.leave_alone(reason="gw2 was stolen")
    assert f"{what}: " not in said()


def test_keys_of_a_group_with_a_site_that_has_none(
    plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert store
    assert main(["keys", "-i", plan, "--group", "north", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["without_key"] == ["site-0003", "site-0004"]


def test_keys_of_sites_that_left_the_registry_are_not_hidden(
    tmp_path: Path, plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*words: str) -> dict[str, Any]:
        main(["keys", "-i", plan, "--format", "json", *words])
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    assert shown()["not_in_registry"] == []
    write_fleet(tmp_path, sites="\n".join(line for line in SITES.splitlines() if not line.startswith("site-0002")))
    main(["keys", "-i", plan])
    assert capsys.readouterr().out.endswith("\nnot in the registry, with keys: site-0002; --all shows them\n")
    main(["keys", "-i", plan, "--all"])
    assert capsys.readouterr().out.endswith("\nnot in the registry, with keys: site-0002\n")
    report = shown("--all")
    assert [(one["site"], one["group"], one["epoch"]) for one in report["keys"] if one["site"] == "site-0002"] == [
        ("site-0002", "", 1),
        ("site-0002", "", 2),
    ]
    assert report["without_key"] == ["site-0003", "site-0004"]
    kids = [store.site_key(site="site-0002", epoch=epoch).kid for epoch in (1, 2)]
    assert [one["kid"] for one in shown("--all", "site-0002")["keys"]] == kids
    assert [one["site"] for one in shown("site-0001", "site-0002")["keys"]] == ["site-0001", "site-0002"]
    assert main(["keys", "-i", plan, "site-0002", "site-0009"]) == 2
    assert "site-0009: not in the registry " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keys", "site-0009"], "site-0009: not in the registry "),
        (["keys", "--group", "south"], "group south: not in the plan "),
        (["key", "show", "site-0003"], "site-0003 has no key in "),
        (["key", "show", "site-0001", "--epoch", "7"], "site-0001 has no key of epoch 7 in "),
        (["key", "bundle", "site-0009", "-o", "x"], "site-0009: not in the registry "),
        (["key", "bundle", "site-0001", "-o", "/tmp"], "/tmp: is a directory. Name the file to write."),
        (["key", "bundle", "site-0001", "-o", "/nowhere/x"], "/nowhere/x: cannot be written: No such file"),
        (["key", "bundle", "site-0001", "-o", "/dev/null"], "/dev/null: is no file but a device or a pipe. Name the"),
        (["key", "regenerate", "site-0009", "--reason", "x"], "site-0009: not in the registry "),
        (["key", "regenerate", "site-0003", "--reason", "x"], "site-0003: no key was ever made"),
        (["key", "regenerate", "site-0001", "--reason", " "], "--reason: is empty. Say why the keys are made anew"),
        (
            ["key", "regenerate", "site-0001", "--reason", "x"],
            "new keys for 1 sites: nobody is there to be asked. Add --yes",
        ),
    ],
)
def test_what_cannot_be_done_is_said(
    plan: str,
    store: KeyStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    before = events(store)
    assert main([*words, "-i", plan]) == 2
    assert said in capsys.readouterr().err
    assert [one for one in events(store) if one not in {*before, "bundled"}] == []


def test_a_key_is_shown_by_its_public_facts(plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    key = store.site_key(site="site-0002", epoch=1)
    assert main(["key", "show", "site-0002", "--epoch", "1", "-i", plan]) == 0
    out = capsys.readouterr().out
    assert f"kid                      {key.kid}\n" in out
    assert key.public()["psk_fingerprint"] in out
    assert "PRIVATE" not in out
    assert main(["key", "show", "site-0002", "-i", plan, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"site": "site-0002", **store.site_key(site="site-0002").public()}
    assert "revealed" not in events(store)


def run(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "tools/fleet", *words], check=False, text=True, timeout=60, **more)


def test_a_key_is_revealed_to_a_pipe_and_to_a_closed_file_and_each_time_noted(
    plan: str, store: KeyStore, tmp_path: Path
) -> None:
    key = store.site_key(site="site-0001")
    wanted = ["key", "show", "site-0001", "--reveal", "-i", plan]
    piped = run(*wanted, capture_output=True)
    assert piped.returncode == 0
    assert piped.stdout == (
        f"# ca.crt\n{key.ca}# site.crt\n{key.certificate}# site.key\n{key.private_key.reveal()}"
        f"# psk.key\n{key.psk.reveal()}"
    )
    assert key.kid in piped.stderr
    assert "PRIVATE" not in piped.stderr
    with os.fdopen(os.open(tmp_path / "closed", os.O_WRONLY | os.O_CREAT, 0o600), "w") as closed:
        assert run(*wanted, "--format", "json", stdout=closed).returncode == 0
    assert json.loads((tmp_path / "closed").read_text())["files"]["psk.key"] == key.psk.reveal()
    last = reopened(store).ledger.tail(2)
    assert [(one["event"], one["site"], one["epoch"], one["kid"]) for one in last] == [
        ("revealed", "site-0001", 1, key.kid)
    ] * 2


def test_a_key_is_not_revealed_into_a_file_that_others_may_read(plan: str, store: KeyStore, tmp_path: Path) -> None:
    path = tmp_path / "open"
    with path.open("w") as stream:
        path.chmod(0o640)
        done = run("key", "show", "site-0001", "--reveal", "-i", plan, stdout=stream, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert "standard output is a file with mode 0640: others could read the key. Nothing was written." in done.stderr
    assert path.read_text() == ""
    assert "revealed" not in events(store)


def test_a_key_that_cannot_be_noted_is_not_revealed(plan: str, store: KeyStore) -> None:
    (store.path / "ledger.jsonl").write_text("nothing\n")
    done = run("key", "show", "site-0001", "--reveal", "-i", plan, capture_output=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "ledger" in done.stderr
    way_out = done.stderr.splitlines()[-1].partition("If it cannot wait: ")[2].split()
    opened = subprocess.run(way_out, check=True, capture_output=True, text=True)
    assert json.loads(opened.stdout)["psk"] == store.site_key(site="site-0001").psk.reveal()


def test_a_bundle_is_the_same_twice_closed_to_others_and_noted(
    plan: str, store: KeyStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    previous = os.umask(0)
    try:
        assert main(["key", "bundle", "site-0002", "-o", str(one), "-i", plan]) == 0
        assert main(["key", "bundle", "site-0002", "-o", str(two), "-i", plan]) == 0
    finally:
        os.umask(previous)
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_mode & 0o777 == 0o600
    out = capsys.readouterr().out
    assert "key epoch 2, digest " in out
    assert "carry it by hand, remove it afterwards" in out
    assert [(one["event"], one["epoch"]) for one in reopened(store).ledger.tail(2)] == [("bundled", 2)] * 2
    with tarfile.open(one) as archive:
        text = archive.extractfile("INSTALL")
        assert text is not None
        assert b"Bundle for site-0002, key epoch 2." in text.read()


def test_a_bundle_stays_out_of_the_key_store(plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "bundle", "site-0001", "-o", str(store.path / "sites/b.tar"), "-i", plan]) == 2
    assert "b.tar: lies in the key store, where nothing is unencrypted" in capsys.readouterr().err
    assert not (store.path / "sites/b.tar").exists()
    assert "bundled" not in events(store)


def test_an_older_key_can_be_bundled(plan: str, store: KeyStore, tmp_path: Path) -> None:
    older = store.site_key(site="site-0002", epoch=1)
    assert main(["key", "bundle", "site-0002", "--epoch", "1", "-o", str(tmp_path / "b"), "-i", plan]) == 0
    with tarfile.open(tmp_path / "b") as archive:
        stream = archive.extractfile("psk.key")
        assert stream is not None
        assert stream.read().decode() == older.psk.reveal()


def test_new_keys_are_made_without_asking_when_told_to(
    plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["key", "regenerate", "site-0001", "site-0002", "--reason", "laptop lost", "--yes", "-i", plan]
    assert main(words) == 0
    assert "site-0001: key epoch 2 made\nsite-0002: key epoch 3 made\n" in capsys.readouterr().out
    again = reopened(store)
    assert (again.epochs(site="site-0001"), again.epochs(site="site-0002")) == ([1, 2], [1, 2, 3])
    assert {one["reason"] for one in again.ledger.tail(2)} == {"laptop lost"}
    assert main([*words, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == {"site-0001": 3, "site-0002": 4}


def test_who_asks_for_json_gets_it_when_nothing_comes_of_it(
    plan: str, store: KeyStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store
    words = ["key", "regenerate", "site-0001", "--reason", "x", "--format", "json", "-i", plan]
    monkeypatch.setattr(sys, "stdin", Typist("no\n"))
    assert main(words) == 1
    assert json.loads(capsys.readouterr().out) == {"epochs": {}, "reason": "x"}

    def stopped() -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.stdin, "isatty", stopped)
    assert main(words) == 130
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"error": ["stopped"]}
    assert shown.err == "stopped\n"


class Typist(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("typed", "made"), [("2\n", True), ("1\n", False), ("yes\n", False), ("", False)])
def test_new_keys_want_the_number_of_sites_typed(
    plan: str,
    store: KeyStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    *,
    made: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Typist(typed))
    words = ["key", "regenerate", "site-0001", "site-0002", "--reason", "x", "-i", plan]
    assert main(words) == (0 if made else 1)
    said = capsys.readouterr().err
    assert "site-0001: would get key epoch 2\nsite-0002: would get key epoch 3\n" in said
    assert "Make new keys for 2 sites? Type 2 to do it: " in said
    assert ("nothing was made" in said) is not made
    assert reopened(store).epochs(site="site-0001") == ([1, 2] if made else [1])


def test_a_terminal_may_show_a_key(plan: str, store: KeyStore) -> None:
    master, slave = pty.openpty()
    done = run("key", "show", "site-0001", "--reveal", "-i", plan, stdout=slave, stderr=subprocess.PIPE)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    assert done.returncode == 0
    assert store.site_key(site="site-0001").psk.reveal().splitlines()[1].encode() in shown


@pytest.mark.parametrize("shape", ["human", "json"])
def test_who_reads_only_the_beginning_is_told_nothing(plan: str, store: KeyStore, shape: str) -> None:
    assert store
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        done = run("keys", "-i", plan, "--format", shape, stdout=stream, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("words", [["keys", "--format", "json"], ["keys"], ["key", "show", "site-0001", "--reveal"]])
def test_an_output_that_is_full_is_one_line(plan: str, store: KeyStore, words: list[str]) -> None:
    assert store
    with Path("/dev/full").open("w") as stream:
        done = run(*words, "-i", plan, stdout=stream, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "fleet: No space left on device"
    assert "Traceback" not in done.stderr


def test_without_any_output_a_key_is_noted_and_nothing_falls_over(plan: str, store: KeyStore) -> None:
    command = f'exec "$0" key show site-0001 --reveal -i {plan} <&- >&- 2>&-'
    assert subprocess.run(["sh", "-c", command, ROOT / "tools/fleet"], check=False, timeout=60).returncode == 0
    assert events(store)[-1] == "revealed"
    assert reopened(store).verify() == []


def test_whatever_was_typed_as_a_reason_the_ledger_can_be_shown(plan: str, store: KeyStore) -> None:
    store.note("revealed", site="site-0001", epoch=1, reason="a\udcffb\n\x1b[31mred\u2603")
    for encoding in ("utf-8:strict", "ascii:strict"):
        env = os.environ | {"PYTHONIOENCODING": encoding}
        done = run("ledger", "show", "-i", plan, capture_output=True, env=env)
        assert done.returncode == 0, done.stderr
        assert "a\\udcffb \\x1b[31mred" in done.stdout
        assert "\x1b" not in done.stdout


def test_many_sites_are_named_shortly() -> None:
    assert keys._some([f"s{number}" for number in range(9)]) == "s0 s1 s2 s3 s4 ..."
