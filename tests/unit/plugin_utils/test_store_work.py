# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two at once: the second is told who is at work; a dead one does not stand in the way."""

from __future__ import annotations

import errno
import getpass
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import operation, store_lock
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import (
    KeyStore,
    KeyStoreError,
    KeyStoreLockedError,
    Seen,
)
from key_support import new_store, quick_vault

if TYPE_CHECKING:
    from pathlib import Path

ME = f"{getpass.getuser()}@{socket.gethostname()}"
# Another process, in which somebody is at work until its standard input ends.
HOLDER = """
import os, sys
from pathlib import Path
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
store = KeyStore(path=Path(sys.argv[1]), key=Path(sys.argv[1] + ".key"))
with store.operation("roll out ring 3"):
    print("held", flush=True)
    sys.stdin.read()
print("ended", flush=True)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_vault(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    found = new_store(tmp_path)
    ensure(found)
    return found


def ensure(store: KeyStore, *sites: str, dry_run: bool = False) -> bool:
    wanted = ["site-0001", *sites]
    return store.ensure(fleet="lab", key_type="p256", gateways=[], sites=wanted, dry_run=dry_run).changed


def again(store: KeyStore) -> KeyStore:
    return KeyStore(path=store.path, key=store.key.path)


def holder(store: KeyStore) -> subprocess.Popen[str]:
    paths = os.pathsep.join(sys.path)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_operator_is_told_who_works_where_since_when_and_at_what(store: KeyStore) -> None:
    process = holder(store)
    try:
        with pytest.raises(KeyStoreLockedError) as caught:
            ensure(again(store), "site-0002")
        assert re.search(
            rf"in use by {re.escape(ME)} \(pid {process.pid}\) since 20\S+Z: roll out ring 3\. Wait for it to end",
            str(caught.value),
        )
        with pytest.raises(KeyStoreLockedError):
            again(store).regenerate(sites=["site-0001"], key_type="p256", reason="x")
        with pytest.raises(KeyStoreLockedError):
            again(store).mark(seen=[Seen(site="site-0001", epoch=1, state="staged")])
    finally:
        process.communicate()
    assert ensure(again(store), "site-0002") is True


def test_who_only_looks_and_who_leaves_a_note_need_not_wait(store: KeyStore) -> None:
    process = holder(store)
    try:
        other = again(store)
        assert ensure(other) is False
        assert ensure(other, "site-0002", dry_run=True) is True
        assert other.site_key(site="site-0001").epoch == 1
        other.note("revealed", site="site-0001", epoch=1, reason="link is down")
    finally:
        process.communicate()
    last = store.ledger.tail(1)[0]
    assert (last["event"], last["site"], last["reason"]) == ("revealed", "site-0001", "link is down")
    assert last["kid"] == store.index()["site-0001"][1]["kid"]
    assert store.ledger.verify() == []


def test_a_holder_that_was_killed_does_not_block_and_is_named_in_the_ledger(store: KeyStore) -> None:
    process = holder(store)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ensure(again(store), "site-0002") is True
    entries = [entry for entry in store.ledger.entries() if entry["event"] == "recovered"]
    assert len(entries) == 1
    assert re.fullmatch(
        rf"roll out ring 3 #[0-9a-f]{{8}} by {re.escape(ME)} since \S+ did not end", entries[0]["reason"]
    )
    assert json.loads((store.path / "operation.json").read_text())["open"] is False


def test_a_holder_that_was_killed_is_finished_though_nothing_else_is_to_do(store: KeyStore) -> None:
    process = holder(store)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ensure(again(store))
    assert store.ledger.tail(1)[0]["event"] == "recovered"
    count = len(list(store.ledger.entries()))
    ensure(again(store))
    assert len(list(store.ledger.entries())) == count


def test_a_zombie_does_not_block(store: KeyStore) -> None:
    run = subprocess.Popen(["sleep", "60"])
    with store.operation("distribute keys", owner=run.pid):
        pass
    run.kill()
    # It has ended and nobody has waited for it: the system still lists it.
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
    assert ensure(again(store), "site-0002") is True
    run.wait()


def test_of_several_that_begin_at_once_one_makes_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The others have the real key derivation, so we too.
    monkeypatch.undo()
    store = new_store(tmp_path)
    code = HOLDER.partition("with store")[0] + (
        "from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStoreLockedError\n"
        "sys.stdin.readline()\n"
        "sites = [f'site-{number:04d}' for number in range(30)]\n"
        "try:\n"
        "    print(store.ensure(fleet='lab', key_type='p256', gateways=['gw1'], sites=sites).changed)\n"
        "except KeyStoreLockedError:\n"
        "    print('locked')\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(store.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for _ in range(6)
    ]
    # Held back until all are there.
    time.sleep(1)
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[0].strip() for process in running]
    assert said.count("True") >= 1
    assert set(said) <= {"True", "False", "locked"}, said
    events = [entry["event"] for entry in store.ledger.entries()]
    assert (events.count("ca-made"), events.count("store-key-made"), events.count("issued")) == (1, 1, 30)
    assert store.ledger.verify() == []
    for number in (0, 29):
        assert again(store).site_key(site=f"site-{number:04d}").epoch == 1


def test_between_the_steps_of_a_run_nobody_gets_in_while_it_lives(store: KeyStore) -> None:
    run = subprocess.Popen(["sleep", "60"])
    try:
        with store.operation("distribute keys", owner=run.pid):
            pass
        with pytest.raises(
            KeyStoreLockedError, match=rf"\(pid {run.pid}\) since .*: distribute keys, which still runs"
        ):
            ensure(again(store), "site-0002")
        assert ensure(again(store)) is False, "looking is free"
        with again(store).operation("the next step", owner=run.pid):
            pass
    finally:
        run.kill()
        run.wait()
    assert ensure(again(store), "site-0002") is True
    assert "recovered" not in {entry["event"] for entry in store.ledger.entries()}, "it ended well"


def test_what_a_run_starts_belongs_to_it(store: KeyStore) -> None:
    with store.operation("distribute keys", owner=os.getppid()):
        pass
    assert ensure(again(store), "site-0002") is True
    record = operation.read(store.path)
    assert record is not None
    assert (record.held, record.owner.pid) == (True, os.getppid()), "and goes on to hold the store"


def test_without_an_owner_the_end_is_the_end(store: KeyStore) -> None:
    with store.operation("by a process that lives on"):
        pass
    process = holder(store)
    process.communicate()
    assert process.returncode == 0


def test_a_later_process_of_the_same_number_does_not_block(store: KeyStore) -> None:
    run = subprocess.Popen(["sleep", "60"])
    try:
        with store.operation("distribute keys", owner=run.pid):
            pass
        path = store.path / "operation.json"
        record = json.loads(path.read_text())
        for field, value in (("started", "1"), ("boot", "another"), ("host", "elsewhere")):
            path.write_text(json.dumps({**record, "owner": {**record["owner"], field: value}}))
            with store.operation("another run"):
                pass
        path.write_text(json.dumps(record))
        with pytest.raises(KeyStoreLockedError, match=f"pid {run.pid}"), store.operation("another run"):
            pass
    finally:
        run.kill()
        run.wait()


def test_where_the_system_tells_no_start_time_the_number_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lock, "_stat", lambda _: [])
    run = subprocess.Popen(["sleep", "60"])
    found = store_lock.Process.find(run.pid)
    assert found.started == ""
    assert found.lives
    run.kill()
    run.wait()
    assert not found.lives


def test_work_within_work_is_one(store: KeyStore) -> None:
    with store.operation("distribute keys") as outer:
        assert ensure(store, "site-0002") is True
        with store.operation("something else") as inner:
            assert inner.id == outer.id
        assert store.mark(seen=[Seen(site="site-0002", epoch=1, state="staged")]) == 1
    assert {entry["operation"] for entry in store.ledger.tail(2)} == {outer.name}


def test_threads_of_one_run_enter_what_they_saw(store: KeyStore) -> None:
    sites = [f"site-{number:04d}" for number in range(2, 22)]
    ensure(store, *sites)
    with store.operation("distribute keys"):
        threads = [
            threading.Thread(target=store.mark, kwargs={"seen": [Seen(site=site, epoch=1, state="staged")]})
            for site in sites
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {store.index()[site][1]["state"] for site in sites} == {"staged"}
    assert store.ledger.verify() == []


def test_an_error_inside_is_passed_on_as_it_is_and_leaves_nothing_open(store: KeyStore) -> None:
    error = OSError(111, "Connection refused")
    with pytest.raises(OSError, match="Connection refused") as caught, store.operation("distribute keys"):
        raise error
    assert caught.value is error
    assert json.loads((store.path / "operation.json").read_text())["open"] is False
    assert ensure(store, "site-0002") is True


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": 1}', "x"])
def test_a_record_that_cannot_be_understood_is_refused_with_what_to_do(store: KeyStore, text: str) -> None:
    (store.path / "operation.json").write_text(text)
    with pytest.raises(KeyStoreError, match=r"operation\.json cannot be understood .*delete it, then run again"):
        ensure(again(store), "site-0002")


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_looks_lost_while_somebody_makes_it_is_not_called_lost(store: KeyStore, *, dry_run: bool) -> None:
    (store.path / "ca.pem").unlink()
    process = holder(store)
    try:
        with pytest.raises(KeyStoreLockedError, match="roll out ring 3"):
            ensure(again(store), dry_run=dry_run)
    finally:
        process.communicate()
    with pytest.raises(KeyStoreError, match=r"ca\.pem is gone"):
        ensure(again(store), dry_run=dry_run)


def test_a_holder_that_does_not_say_its_name_is_told_as_such(store: KeyStore) -> None:
    code = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print('held',flush=True); sys.stdin.read()"
    process: Any = subprocess.Popen(
        [sys.executable, "-c", code, str(store.path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    try:
        with pytest.raises(KeyStoreLockedError, match="a process that does not say its name"):
            ensure(again(store), "site-0002")
    finally:
        process.communicate()


def test_a_directory_that_another_run_makes_at_this_moment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir

    def first_by_another(path: Any, *more: Any) -> None:
        real(path, *more)
        real(path, *more)

    monkeypatch.setattr(os, "mkdir", first_by_another)
    assert ensure(new_store(tmp_path)) is True


def test_what_was_cut_off_is_finished_though_the_clock_was_set_back_meanwhile(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store._index, "put", broken)
        with pytest.raises(KeyStoreError, match="No space left"):
            store.mark(seen=[Seen(site="site-0001", epoch=1, state="staged")])
    path = store.path / operation.RECORD
    # As if it had begun while the clock was ahead of what the ledger's lines say.
    path.write_text(json.dumps({**json.loads(path.read_text()), "since": "2099-01-01T00:00:00Z"}))

    later = KeyStore(path=store.path, key=store.key.path)
    ensure(later)

    assert later.index()["site-0001"][1]["state"] == "staged"
    assert later.verify() == []


def broken(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_step_of_a_killed_run_is_waited_for_and_nobody_else(tmp_path: Path) -> None:
    done = threading.Event()

    def orphan() -> None:
        with store_lock.locked(directory=tmp_path, holder="somebody"):
            done.wait(20)

    thread = threading.Thread(target=orphan)
    thread.start()
    try:
        while not (tmp_path / "lock").exists() or not (tmp_path / "lock").read_text():
            time.sleep(0.01)
        with (
            pytest.raises(KeyStoreLockedError, match="is in use by somebody"),
            store_lock.locked(directory=tmp_path, holder="me"),
        ):
            pass
        threading.Timer(0.5, done.set).start()
        with store_lock.locked(directory=tmp_path, holder="me", patience=20):
            assert done.is_set()
    finally:
        done.set()
        thread.join()
