# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the lab keeps things on this machine."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
INVENTORY = PROJECT / "inventories" / "lab"

CACHE = Path("/var/cache/spokewright/lab")
RUN = Path("/run/spokewright-lab")
STATE = RUN / "state.json"
# The lock lies outside of RUN: `down` removes RUN while it holds the lock.
LOCK = Path("/run/spokewright-lab.lock")
DISKS = RUN / "disks"
TUN = DISKS / "dev-net-tun"
NETNS = Path("/run/netns")
SWITCH = "lab-switch"
CGROUP = "spokewright-lab"


def disk(name: str) -> Path:
    """Everything of one host: upper, work, root (the mounted overlay), console.log."""
    return DISKS / name


def root(name: str) -> Path:
    """A host's root directory, where its overlay is mounted."""
    return disk(name) / "root"


def console(name: str) -> Path:
    """What the host printed while booting."""
    return disk(name) / "console.log"


def netns(name: str) -> Path:
    """The handle of a host's network namespace."""
    return NETNS / name
