# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the gateways' daemons waited for the script that judges keys, by the kernel's own books.

The kernel notes each process of a gateway when it ends (process accounting, acct(2)): its name, and how long it was
there, in whole hundredths of a second. From the fork to the end of the script its daemon stands still, so this is the
time for which a daemon was blocked, without a stopwatch in its way. Rounded down, 20 ms or more is still told exactly.
A kernel without it (CONFIG_BSD_PROCESS_ACCT) leaves the question open.
"""

from __future__ import annotations

import contextlib
import math
import struct
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME: Final = "tunnel-verify"
BOOK: Final = "/run/spokewright-bench.acct"
LIMIT_MS: Final = 20.0
P99: Final = 0.99
TICK_MS: Final = 10.0
_SWITCH: Final = "import ctypes; raise SystemExit(ctypes.CDLL(None).acct({book!r}))"
# struct acct_v3 of linux/acct.h: 32 bytes of numbers, the elapsed ticks among them, 16 bytes more, the name.
_RECORD: Final = struct.Struct("=BBHIIIIIIf16x16s")
_VERSION: Final = 3


@dataclass(frozen=True, kw_only=True)
class Waits:
    """Milliseconds of each run of the script, rounded down to ten; sorted."""

    ms: tuple[float, ...] = ()

    @property
    def p99(self) -> float:
        """The least that 99 of 100 runs did not exceed."""
        return self.ms[min(len(self.ms), math.ceil(P99 * len(self.ms))) - 1] if self.ms else 0.0

    def well(self, *, slack: float = 1.0) -> bool:
        """Whether 99 of 100 runs took less than the limit."""
        return self.p99 < LIMIT_MS * slack

    def __add__(self, other: Waits) -> Waits:
        return Waits(ms=tuple(sorted((*self.ms, *other.ms))))

    def text(self) -> str:
        """One line for people."""
        if not self.ms:
            return f"nobody saw the script that judges keys run ({NAME})"
        slow = sum(one >= LIMIT_MS for one in self.ms)
        return (
            f"the script that judges keys ran {len(self.ms)} times: 99 % under {self.p99 + TICK_MS:.0f} ms, "
            f"{slow} took {LIMIT_MS:.0f} ms or more ({slow / len(self.ms):.1%}), "
            f"the longest under {self.ms[-1] + TICK_MS:.0f} ms"
        )


def read(book: bytes, *, name: str = NAME) -> Waits:
    """The runs of one program in a book. A record that the kernel was writing when we looked is left out."""
    whole = len(book) - len(book) % _RECORD.size
    found = []
    for _flag, version, _tty, _code, _uid, _gid, _pid, _parent, _begun, ticks, comm in _RECORD.iter_unpack(
        book[:whole]
    ):
        if version & 0x0F == _VERSION and comm.rstrip(b"\0").decode(errors="replace") == name:
            found.append(ticks * TICK_MS)
    return Waits(ms=tuple(sorted(found)))


@contextlib.contextmanager
def kept(hosts: Sequence[str]) -> Iterator[list[Waits]]:
    """Books are kept on these hosts; what is in them is filled in at the end. A host that lost its power lost its."""
    for host in hosts:
        scene.on(host, f'umask 077; : >{BOOK}; python3 -c "{_SWITCH.format(book=BOOK.encode())}"')
    found: list[Waits] = []
    try:
        yield found
    finally:
        for host in hosts:
            with contextlib.suppress(scene.SceneError, OSError, subprocess.SubprocessError):
                found.append(read(_taken(host)))


def _taken(host: str) -> bytes:
    """End the book of a host and fetch it."""
    script = f'python3 -c "{_SWITCH.format(book=None)}"; cat {BOOK}; rm -f {BOOK}'
    done = subprocess.run(
        scene.command_in(host, ["sh", "-c", script]),
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    return done.stdout
