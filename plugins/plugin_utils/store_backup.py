# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup of the key store in one file, and the way back. Both hold only what the store's own key locks."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rekey_record
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_durable
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_check import check_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_files import store_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MANIFEST: Final = "spokewright-backup.json"
VERSION: Final = 1
NO_LINKS: Final = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS))


class BackupError(KeyStoreError):
    """A backup cannot be written, or is not whole."""


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup holds. No secret."""

    path: Path
    files: int
    size: int
    made: str


def back_up(*, store: KeyStore, target: Path, on_progress: Callable[[int, int], None] | None = None) -> Backup:
    """Write the whole store into a new file; it has its name only after it was read back and found right.

    Raises:
        BackupError: the file is there already, lies in the store, or cannot be written whole.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100 - a link stays what it is
    _refuse_target(store=store, target=target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    # While the store is written, files of two moments would lie side by side.
    with store.operation("backup"):
        found = rekey_record.read(store.path)
        if found is not None:
            raise BackupError(
                f"the key store {store.path} is being given another key since {found.since}. Run `tools/fleet keystore "
                "rekey` to finish it, then back up."
            )
        store.note("backup", reason=target.name)
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(handle, "wb") as stream:
                    made = _write(store=store, stream=stream, on_progress=on_progress)
                    stream.flush()
                    os.fsync(stream.fileno())
                files = sum(name != MANIFEST for name, _data in _members(temporary))
                # A link, not a rename: a backup of that name which came meanwhile stays.
                _give_name(temporary, target)
                sync_directory(target.parent)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as exc:
            raise BackupError(
                f"the backup {target} cannot be written: {exc.strerror or exc}. The key store was not touched. "
                "Look at free space and permissions there, or name another place."
            ) from exc
    return Backup(path=target, files=files, size=target.stat().st_size, made=made)


def restore(
    *, source: Path, to: Path, key: Path, on_progress: Callable[[int, int], None] | None = None
) -> tuple[Backup, list[str]]:
    """Unpack a backup beside its place, prove it whole and openable, then give it its name.

    Returns what it holds, and what is to be known though it did not stop the restore.

    Raises:
        BackupError: the place is taken, the backup is damaged, or the store's own key does not open it.
    """
    to = Path(os.path.abspath(to))  # noqa: PTH100 - a link stays what it is
    _refuse_taken(to)
    size = source.stat().st_size if source.exists() else 0
    try:
        with _place_beside(to) as place:
            files, made = _unpack(source=source, place=place)
            found = check_store(store=KeyStore(path=place, key=key), on_progress=on_progress)
            if found.fatal:
                said = "\n".join(found.fatal).replace(str(place), str(to))
                raise BackupError(f"{source}: what it holds was not put in place:\n{said}\nNothing was changed.")
            # Takes the place of an empty directory in one step.
            place.rename(to)
            sync_directory(to.parent)
    except OSError as exc:
        raise BackupError(
            f"{source} cannot be restored to {to}: {exc.strerror or exc}"
            f"{f' ({exc.filename})' if exc.filename else ''}. Nothing was changed."
        ) from exc
    return Backup(path=source, files=files, size=size, made=made), [
        problem.replace(str(place), str(to)) for problem in found.others
    ]


def _unpack(*, source: Path, place: Path) -> tuple[int, str]:
    """How many files there were, and when they were backed up."""
    listing = b""
    directories = {place}
    files = 0
    for name, data in _members(source):
        if name == MANIFEST:
            listing = data
            continue
        path = place / name
        # One by one: mkdir(parents=True) would leave those in between open to others.
        for directory in reversed(path.relative_to(place).parents):
            (place / directory).mkdir(mode=0o700, exist_ok=True)
            directories.add(place / directory)
        write_durable(path, data, 0o600)
        files += 1
    for directory in directories:
        sync_directory(directory)
    # All were read, so that the list is known to be one of ours.
    return files, str(json.loads(listing)["made"])


def _give_name(temporary: Path, target: Path) -> None:
    try:
        os.link(temporary, target)
    except OSError as exc:
        # A stick's file system has no links. There the name is asked for just before.
        if exc.errno not in NO_LINKS or os.path.lexists(target):
            raise
        temporary.rename(target)


def _write(*, store: KeyStore, stream: Any, on_progress: Callable[[int, int], None] | None) -> str:
    names = store_files(store)
    digests: dict[str, str] = {}
    made = dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for done, name in enumerate(names, start=1):
            data = (store.path / name).read_bytes()
            digests[name] = hashlib.sha256(data).hexdigest()
            _add(archive=archive, name=name, data=data)
            if on_progress is not None:
                on_progress(done, len(names))
        listing = {"version": VERSION, "made": made, "files": digests}
        _add(archive=archive, name=MANIFEST, data=(json.dumps(listing, indent=1) + "\n").encode())
    return made


def _add(*, archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o600
    archive.addfile(entry, BytesIO(data))


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    """Each file of a backup; at the end it is proven that all were there, as they were written.

    Raises:
        BackupError: it is no backup, or not whole.
    """
    digests: dict[str, str] = {}
    listing: Mapping[str, Any] | None = None
    try:
        with tarfile.open(source, mode="r:") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or not _harmless(member.name) or member.name in digests:
                    raise BackupError(
                        f"{source}: holds {member.name!r}, which no backup of ours has. Nothing was done."
                    )
                data = stream.read()
                if member.name == MANIFEST:
                    listing = json.loads(data)
                else:
                    digests[member.name] = hashlib.sha256(data).hexdigest()
                yield member.name, data
    except FileNotFoundError as exc:
        raise BackupError(f"{source}: there is no such file. Name the backup to use.") from exc
    except (tarfile.TarError, ValueError, EOFError) as exc:
        raise BackupError(f"{source}: is no backup of a key store, or is cut off ({exc}). Use another one.") from exc
    _compare(source=source, digests=digests, listing=listing)


def _compare(*, source: Path, digests: Mapping[str, str], listing: Mapping[str, Any] | None) -> None:
    if listing is None:
        raise BackupError(
            f"{source}: has no {MANIFEST}: it is no backup of a key store, or is cut off. Use another one."
        )
    if not isinstance(listing, dict) or listing.get("version") != VERSION or not {"files", "made"} <= set(listing):
        raise BackupError(f"{source}: its {MANIFEST} is of a version that this program does not know. Update it.")
    said = listing["files"]
    wrong = sorted(name for name in {*said, *digests} if said.get(name) != digests.get(name))
    if wrong:
        raise BackupError(
            f"{source}: {', '.join(wrong[:5])}{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''} "
            "missing or changed since the backup was made. Use another one."
        )


def _harmless(name: str) -> bool:
    """A name that stays below the directory it is unpacked in."""
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and not any(part.startswith(".") for part in parts)


def _refuse_target(*, store: KeyStore, target: Path) -> None:
    if not store.path.is_dir():
        raise BackupError(f"there is no key store at {store.path} yet, so there is nothing to back up.")
    if target.is_dir():
        raise BackupError(f"{target}: is a directory. Name the file to write.")
    if os.path.lexists(target):
        raise BackupError(f"{target}: is there already. A backup never replaces another; name a new file.")
    if target.parent.resolve().is_relative_to(store.path.resolve()):
        raise BackupError(f"{target}: lies in the key store itself. Name a place on another disk.")


def _refuse_taken(to: Path) -> None:
    if to.is_symlink() or (to.exists() and not to.is_dir()):
        raise BackupError(f"{to}: is no directory. Name the directory that is to be the key store.")
    if to.is_dir() and any(to.iterdir()):
        raise BackupError(
            f"{to}: is not empty. A restore never mixes two stores; move it away, or name another with --to."
        )


@contextlib.contextmanager
def _place_beside(to: Path) -> Iterator[Path]:
    """An empty directory on the same disk, ours alone; what a killed restore left there goes first."""
    to.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = to.with_name(f".{to.name}.restore")
    handle = os.open(to.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BackupError(f"somebody else restores into {to.parent} at this moment. Wait for it to end.") from exc
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
    finally:
        os.close(handle)
