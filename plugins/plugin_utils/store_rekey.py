# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lock the key store with a new key of its own.

The order makes every step one that can be repeated: the new key is on the disk, then the record that names both keys,
then one file after another is replaced, then each is opened with the new key alone, then the new key takes its place,
then the record goes. Whoever reads the store meanwhile tries both keys.
"""

from __future__ import annotations

import datetime as dt
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rekey_record, vault_format
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError, StoreKeyError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rekey_record import Rekey
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_files import vault_files
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_key import StoreKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

    Step = Callable[[str, int, int], None]

WORKERS: Final = min(8, os.cpu_count() or 1)
NEW: Final = ".new"
OLD: Final = ".old"


@dataclass(frozen=True, kw_only=True)
class Rekeyed:
    """What was done. `key` is the file or program that opens the store now, `kept` where the former key stays."""

    files: int
    key: Path
    kept: Path
    in_place: bool


def rekey(*, store: KeyStore, to: Path | None = None, on_progress: Step | None = None) -> Rekeyed:
    """Encrypt every file of the store with another key: a random one, or the one that `to` is or says.

    Killed at any moment and run again, it finishes. An old backup opens with the former key only, so that is kept.

    Raises:
        StoreKeyError: one of the keys cannot be had, or the two are the same.
        KeyStoreError: a file opens with neither.
    """
    if not store.path.is_dir():
        raise KeyStoreError(f"there is no key store at {store.path} yet, so there is nothing to lock anew.")
    try:
        with store.operation("rekey"):
            found, count = _go_on(store=store, to=to, on_progress=on_progress)
    except OSError as exc:
        raise KeyStoreError(
            f"the key store {store.path} cannot be given another key now: {exc.strerror or exc}"
            f"{f' ({exc.filename})' if exc.filename else ''}. No key was lost, and whatever reads the store tries both "
            "keys. See to free space and permissions, then run again."
        ) from exc
    key = Path(found.old if found.in_place else found.new)
    return Rekeyed(files=count, key=key, kept=Path(found.kept), in_place=found.in_place)


def _go_on(*, store: KeyStore, to: Path | None, on_progress: Step | None) -> tuple[Rekey, int]:
    found = rekey_record.read(store.path)
    if found is None:
        found = _begin(store=store, to=to)
    elif to is not None and Path(os.path.abspath(to)) != Path(found.new):  # noqa: PTH100 - as it was recorded
        raise StoreKeyError(
            f"a change to the key {found.new} began at {found.since} and is not finished. Run again without --to "
            f"to finish it, then change to {to}."
        )
    if not found.in_place or Path(found.new).exists():
        count = _replace_all(store=store, rekey=found, on_progress=on_progress)
        _swap(found)
    elif not Path(found.kept).exists():
        raise StoreKeyError(
            f"{store.path} is being given another key since {found.since}, and the new key {found.new} is gone. Files "
            f"that are locked with it already open with nothing else: bring it back, then run again. If it is lost, "
            "restore the store from a backup."
        )
    else:
        # The new key has its place already; only the record is left.
        count = _prove_all(store=store, new=StoreKey(Path(found.old)), on_progress=on_progress)
    store.note("rekeyed", reason=f"{count} files, the former key is kept as {Path(found.kept).name}")
    rekey_record.remove(store.path)
    return found, count


def _begin(*, store: KeyStore, to: Path | None) -> Rekey:
    now = dt.datetime.now(tz=dt.UTC)
    own = Path(os.path.abspath(store.key.path))  # noqa: PTH100 - a link stays what it is
    old = StoreKey(own)
    if to is None:
        if old.is_program:
            raise StoreKeyError(
                f"the key of the key store comes from the program {own}, which cannot be told a new one. Make a new "
                "key where that program has it from, under another name, and name a program that says it with --to."
            )
        # A link to a key on another disk: the key changes there.
        own = Path(os.path.realpath(own))
        new = StoreKey(own.with_name(own.name + NEW))
        kept = _free(own.with_name(f"{own.name}.{now.strftime('%Y%m%dT%H%M%SZ')}{OLD}"))
    else:
        new = StoreKey(Path(os.path.abspath(to)))  # noqa: PTH100 - a link stays what it is
        kept = own
        if new.path.resolve().is_relative_to(store.path.resolve()):
            raise StoreKeyError(
                f"{to} lies in the key store. Keep the key apart from what it locks: name another place."
            )
    first = next(iter(vault_files(store)), None)
    if first is not None and not _opens(store.path / first, old):
        raise StoreKeyError(
            f"the key {own} does not open {store.path / first}, so nothing was changed. Name the right key in "
            "key_store_key of the plan. Was the store given another key already? Then the plan has to name that one."
        )
    new.make()
    new.refuse_weak()
    if new.read() == old.read():
        raise StoreKeyError(f"{new.path} holds the key that the store is locked with already. Name another one.")
    found = Rekey(old=str(own), new=str(new.path), kept=str(kept), since=now.strftime("%Y-%m-%dT%H:%M:%SZ"))
    rekey_record.write(store.path, found)
    return found


def _free(path: Path) -> Path:
    """That name or one beside it which nobody has: a former key is never written over."""
    number = 1
    found = path
    while os.path.lexists(found):
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _replace_all(*, store: KeyStore, rekey: Rekey, on_progress: Step | None) -> int:
    old, new = StoreKey(Path(rekey.old)), StoreKey(Path(rekey.new))
    # Once, before several threads ask for them.
    old.read(), new.read()
    names = vault_files(store)
    _each(
        names, lambda name: _replace(store.path / name, old=old, new=new), say="locking anew", on_progress=on_progress
    )
    for directory in {(store.path / name).parent for name in names}:
        for left in directory.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        sync_directory(directory)
    return _prove_all(store=store, new=new, on_progress=on_progress)


def _prove_all(*, store: KeyStore, new: StoreKey, on_progress: Step | None) -> int:
    names = vault_files(store)
    new.read()
    _each(
        names, lambda name: _prove(store.path / name, new=new), say="opening with the new key", on_progress=on_progress
    )
    return len(names)


def _each(names: list[str], work: Callable[[str], None], *, say: str, on_progress: Step | None) -> None:
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        try:
            for done, _nothing in enumerate(pool.map(work, names), start=1):
                if on_progress is not None:
                    on_progress(say, done, len(names))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _replace(path: Path, *, old: StoreKey, new: StoreKey) -> None:
    text = _text(path)
    try:
        plain = vault_format.decrypt(text=text, secret=old.read())
    except vault_format.WrongSecretError:
        # A run before this one was here already, or nobody's key opens it: _prove tells.
        return
    except vault_format.VaultFormatError as exc:
        raise KeyStoreError(f"{path}: {exc} Restore it from the backup, then run again.") from exc
    sealed = vault_format.encrypt(text=plain, secret=new.read())
    write_atomic(path, sealed.encode("ascii"), 0o600, sync_parent=False)


def _prove(path: Path, *, new: StoreKey) -> None:
    if not _opens(path, new):
        raise KeyStoreError(
            f"{path} opens with neither key: it was changed or is of another store. Both keys stay as they are and "
            "open everything else. Restore this file from the backup, then run again."
        )


def _opens(path: Path, key: StoreKey) -> bool:
    try:
        vault_format.decrypt(text=_text(path), secret=key.read())
    except vault_format.VaultFormatError:
        return False
    return True


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as exc:
        raise KeyStoreError(f"{path} cannot be read: {exc}. Nothing of it was changed.") from exc


def _swap(rekey: Rekey) -> None:
    """Let the new key take the old one's name; at no moment is that name free, and the old key stays."""
    if not rekey.in_place:
        return
    old, new, kept = Path(rekey.old), Path(rekey.new), Path(rekey.kept)
    try:
        if not kept.exists():
            os.link(old, kept)
            sync_directory(old.parent)
        new.replace(old)
        sync_directory(old.parent)
    except OSError as exc:
        raise StoreKeyError(
            f"the new key {new} cannot take the place of {old}: {exc.strerror or exc}. Both open the store until then. "
            "See to the permissions there, then run again."
        ) from exc
