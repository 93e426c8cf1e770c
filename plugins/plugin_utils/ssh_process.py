# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program that is fed and listened to at once, by a deadline. It is never waited for at one of its ends alone."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import OUTPUT_MAX, Answer, Listener

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import Wanted

CHUNK: Final = 1 << 16


class ClientProcess:
    """One run of a program. `wanted` decides by its output what else it is sent."""

    def __init__(self, *, words: list[str], name: str, stdin: bytes, wanted: Wanted | None) -> None:
        self._listener = Listener(name=name, wanted=wanted)
        self._err = bytearray()
        self._began = time.monotonic()
        # A group of its own: what the program starts goes with it.
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._ends = selectors.DefaultSelector()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                self._ends.register(pipe, selectors.EVENT_READ)
        if self._process.stdin is not None:
            os.set_blocking(self._process.stdin.fileno(), False)
        self._unsent = memoryview(b"")
        self._last = False
        self._give(stdin, last=wanted is None)

    def to_its_end(self, *, end: float) -> Answer:
        """Send and listen until it ends.

        Raises:
            TimeoutError: it did not end in time.
        """
        process = self._process
        while any(key.fileobj is not process.stdin for key in self._ends.get_map().values()):
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError
            for key, _events in self._ends.select(left):
                if key.fileobj is process.stdin:
                    self._feed()
                else:
                    self._hear(key.fd, out=key.fileobj is process.stdout)
        try:
            status = process.wait(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired as exc:
            raise TimeoutError from exc
        return Answer(
            exit_status=status,
            stdout=bytes(self._listener.out),
            stderr=bytes(self._err),
            seconds=time.monotonic() - self._began,
        )

    def kill(self) -> None:
        """Leave nothing of it behind."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._ends.close()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _give(self, data: bytes, *, last: bool) -> None:
        self._unsent = memoryview(bytes(self._unsent) + data)
        self._last = last
        stdin = self._process.stdin
        if (
            stdin is not None
            and not stdin.closed
            and stdin not in {key.fileobj for key in self._ends.get_map().values()}
        ):
            self._ends.register(stdin, selectors.EVENT_WRITE)
        self._feed()

    def _feed(self) -> None:
        """Send what the program takes now; a program may end without having read all, its answer is what counts."""
        stdin = self._process.stdin
        if stdin is None or stdin.closed:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(stdin.fileno(), self._unsent[:CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsent, self._last = memoryview(b""), True
        self._ends.unregister(stdin)
        if self._last:
            stdin.close()

    def _hear(self, descriptor: int, *, out: bool) -> None:
        try:
            chunk = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._ends.unregister(descriptor)
        elif out:
            answer = self._listener.hear(chunk)
            if answer is not None:
                self._give(answer, last=True)
        elif len(self._err) < OUTPUT_MAX:
            self._err += chunk
