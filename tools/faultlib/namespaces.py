# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sockets inside other network namespaces, while this process stays where it is."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

from lablib import paths

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(handle: int) -> None:
    # os.setns is there from Python 3.12 on.
    if _libc.setns(handle, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def inside(name: str, make: Callable[[], T]) -> T:
    """Call `make` with this thread in the namespace of that host: a socket made there stays there.

    Raises:
        OSError: there is no such namespace.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(paths.netns(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            return make()
        finally:
            _enter(own)
    finally:
        os.close(own)


def identity(name: str) -> int | None:
    """Tells one boot's namespace of that host from the next one's; None when there is none."""
    try:
        return paths.netns(name).stat().st_ino
    except FileNotFoundError:
        return None
