# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: every change to it is found and named, and a crash is none."""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import ledger as lg
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import LedgerError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def add(directory: Path, count: int = 1, **more: Any) -> lg.Ledger:
    ledger = lg.Ledger(directory)
    for number in range(count):
        event = lg.Event(**{"event": "issued", "site": f"site-{number:04d}", "epoch": 1, "kid": "00" * 8, **more})
        ledger.append([event], who="anna@desk", operation="make keys #1")
    return ledger


def rewrite(directory: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path = directory / lg.LEDGER
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def test_lines_are_chained_and_whole(tmp_path: Path) -> None:
    ledger = add(tmp_path, 3)
    assert ledger.verify() == []
    entries = list(ledger.entries())
    assert [entry["seq"] for entry in entries] == [1, 2, 3]
    assert [entry["previous"] for entry in entries[1:]] == [entry["hash"] for entry in entries[:2]]
    assert entries[0]["who"] == "anna@desk"
    assert ledger.tail(2) == entries[1:]
    assert ledger.tail(9) == entries
    assert json.loads((tmp_path / HEAD).read_text()) == {"seq": 3, "hash": entries[2]["hash"]}
    for name in (lg.LEDGER, HEAD):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_no_ledger_is_no_problem(tmp_path: Path) -> None:
    ledger = lg.Ledger(tmp_path)
    assert (ledger.verify(), list(ledger.entries()), ledger.tail(3)) == ([], [], [])


def test_every_flipped_byte_of_a_line_is_found_and_its_line_named(tmp_path: Path) -> None:
    ledger = add(tmp_path, 4)
    path = tmp_path / lg.LEDGER
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(lines[0])
    for at in range(start, start + len(lines[1])):
        for bit in (0x01, 0x20):
            damaged = bytearray(whole)
            damaged[at] ^= bit
            path.write_bytes(damaged)
            problems = ledger.verify()
            assert problems, at
            assert problems[0].startswith(f"{path}:2: "), (at, problems)


def test_every_flipped_byte_of_the_last_line_is_found_too(tmp_path: Path) -> None:
    ledger = add(tmp_path, 2)
    path = tmp_path / lg.LEDGER
    whole = path.read_bytes()
    for at in range(whole.index(b"\n") + 1, len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        problems = ledger.verify()
        assert problems, at
        assert problems[0].startswith(f"{path}:2: "), (at, problems)
        with pytest.raises(LedgerError, match="damaged"):
            add(tmp_path)
        assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[:1] + lines[2:], r"ledger\.jsonl:2: line 2 is missing before line 3"),
        (lambda lines: lines[1:], r"ledger\.jsonl:1: line 1 is missing before line 2"),
        (lambda lines: lines[:2], r"ends at line 2, but ledger\.head says that there were 4: 2 lost at the end"),
        (lambda _: [], r"ends at line 0, but ledger\.head says that there were 4"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], r"ledger\.jsonl:1: line 1 is missing before line 2"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], r"ledger\.jsonl:3: line 2 stands after line 3"),
        (lambda lines: [*lines, lines[3]], r"ledger\.jsonl:5: line 4 stands after line 4: lines were moved or doubled"),
        (lambda lines: [lines[0], b"\n", *lines[1:]], r"ledger\.jsonl:2: it was changed"),
        (lambda lines: [lines[0].replace(b'{"', b'{ "'), *lines[1:]], r"ledger\.jsonl:1: it was changed"),
        (lambda lines: [*lines[:3], lines[3].rstrip()], r"ledger\.jsonl:4: it has no end"),
    ],
)
def test_what_was_done_to_its_lines_is_named(tmp_path: Path, change: Any, says: str) -> None:
    ledger = add(tmp_path, 4)
    rewrite(tmp_path, change)
    problems = ledger.verify()
    assert any(re.search(says, problem) for problem in problems), problems


def test_a_line_that_was_made_up_breaks_the_chain(tmp_path: Path) -> None:
    ledger = add(tmp_path, 3)

    def forge(lines: list[bytes]) -> list[bytes]:
        entry = json.loads(lines[1])
        entry["site"] = "site-9999"
        entry["hash"] = lg._hash(entry)
        return [lines[0], lg._canonical(entry) + b"\n", lines[2]]

    rewrite(tmp_path, forge)
    [problem] = ledger.verify()
    assert problem.startswith(f"{tmp_path / lg.LEDGER}:3: line 3 does not follow from the one before it: that one was ")


