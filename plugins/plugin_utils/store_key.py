# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's own key: a file of random text, or a program that says it, as for `ansible-vault`."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets as random
import subprocess
import threading
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import sync_directory, write_durable
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import StoreKeyError

if TYPE_CHECKING:
    from pathlib import Path

RANDOM_BYTES: Final = 48
# 128 random bits as text.
LEAST_BYTES: Final = 22
VAULT_ID: Final = "spokewright"
SCRIPT_SECONDS: Final = 120
BEST_TEXT: Final = 300


class StoreKey:
    """Reads the key once and keeps it for the life of this object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: bytes | None = None
        self._failed = ""
        self._mutex = threading.Lock()

    def __repr__(self) -> str:
        return f"StoreKey({str(self.path)!r})"

    @property
    def exists(self) -> bool:
        """Whether there is a file or a program of that name."""
        return self.path.exists()

    @property
    def is_program(self) -> bool:
        """As Ansible tells the two apart: what can be run is run."""
        return self.path.is_file() and os.access(self.path, os.X_OK)

    def read(self) -> bytes:
        """The key."""
        # Sites are worked on in parallel; a program that asks a person must ask once.
        with self._mutex:
            if self._known is None:
                forbid_core_dumps()
                self._known = self._ask_once() if self.is_program else self._read_file()
            return self._known

    def forget(self) -> None:
        """Read a key file anew next time: it may hold another key. A program that answered is not asked twice."""
        with self._mutex:
            self._failed = ""
            if not self.is_program:
                self._known = None

    def refuse_weak(self) -> None:
        """Before a store is locked with it: the format's rounds would not protect a short word from being guessed."""
        if len(self.read()) < LEAST_BYTES:
            raise StoreKeyError(
                f"the key that {self.path} holds or says is {len(self.read())} bytes long: that can be guessed. Let it "
                f"be {LEAST_BYTES} or more random ones as text, for example from: openssl rand -base64 48"
            )

    def make(self) -> bool:
        """Make the key file unless it is there; whether it was made now."""
        if self.exists:
            return False
        parent = self.path.parent
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.clean()
            temporary = parent / f".{self.path.name}.{random.token_hex(4)}.new"
            try:
                write_durable(temporary, f"{random.token_urlsafe(RANDOM_BYTES)}\n".encode(), 0o600)
                # A link fails when the name is taken: of two that come first at once, one key wins and both use it.
                with contextlib.suppress(FileExistsError):
                    os.link(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(parent)
        except OSError as exc:
            raise StoreKeyError(
                f"the key of the key store cannot be made at {self.path}: {exc.strerror or exc}. No key was lost. "
                "Free space, or name another place in key_store_key of the plan, then run again."
            ) from exc
        return True

    def clean(self) -> None:
        """Remove what a crash left of `make`: it may be a second name of the key."""
        for left in self.path.parent.glob(f".{self.path.name}.*.new"):
            left.unlink()

    def _read_file(self) -> bytes:
        try:
            mode = self.path.stat().st_mode & 0o777
            if mode & 0o077:
                raise StoreKeyError(
                    f"the key of the key store {self.path} has mode {mode:04o}: others could read it. "
                    f"Run: chmod 0600 {self.path}"
                )
            found = self.path.read_bytes().strip()
        except FileNotFoundError as exc:
            raise StoreKeyError(
                f"the key of the key store {self.path} is missing. Without it no key in the store can be read. Restore "
                "it from where you keep its copy, or name the right place in key_store_key of the plan."
            ) from exc
        except OSError as exc:
            raise StoreKeyError(f"the key of the key store {self.path} cannot be read: {exc.strerror or exc}.") from exc
        if not found:
            raise StoreKeyError(f"the key of the key store {self.path} is empty. Restore it from its copy.")
        return found

    def _ask_once(self) -> bytes:
        """A program that does not answer would be waited for once per site of a run."""
        if self._failed:
            raise StoreKeyError(self._failed)
        try:
            return self._ask()
        except StoreKeyError as exc:
            self._failed = str(exc)
            raise

    def _ask(self) -> bytes:
        """Run the program; one whose name ends in -client is told which key is wanted, as Ansible does."""
        command = [str(self.path)]
        if self.path.stem.endswith("-client"):
            command += ["--vault-id", VAULT_ID]
        where = f"the program for the key of the key store {self.path}"
        try:
            # Without a terminal, on which several processes of one run would ask at once and wait for an answer.
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=SCRIPT_SECONDS,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise StoreKeyError(
                f"{where} gave no answer within {SCRIPT_SECONDS} s. Run it by hand to see why."
            ) from None
        except OSError as exc:
            raise StoreKeyError(
                f"{where} cannot be run: {exc.strerror or exc}. If it is a key file and no program, run: "
                f"chmod 0600 {self.path}"
            ) from exc
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[:BEST_TEXT] or "nothing"
            raise StoreKeyError(f"{where} ended with status {done.returncode} and said: {said}")
        # As Ansible does, so that `ansible-vault` opens the same files: of a program's words only the line's end goes.
        found = done.stdout.strip(b"\r\n")
        if not found.strip():
            raise StoreKeyError(f"{where} ended well but printed no key. Run it by hand to see why.")
        return found


def forbid_core_dumps() -> None:
    """From here on this process holds keys: if it crashes, its memory must not be written to a file."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
