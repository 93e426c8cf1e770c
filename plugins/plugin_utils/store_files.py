# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files a key store is made of, as far as a copy of it needs them."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

# They say who is at work at this moment, on this machine.
OF_THE_MOMENT: Final = frozenset(("lock", "operation.json"))
VAULT: Final = ".vault"


def store_files(store: KeyStore) -> list[str]:
    """The names below the store, sorted. Never the store's own key, wherever it lies.

    Raises:
        KeyStoreError: something there is neither file nor directory.
    """
    own = Path(os.path.realpath(store.key.path))
    return sorted(
        str(path.relative_to(store.path))
        for path in _files(store.path)
        if not (path.parent == store.path and path.name in OF_THE_MOMENT) and Path(os.path.realpath(path)) != own
    )


def vault_files(store: KeyStore) -> list[str]:
    """The encrypted ones."""
    return [name for name in store_files(store) if name.endswith(VAULT)]


def _files(directory: Path) -> Iterator[Path]:
    for entry in os.scandir(directory):
        # What is being written has a name with a dot first, and is nobody's until it was renamed.
        if entry.name.startswith("."):
            continue
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            yield from _files(Path(entry.path))
        elif stat.S_ISREG(mode):
            yield Path(entry.path)
        else:
            raise KeyStoreError(f"{entry.path} is no file of a key store. Move it away, then run again.")
