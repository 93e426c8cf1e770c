# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the key store lies on the disk: the names, the encryption, the modes, the order of writes."""

from __future__ import annotations

import contextlib
import os
import pwd
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rekey_record, vault_format
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import (
    WriteError,
    sync_directory,
    write_atomic,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreError, StoreKeyError

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.store_key import StoreKey

CA_CERT: Final = "ca.pem"
CA_KEY: Final = "ca.key.vault"
CRL: Final = "crl.pem"
HEAD: Final = "ledger.head"
SERVER_KEY: Final = "server-tls-crypt-v2.vault"
README: Final = "README"
# What the version before encryption kept in the clear.
PLAIN: Final = ("ca.key", "server-tls-crypt-v2.pem", "index.json")

README_TEXT: Final = """\
This directory is a key store of Spokewright: every key of one fleet.

Files that end in .vault are encrypted with the store's own key, which lies elsewhere (key_store_key of the plan).
`ansible-vault view --vault-password-file KEY FILE` opens one. Nothing else in here is secret.

- Never put it into git and never edit it by hand.
- Back it up as a whole, and keep the copy of the store's own key apart from it.
- ledger.jsonl says what happened to every key.
"""


class Storage:
    """Named texts in a directory, some of them encrypted."""

    def __init__(self, *, root: Path, key: StoreKey) -> None:
        self.root = root
        self.key = key

    def has(self, name: str) -> bool:
        """Whether the name is there."""
        return (self.root / name).exists()

    def read(self, name: str) -> str:
        """A text that is no secret."""
        path = self.root / name
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError as exc:
            raise KeyStoreError(
                f"{path} is missing from the key store. Restore it from the backup; do not make it anew."
            ) from exc
        except (OSError, UnicodeDecodeError) as exc:
            said = exc.strerror if isinstance(exc, OSError) else exc
            raise KeyStoreError(f"{path} cannot be read: {said}.") from exc

    def open(self, name: str) -> str:
        """A secret text."""
        sealed = self.read(name)
        try:
            return vault_format.decrypt(text=sealed, secret=self.key.read())
        except vault_format.WrongSecretError as exc:
            # While the store's own key is being changed, some files open with the other one.
            found = self._open_with_others(sealed)
            if found is not None:
                return found
            raise StoreKeyError(
                f"the key {self.key.path} does not open {self.root / name}: it is the key of another store, or the "
                "file was changed. Name the right key in key_store_key of the plan, or restore the file from a backup."
            ) from exc
        except vault_format.VaultFormatError as exc:
            raise KeyStoreError(f"{self.root / name}: {exc} Restore it from the backup.") from exc

    def write(self, name: str, text: str, *, sync: bool = True) -> None:
        """Replace a text that is no secret."""
        self._write(name, text, sync=sync)

    def seal(self, name: str, text: str, *, sync: bool = True) -> None:
        """Write a secret text, encrypted."""
        self._write(name, vault_format.encrypt(text=text, secret=self.key.read()), sync=sync)

    def remove(self, name: str) -> None:
        """Remove a file for good."""
        path = self.root / name
        try:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise KeyStoreError(f"{path} cannot be removed: {exc.strerror or exc}.") from exc

    def names(self, under: str, ending: str) -> list[str]:
        """The whole files below a directory, without their ending."""
        try:
            return sorted(
                entry.name.removesuffix(ending)
                for entry in os.scandir(self.root / under)
                if entry.name.endswith(ending) and not entry.name.startswith(".")
            )
        except FileNotFoundError:
            return []

    def directories(self, under: str) -> list[str]:
        """The directories below a directory."""
        try:
            with os.scandir(self.root / under) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def has_any(self, under: str) -> bool:
        """Whether a directory holds anything; this costs the same however much it holds."""
        try:
            with os.scandir(self.root / under) as entries:
                return next((True for entry in entries if not entry.name.startswith(".")), False)
        except FileNotFoundError:
            return False

    def make(self, under: str, *, sync: bool = True) -> None:
        """Make a directory, closed to everybody else."""
        directory = self.root / under
        missing = []
        while not directory.exists():
            missing.append(directory)
            directory = directory.parent
        try:
            for path in reversed(missing):
                # Another run may begin at the same moment.
                path.mkdir(mode=0o700, exist_ok=True)
                if sync:
                    sync_directory(path.parent)
        except OSError as exc:
            raise KeyStoreError(
                f"{self.root / under} cannot be made: {exc.strerror or exc}. No key was lost. See to free space and to "
                "the permissions of the directory, then run again."
            ) from exc

    def sync(self, under: str) -> None:
        """Make the names in a directory survive a power cut."""
        sync_directory(self.root / under)

    def clean(self, under: str) -> None:
        """Remove what a crash left of a write: encrypted or no secret, but of no use."""
        try:
            left = [path for path in (self.root / under).iterdir() if _is_left(path.name)]
        except FileNotFoundError:
            return
        for path in left:
            path.unlink(missing_ok=True)

    def check(self) -> None:
        """Refuse a directory that others can look into, and one from before encryption."""
        if not self.root.exists():
            return
        mode = self.root.stat().st_mode & 0o777
        if mode & 0o077:
            raise KeyStoreError(
                f"key store {self.root} has mode {mode:04o}: others could read all keys. Run: chmod 0700 {self.root}"
            )
        plain = [name for name in PLAIN if self.has(name)]
        if plain:
            raise KeyStoreError(
                f"the key store {self.root} was made by a version that kept keys unencrypted: it holds "
                f"{', '.join(plain)}. It is left as it is. Move it to a safe place and run again for a new store: "
                "every site and gateway then gets new keys."
            )

    def refuse_foreign(self) -> None:
        """Root can write into anybody's store, but its owner could not read that any more."""
        owner = self.root.stat().st_uid
        if owner != os.geteuid():
            name = _user(owner)
            raise KeyStoreError(
                f"the key store {self.root} belongs to {name}, and this runs as {_user(os.geteuid())}: {name} could "
                f"not read what is written now. Nothing was changed. Run it as {name}, or hand store and its own key "
                "over with chown -R."
            )

    @property
    def holds_secrets(self) -> bool:
        """Whether anything in here needs the store's own key."""
        return self.has(CA_KEY) or self.has(SERVER_KEY) or self.has_any("sites") or self.has_any("gateways")

    def _open_with_others(self, sealed: str) -> str | None:
        for key in rekey_record.other_keys(self.root, own=self.key.path):
            with contextlib.suppress(vault_format.WrongSecretError, StoreKeyError):
                return vault_format.decrypt(text=sealed, secret=key.read())
        return None

    def _write(self, name: str, text: str, *, sync: bool) -> None:
        path = self.root / name
        try:
            write_atomic(path, text.encode("ascii"), 0o600, sync_parent=sync)
        except WriteError as exc:
            cause = exc.__cause__
            said = (cause.strerror or cause) if isinstance(cause, OSError) else exc
            raise KeyStoreError(
                f"{path} cannot be written: {said}. No key was lost. See to free space and to the permissions of the "
                "directory, then run again."
            ) from exc


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _is_left(name: str) -> bool:
    # The ledger sees to its own: a note is written while somebody else may be at work.
    return name.startswith(".") and name.endswith(".tmp") and not name.startswith(f".{HEAD}.")
