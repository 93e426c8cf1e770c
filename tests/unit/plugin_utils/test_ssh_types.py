# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every transport shares: who is tried again, and how output is listened to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_types as s

TARGET = s.Target(name="site-0001", address="192.0.2.1", port=22, user="root", host_key="", private_key_file=Path("id"))


class Attempts:
    """Fails so often with this error, then succeeds."""

    def __init__(self, error: s.SshError, failures: int, seconds: float = 0.0) -> None:
        self.error, self.failures, self.made, self.seconds = error, failures, 0, seconds

    def __call__(self) -> str:
        self.made += 1
        if self.made <= self.failures:
            time.sleep(self.seconds)
            raise self.error
        return "in"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.01)


def clock(**changes: float) -> s.Clock:
    return s.Clock(target=TARGET, timeouts=s.Timeouts(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("failures", "made", "well"), [(0, 1, True), (2, 3, True), (3, 3, False)])
def test_what_may_pass_is_tried_two_more_times(failures: int, made: int, well: bool) -> None:  # noqa: FBT001
    attempts = Attempts(s.ClosedError("cut", passing=True), failures)
    if well:
        assert s.persistently(clock=clock(), attempt=attempts) == "in"
    else:
        with pytest.raises(s.ClosedError):
            s.persistently(clock=clock(), attempt=attempts)
    assert attempts.made == made


@pytest.mark.parametrize(
    "error", [s.AuthRefusedError("no"), s.HostKeyChangedError("other"), s.ClosedError("in the middle")]
)
def test_what_will_not_pass_is_tried_once(error: s.SshError) -> None:
    attempts = Attempts(error, 1)
    with pytest.raises(type(error)):
        s.persistently(clock=clock(), attempt=attempts)
    assert attempts.made == 1


def test_an_error_that_took_its_time_was_a_wait_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "SLOW_FAILURE", 0.01)
    attempts = Attempts(s.UnreachableError("no route", passing=True), 1, seconds=0.05)
    with pytest.raises(s.UnreachableError):
        s.persistently(clock=clock(), attempt=attempts)
    assert attempts.made == 1


def test_nobody_is_tried_again_beyond_the_deadline_or_when_told_not_to() -> None:
    for tight in (clock(deadline=0.005), clock(retries=0)):
        attempts = Attempts(s.ClosedError("cut", passing=True), 1)
        with pytest.raises(s.ClosedError):
            s.persistently(clock=tight, attempt=attempts)
        assert attempts.made == 1


def test_lines_are_heard_whole_however_they_arrive_and_only_until_one_is_answered() -> None:
    heard: list[bytes] = []

    def wanted(line: bytes) -> bytes | None:
        heard.append(line)
        return b"now" if line == b"two" else None

    listener = s.Listener(name="site-0001", wanted=wanted)
    assert [listener.hear(bytes([byte])) for byte in b"one\r\ntw"] == [None] * 7
    assert listener.hear(b"o\nthree\n") == b"now"
    assert listener.hear(b"four\n") is None
    assert heard == [b"one", b"two"]
    assert bytes(listener.out) == b"one\r\ntwo\nthree\nfour\n"


def test_too_much_output_is_no_answer() -> None:
    listener = s.Listener(name="site-0001", wanted=None)
    with pytest.raises(s.ClosedError, match="that is no receipt"):
        listener.hear(b"x" * (s.OUTPUT_MAX + 1))
