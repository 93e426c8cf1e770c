# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock file: which address every site has and had, which instance serves which block. In git, sorted, diffable."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = 1


class Tombstone(NamedTuple):
    """The address a removed site had, kept from others until it is released."""

    address: str
    removed: str


@dataclass(frozen=True, slots=True)
class Lock:
    """Allocations. `instances` is the number of daemons the blocks were last spread over, 0 when not recorded."""

    network: str
    block_prefix: int
    instances: int = 0
    blocks: Mapping[str, str] = field(default_factory=dict)
    sites: Mapping[str, str] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)


def lock_text(*, lock: Lock) -> str:
    """Return the file's text: the same for the same allocations, byte for byte."""
    document = {
        "version": VERSION,
        "network": lock.network,
        "block_prefix": lock.block_prefix,
        "instances": lock.instances,
        "blocks": dict(lock.blocks),
        "sites": dict(lock.sites),
        "tombstones": {name: stone._asdict() for name, stone in lock.tombstones.items()},
    }
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