def test_a_torn_line_is_cut_off_by_the_next_one_and_noted(tmp_path: Path) -> None:
    ledger = add(tmp_path, 2)
    with (tmp_path / lg.LEDGER).open("ab") as file:
        file.write(b'{"seq":3,"time"')
    [problem] = ledger.verify()
    assert problem.startswith(
        f"{tmp_path / lg.LEDGER}:3: it has no end: a crash left it, or bytes were lost. The next "
    )
    add(tmp_path)
    assert ledger.verify() == []
    assert [entry["event"] for entry in ledger.entries()] == ["issued", "issued", "torn-line-cut", "issued"]
    assert list(ledger.entries())[2]["reason"] == "15 bytes that a crash left at the end"


def test_lines_that_a_crash_kept_from_the_head_are_taken_in(tmp_path: Path) -> None:
    ledger = add(tmp_path, 2)
    head = (tmp_path / HEAD).read_bytes()
    add(tmp_path, 3)
    (tmp_path / HEAD).write_bytes(head)
    assert ledger.verify() == []
    add(tmp_path)
    assert ledger.verify() == []
    assert len(list(ledger.entries())) == 6


@pytest.mark.parametrize("count", [0, 1, 3])
def test_to_a_ledger_that_lost_its_end_nothing_is_added(tmp_path: Path, count: int) -> None:
    add(tmp_path, 4)
    rewrite(tmp_path, lambda lines: lines[:count])
    before = (tmp_path / lg.LEDGER).read_bytes()
    with pytest.raises(LedgerError, match=r"does not hold line 4 as ledger\.head names it.*restore it from the backup"):
        add(tmp_path)
    assert (tmp_path / lg.LEDGER).read_bytes() == before


def test_a_lost_head_is_told_and_made_again_with_a_note(tmp_path: Path) -> None:
    ledger = add(tmp_path, 2)
    (tmp_path / HEAD).unlink()
    assert ledger.verify() == [f"{tmp_path / HEAD}: missing, so lines lost at the end cannot be seen."]
    add(tmp_path)
    assert ledger.verify() == []
    assert [entry["event"] for entry in ledger.tail(2)] == ["head-renewed", "issued"]


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"seq":"a","hash":1}', '{"seq":2,"hash":"00"}'])
def test_a_damaged_head_is_named(tmp_path: Path, text: str) -> None:
    ledger = add(tmp_path, 2)
    (tmp_path / HEAD).write_text(text)
    assert len(ledger.verify()) == 1
    assert "ledger." in ledger.verify()[0]
    with pytest.raises(LedgerError):
        add(tmp_path)


def test_what_lies_beside_it_is_asked_too(tmp_path: Path) -> None:
    assert lg.Ledger(tmp_path, beside=lambda: ["the index lies"]).verify() == ["the index lies"]


def test_a_full_disk_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = lg.Ledger(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # The line found room, its number in the head did not.
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(LedgerError, match=r"ledger\.jsonl cannot be written: No space left on device\. No key was"):
            ledger.append([lg.Event(event="note")], who="anna@desk", operation="a #1")
    ledger.append([lg.Event(event="note")], who="anna@desk", operation="a #2")
    assert ledger.verify() == []


def test_a_long_ledger_is_read_from_its_end(tmp_path: Path) -> None:
    ledger = lg.Ledger(tmp_path)
    events = [lg.Event(event="staged", site=f"site-{number:04d}", reason="x" * 5000) for number in range(300)]
    ledger.append(events, who="anna@desk", operation="a #1")
    ledger.append([lg.Event(event="note")], who="anna@desk", operation="b #2")
    assert (tmp_path / lg.LEDGER).stat().st_size > 3 * lg.BLOCK
    assert [entry["seq"] for entry in ledger.tail(250)] == list(range(52, 302))
    assert [entry["event"] for entry in ledger.of("b #2")] == ["note"]
    assert len(ledger.of("a #1")) == 300
    assert ledger.of("a #2") == []


def test_several_at_once_keep_the_chain(tmp_path: Path) -> None:
    threads = [threading.Thread(target=add, args=(tmp_path, 10)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lg.Ledger(tmp_path).verify() == []
    assert len(list(lg.Ledger(tmp_path).entries())) == 80


def test_text_of_every_kind_stays_one_line(tmp_path: Path) -> None:
    ledger = add(tmp_path, reason='a\nb "c" \u00e4 \ud83d\ude00 \\ ')
    assert ledger.verify() == []
    assert (tmp_path / lg.LEDGER).read_bytes().count(b"\n") == 1


def test_who_was_ever_given_a_key_is_found_without_taking_lines_apart(tmp_path: Path) -> None:
    assert lg.Ledger(tmp_path).issued_to(["site-0001"]) == set()
    ledger = add(tmp_path, 2, reason='a "quoted" word, "event":"issued","site":"site-0009"')
    ledger.append([lg.Event(event="staged", site="site-0003")], who="x", operation="y")
    assert ledger.issued_to(["site-0000", "site-0001", "site-0003", "site-0009"]) == {"site-0000", "site-0001"}
