# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/key-custody.md promises: files open without us, and its program for a secret manager works as printed."""

from __future__ import annotations

import json
import re
import subprocess
import typing as t
from pathlib import Path

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "key-custody.md").read_text(encoding="utf-8")


def view(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ansible-vault", "view", *words], capture_output=True, text=True, check=False, cwd=ROOT)


def layout() -> list[str]:
    """The names that the document says lie in the store."""
    block = t.cast("re.Match[str]", re.search(r"The first run makes it:\n\n((?: {4}.*\n)+)", TEXT))[1]
    return re.findall(r"[A-Za-z0-9./-]+", "\n".join(line[4:34] for line in block.splitlines()))


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    store = KeyStore(path=tmp_path / "store", key=tmp_path / "store.key")
    store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=["site-0003"])
    return store


def test_what_lies_in_the_store_is_what_the_document_says(store: KeyStore) -> None:
    found = {
        re.sub(r"\b(site-0003|gw1)\b", lambda match: "ID" if match[0] == "site-0003" else "NAME", str(path))
        for path in (path.relative_to(store.path) for path in store.path.rglob("*") if path.is_file())
    }
    named = {"gateways/NAME.pem" if name == "NAME.pem" else name for name in layout()}
    assert {name.replace("/1.vault", "/EPOCH.vault") for name in found} == named


def test_a_file_of_the_store_opens_with_ansible_s_own_tool(store: KeyStore, tmp_path: Path) -> None:
    done = view("--vault-password-file", str(tmp_path / "store.key"), str(store.path / "sites/site-0003/1.vault"))
    key = store.site_key(site="site-0003")
    found = json.loads(done.stdout)
    assert (found["private_key"], found["psk"]) == (key.private_key.reveal(), key.psk.reveal())


def test_the_program_for_a_secret_manager_works_as_printed(
    store: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "fleet-key-client"
    program.write_text(t.cast("re.Match[str]", re.search(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))[1])
    program.chmod(0o700)
    moved = tmp_path / "in the manager"
    (tmp_path / "store.key").rename(moved)
    manager = tmp_path / "bin" / "vault"
    manager.parent.mkdir()
    manager.write_text(
        '#!/bin/sh\n[ "$*" = "kv get -mount=secret -field=key fleet/keystore" ] && [ -n "$VAULT_ADDR" ] || exit 3\n'
        f'exec cat "{moved}"\n'
    )
    manager.chmod(0o700)
    monkeypatch.setenv("PATH", f"{manager.parent}:/usr/bin:/bin:{ROOT / '.venv' / 'bin'}")

    assert KeyStore(path=store.path, key=program).site_key(site="site-0003").site == "site-0003"
    shown = view("--vault-id", f"spokewright@{program}", str(store.path / "ca.key.vault"))
    assert shown.stdout.startswith("-----BEGIN PRIVATE KEY-----"), shown.stderr
    other = view("--vault-id", f"another@{program}", str(store.path / "ca.key.vault"))
    assert "PRIVATE" not in other.stdout
