# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key stores for tests: real ones, copied from one that is made once, and a process that is killed at its nth step."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import tempfile
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.parsing import vault

from ansible_collections.spokewright.fleet.plugins.plugin_utils import vault_format
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
from breaking import fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SITES = ("site-0001", "site-0002")
GATEWAYS = ("gw1",)
# What changes a disk.
STEPS = ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "ftruncate")


@functools.cache
def _made(_derivation: str) -> Path:
    home = Path(tempfile.mkdtemp(prefix="spokewright-store-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    store = KeyStore(path=home / "keystore", key=home / "keystore.key")
    store.ensure(fleet="test", key_type="p256", gateways=GATEWAYS, sites=SITES)
    store.regenerate(sites=["site-0002"], key_type="p256", reason="a second epoch")
    return home


def store_in(folder: Path) -> KeyStore:
    """A store of two sites, one of which has two keys."""
    # With quick_vault() another one: neither opens the other's files.
    made = _made(vault.VaultAES256._create_key_cryptography.__qualname__)
    # Without the record of who made it: that process still runs, and would keep a forked one out.
    shutil.copytree(made / "keystore", folder / "keystore", ignore=shutil.ignore_patterns("operation.json"))
    shutil.copy(made / "keystore.key", folder / "keystore.key")
    return KeyStore(path=folder / "keystore", key=folder / "keystore.key")


def reopened(store: KeyStore) -> KeyStore:
    """The same as another process sees it."""
    return KeyStore(path=store.path, key=store.key.path)


def vaults(store: KeyStore) -> list[Path]:
    """Every encrypted file."""
    return sorted(store.path.rglob("*.vault"))


def opens(path: Path, key: Path) -> bool:
    """Whether a key file opens an encrypted file."""
    try:
        vault_format.decrypt(text=path.read_text(), secret=key.read_bytes().strip())
    except vault_format.VaultFormatError:
        return False
    return True


def secrets_of(store: KeyStore) -> dict[str, tuple[str, str]]:
    """Everything a restore or a new own key must not lose."""
    return {
        f"{site}/{epoch}": (key.psk.reveal(), key.private_key.reveal())
        for site in SITES
        for epoch in store.epochs(site=site)
        for key in [store.site_key(site=site, epoch=epoch)]
    }


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do the work in a process that is killed before its nth change of the disk; whether it came that far."""
    pid = fork()
    if pid == 0:
        code = 1
        try:
            with _dying(step):
                work()
            code = 0
        except BaseException:  # noqa: BLE001 - a forked test must not go on as a second pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@contextlib.contextmanager
def _dying(step: int) -> Iterator[None]:
    left = [step]
    mutex = threading.Lock()

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            with mutex:
                left[0] -= 1
                if left[0] <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))
    yield
