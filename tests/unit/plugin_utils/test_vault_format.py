# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The format is Ansible's own: its command opens our files, and we open its."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import vault_format as v
from key_support import new_store

if TYPE_CHECKING:
    from pathlib import Path


def run_vault(*words: object) -> str:
    done = subprocess.run(["ansible-vault", *map(str, words)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ansible_vault_opens_every_file_of_the_store(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=["site-0001"])
    files = sorted(store.path.rglob("*.vault"))
    assert [path.name for path in files] == ["ca.key.vault", "gw1.vault", "server-tls-crypt-v2.vault", "1.vault"]
    # One command for all: it takes a second to start.
    shown = run_vault("view", "--vault-password-file", tmp_path / "store.key", *files)
    key, gateway = store.site_key(site="site-0001"), store.gateway_key(name="gw1")
    for secret in (key.psk, key.private_key, gateway.private_key, gateway.server_key):
        for line in secret.reveal().splitlines():
            assert line in shown
    assert shown.count("PRIVATE KEY") == 6


def test_we_open_what_ansible_vault_made_with_a_named_key(tmp_path: Path) -> None:
    plain, key = tmp_path / "plain", tmp_path / "key"
    plain.write_text("hello\n")
    key.write_text("secret\n")
    run_vault("encrypt", "--vault-id", f"fleet@{key}", "--output", tmp_path / "sealed", plain)
    assert v.decrypt(text=(tmp_path / "sealed").read_text(), secret=b"secret") == "hello\n"


def test_two_files_of_the_same_text_are_different(monkeypatch: pytest.MonkeyPatch) -> None:
    # A setting of Ansible can take the salt from outside; ours stays random.
    monkeypatch.setenv("ANSIBLE_VAULT_ENCRYPT_SALT", "always-the-same")
    assert v.encrypt(text="x", secret=b"k") != v.encrypt(text="x", secret=b"k")


def test_another_secret_is_told_from_a_damaged_file() -> None:
    sealed = v.encrypt(text="hello", secret=b"right")
    assert v.decrypt(text=sealed, secret=b"right") == "hello"
    with pytest.raises(v.WrongSecretError, match="does not open it"):
        v.decrypt(text=sealed, secret=b"wrong")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.splitlines()[0] + "\n",
        lambda text: text.replace("AES256", "ROT13"),
        lambda text: text[:-20] + "zz" + text[-18:],
        lambda _: "hello",
        lambda _: "",
    ],
)
def test_a_damaged_file_is_an_error_of_ours_that_quotes_nothing(damage: Any) -> None:
    sealed = damage(v.encrypt(text="hello", secret=b"right"))
    with pytest.raises(v.VaultFormatError, match=r"^(it is no|it is not in|this key does not)") as caught:
        v.decrypt(text=sealed, secret=b"right")
    assert caught.value.__cause__ is None


def test_derived_keys_do_not_stay_in_memory() -> None:
    from ansible.parsing.vault import VaultAES256  # noqa: PLC0415

    v.decrypt(text=v.encrypt(text="x", secret=b"k"), secret=b"k")
    assert VaultAES256._gen_key_initctr.cache_info().currsize == 0
