# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of the store's own key that is under way: some files open with the one key already, some with the other."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_key import StoreKey

RECORD: Final = "rekey.json"


@dataclass(frozen=True, kw_only=True)
class Rekey:
    """From which key to which. `kept` is where the former key file stays; it differs from `old` when it makes room."""

    old: str
    new: str
    kept: str
    since: str

    @property
    def in_place(self) -> bool:
        """Whether the new key takes the name of the old one."""
        return self.kept != self.old


def read(directory: Path) -> Rekey | None:
    """What is on record, None when no change is under way."""
    path = directory / RECORD
    try:
        return Rekey(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as exc:
        raise KeyStoreError(
            f"{path} cannot be understood ({exc}). It is JSON and names the two keys of this store: old, new, kept "
            "and since. Write it again with the paths of both, then run `tools/fleet keystore rekey`."
        ) from exc


def write(directory: Path, rekey: Rekey) -> None:
    """Put it on record."""
    write_atomic(directory / RECORD, json.dumps(asdict(rekey), indent=1).encode() + b"\n", 0o600)


def remove(directory: Path) -> None:
    """Nothing is under way any more."""
    (directory / RECORD).unlink(missing_ok=True)
    sync_directory(directory)


def other_keys(directory: Path, *, own: Path) -> list[StoreKey]:
    """What else may open a file: the keys of a change under way, and what the own key's name leads to by now."""
    found = read(directory)
    names = [] if found is None else [found.new, found.old, found.kept]
    return [StoreKey(path) for path in dict.fromkeys([*map(Path, names), own]) if path.exists()]
