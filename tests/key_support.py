# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key stores for tests."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from ansible.parsing import vault

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def new_store(directory: Path) -> KeyStore:
    """A store below a directory, its own key beside it. Nothing is made yet."""
    return KeyStore(path=directory / "store", key=directory / "store.key")


def in_the_clear(*, store: KeyStore, directory: Path) -> None:
    """What the real openvpn reads: the newest keys of all gateways and sites as plain files."""
    for file in sorted((store.path / "gateways").glob("*.vault")):
        gateway = store.gateway_key(name=file.stem)
        own = directory / "gateways" / file.stem
        own.mkdir(parents=True, mode=0o700)
        (own / "cert.pem").write_text(gateway.certificate)
        _write_secret(own / "key.pem", gateway.private_key.reveal())
        (directory / "ca.pem").write_text(gateway.ca)
        (directory / "crl.pem").write_text(gateway.crl)
        _write_secret(directory / "server-tls-crypt-v2.pem", gateway.server_key.reveal())
    for site in store.index():
        key = store.site_key(site=site)
        own = directory / "sites" / site / str(key.epoch)
        own.mkdir(parents=True, mode=0o700)
        (own / "cert.pem").write_text(key.certificate)
        _write_secret(own / "key.pem", key.private_key.reveal())
        _write_secret(own / "psk.pem", key.psk.reveal())


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def quick_vault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault format with one round of its key derivation in place of 10,000: the tests are of something else."""

    def derive(password: bytes, salt: bytes, key_length: int, iv_length: int) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", password, salt, 1, 2 * key_length + iv_length)

    monkeypatch.setattr(vault.VaultAES256, "_create_key_cryptography", staticmethod(derive))
