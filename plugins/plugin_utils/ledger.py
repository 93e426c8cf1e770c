# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened to every key, in a file that only grows and that shows any change made to it.

Each line carries the hash of the line before it. `ledger.head` holds number and hash of the last line, so that a lost
end is seen too. There is no secret in it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import mmap
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import (
    WriteError,
    sync_directory,
    write_all,
    write_atomic,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import LedgerError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_storage import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

LEDGER: Final = "ledger.jsonl"
START: Final = "0" * 64
# No line of ours is longer: the longest field is a reason, and that is cut.
LINE_MAX: Final = 4096
REASON_MAX: Final = 1000
BLOCK: Final = 65536
# Our own lines have their fields in the order of the alphabet, and inside a text a quote has a backslash before it.
_ISSUED: Final = re.compile(rb'"event":"issued",[^\n]*?,"site":"([^"\\\n]+)"')


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened."""

    event: str
    site: str = ""
    epoch: int = 0
    kid: str = ""
    fingerprint: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Head:
    """Number and hash of a line."""

    seq: int = 0
    hash: str = START


class Ledger:
    """The ledger of one key store."""

    def __init__(self, directory: Path, *, beside: Callable[[], list[str]] = list) -> None:
        """`beside` says what does not fit the ledger in the files beside it."""
        self._beside = beside
        self.path = directory / LEDGER
        self.head_path = directory / HEAD

    def append(self, events: Sequence[Event], *, who: str, operation: str) -> list[dict[str, Any]]:
        """Add lines and return them; they are on the disk when this returns.

        After an error they may be there all the same: a line too much is no harm, one too few would be.

        Raises:
            LedgerError: it cannot be written, or its end is not what it was left as.
        """
        if not events:
            return []
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Held for the time of one write only: a note must not wait for an operation that runs for minutes.
                fcntl.flock(handle, fcntl.LOCK_EX)
                return self._append_locked(handle, events=events, who=who, operation=operation)
            finally:
                os.close(handle)
        except (OSError, WriteError) as exc:
            cause = exc.__cause__ if isinstance(exc, WriteError) else exc
            raise LedgerError(
                f"{self.path} cannot be written: {getattr(cause, 'strerror', None) or cause}. No key was lost. See to "
                "free space and permissions, then run again."
            ) from exc

    def entries(self) -> Iterator[dict[str, Any]]:
        """Every line in order; one that is no JSON is left out here and named by `verify`."""
        for _number, text in self._lines():
            with contextlib.suppress(ValueError):
                found = json.loads(text)
                if isinstance(found, dict):
                    yield found

    def tail(self, count: int) -> list[dict[str, Any]]:
        """The last lines, without reading the whole file."""
        return list(self._backwards(count))[::-1]

    def of(self, operation: str) -> list[dict[str, Any]]:
        """The lines of one operation. Only these are taken apart; their time is not asked: a clock may be set back."""
        wanted = f'"operation":{json.dumps(operation)},'.encode()
        found = (_read(text)[0] for _number, text in self._lines() if wanted in text)
        return [entry for entry in found if entry is not None and entry["operation"] == operation]

    def issued_to(self, sites: Iterable[str]) -> set[str]:
        """Which of these sites were ever given a key. The whole file is looked through, but no line is taken apart."""
        try:
            with self.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return set(sites) & {found[1].decode("ascii", "replace") for found in _ISSUED.finditer(text)}
        except (FileNotFoundError, ValueError):
            # There is none, or nothing in it.
            return set()

    def verify(self) -> list[str]:
        """What is wrong, each with its line; nothing when the ledger is whole."""
        problems: list[str] = []
        last = Head()
        whole = True
        for number, text in self._lines():
            entry, fault = _read(text)
            if entry is None:
                problems.append(f"{self.path}:{number}: {fault}")
                whole = False
                continue
            if whole and (entry["seq"] != last.seq + 1 or entry["previous"] != last.hash):
                problems.append(
                    f"{self.path}:{number}: {_gap(last=last, entry=entry)}. Restore the ledger from the backup."
                )
            last, whole = Head(seq=entry["seq"], hash=entry["hash"]), True
        return problems + (self._verify_head(last=last) if whole else []) + self._beside()

    def _verify_head(self, *, last: Head) -> list[str]:
        try:
            head = self._head()
        except LedgerError as exc:
            return [str(exc)]
        if head is None:
            return [f"{self.head_path}: missing, so lines lost at the end cannot be seen."] if last.seq else []
        if head == last:
            return []
        if head.seq > last.seq:
            lost = f"{head.seq - last.seq} lost at the end. Restore the ledger from the backup."
            return [f"{self.path}: ends at line {last.seq}, but {HEAD} says that there were {head.seq}: {lost}"]
        if head.seq == last.seq:
            return [f"{self.path}:{last.seq}: not the line that {HEAD} names as the last one."]
        # A crash between the two files leaves the head behind; the next line brings it up again.
        return []

    def _append_locked(self, handle: int, *, events: Sequence[Event], who: str, operation: str) -> list[dict[str, Any]]:
        for left in self.path.parent.glob(f".{HEAD}.*.tmp"):
            left.unlink()
        last, notes = self._settle(handle)
        now = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made: list[dict[str, Any]] = []
        for one in (*notes, *events):
            entry: dict[str, Any] = {
                "seq": last.seq + 1,
                "time": now,
                "who": who,
                "operation": operation,
                "event": one.event,
                "site": one.site,
                "epoch": one.epoch,
                "kid": one.kid,
                "fingerprint": one.fingerprint,
                "reason": one.reason[:REASON_MAX],
                "previous": last.hash,
            }
            entry["hash"] = _hash(entry)
            made.append(entry)
            last = Head(seq=last.seq + 1, hash=str(entry["hash"]))
        size = os.lseek(handle, 0, os.SEEK_END)
        try:
            write_all(handle, b"".join(_canonical(entry) + b"\n" for entry in made))
            os.fsync(handle)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, size)
            raise
        if size == 0:
            sync_directory(self.path.parent)
        write_atomic(self.head_path, json.dumps({"seq": last.seq, "hash": last.hash}).encode() + b"\n", 0o600)
        return made[len(notes) :]

    def _settle(self, handle: int) -> tuple[Head, list[Event]]:
        """The line to go on from. A line that a crash left torn is cut off; anything else wrong is refused."""
        notes = []
        size = os.fstat(handle).st_size
        end = _end_of_last_line(handle, size)
        head = self._head()
        last, number = Head(), 0
        for entry in self._backwards(None, end=end):
            if not last.seq:
                last = Head(seq=entry["seq"], hash=entry["hash"])
            if head is None or entry["seq"] <= head.seq:
                number = entry["seq"]
                if head is not None and (entry["seq"], entry["hash"]) != (head.seq, head.hash):
                    number = 0
                break
        if head is not None and head.seq and number != head.seq:
            raise LedgerError(
                f"{self.path} does not hold line {head.seq} as {HEAD} names it: lines were lost or changed. Nothing is "
                "added to a damaged ledger. Run `tools/fleet ledger verify`, then restore it from the backup."
            )
        if head is None and last.seq:
            notes.append(Event(event="head-renewed", reason=f"{HEAD} was missing"))
        if end < size:
            os.ftruncate(handle, end)
            notes.append(Event(event="torn-line-cut", reason=f"{size - end} bytes that a crash left at the end"))
        return last, notes

    def _head(self) -> Head | None:
        try:
            text = self.head_path.read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
            return Head(seq=int(found["seq"]), hash=str(found["hash"]))
        except (ValueError, KeyError, TypeError) as exc:
            raise LedgerError(
                f"{self.head_path}: no number and hash of a line ({exc}). Restore it from the backup."
            ) from exc

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self.path.open("rb") as file:
                yield from enumerate(file, start=1)
        except FileNotFoundError:
            return

    def _backwards(self, count: int | None, *, end: int | None = None) -> Iterator[dict[str, Any]]:
        """Lines from the last to the first, read in blocks. With an `end`, a damaged one is an error."""
        try:
            with self.path.open("rb") as file:
                at, rest, given = file.seek(0, os.SEEK_END) if end is None else end, b"", 0
                while (at or rest) and (count is None or given < count):
                    step = min(BLOCK, at)
                    at -= step
                    file.seek(at)
                    parts = (file.read(step) + rest).split(b"\n")
                    rest = parts.pop(0) if at else b""
                    for text in reversed(parts):
                        if not text:
                            continue
                        entry, fault = _read(text + b"\n")
                        if entry is None:
                            if end is not None:
                                raise LedgerError(f"{self.path}: its end is damaged: {fault}")
                            continue
                        yield entry
                        given += 1
                        if given == count:
                            return
        except FileNotFoundError:
            return


def _canonical(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _hash(entry: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical({name: value for name, value in entry.items() if name != "hash"})).hexdigest()


def _read(line: bytes) -> tuple[dict[str, Any] | None, str]:
    """A line, or what is wrong with it."""
    if not line.endswith(b"\n"):
        return None, "it has no end: a crash left it, or bytes were lost. The next change to the key store cuts it off."
    fault = "it was changed: its hash does not fit what it says. Restore the ledger from the backup."
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict) or not isinstance(entry["seq"], int):
            return None, fault
        # Byte by byte: a space more would be read as the same.
        if _canonical(entry) + b"\n" != line or entry["hash"] != _hash(entry) or "previous" not in entry:
            return None, fault
    except (ValueError, KeyError, TypeError):
        return None, fault
    return entry, ""


def _gap(*, last: Head, entry: dict[str, Any]) -> str:
    if entry["seq"] == last.seq + 1:
        return f"line {entry['seq']} does not follow from the one before it: that one was changed"
    if entry["seq"] > last.seq + 1:
        return f"line {last.seq + 1} is missing before line {entry['seq']}"
    return f"line {entry['seq']} stands after line {last.seq}: lines were moved or doubled"


def _end_of_last_line(handle: int, size: int) -> int:
    at = size
    while at:
        step = min(BLOCK, at)
        found = os.pread(handle, step, at - step).rfind(b"\n")
        if found >= 0:
            return at - step + found + 1
        at -= step
    return 0
