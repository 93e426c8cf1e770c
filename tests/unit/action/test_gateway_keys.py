# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""gateway_keys as a play runs it, on a real connection to this host, with a directory as the gateway."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

ROOT = Path(__file__).resolve().parents[3]
NAMES = ["ca.crt", "gateway.crt", "gateway.key", "tls-crypt-v2.key"]


class Gateway:
    """A key store, and a directory that is the gateway's."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self.root = where / "gateway"
        self.root.mkdir()
        self.store = KeyStore(path=where / "store", key=where / "store.key")
        self.variables: dict[str, t.Any] = {}
        self.said = ""

    def make_keys(self, *gateways: str) -> None:
        self.store.ensure(fleet="lab", key_type="p256", gateways=gateways or ("gw1",), sites=[])

    def run(self, *options: str, **changed: t.Any) -> dict[str, t.Any]:
        """The task's result, and in `said` all that Ansible printed."""
        arguments = {
            "key_store": str(self.store.path),
            "key_store_key": str(self.where / "store.key"),
            "gateway": "gw1",
            "directory": str(self.root / "material"),
            "crl": str(self.root / "crl.pem"),
        }
        keep = {"content": "{{ keys | to_json }}", "dest": str(self.where / "result.json"), "mode": "0600"}
        tasks = [
            {
                "spokewright.fleet.gateway_keys": arguments | changed,
                "vars": self.variables,
                "register": "keys",
                "ignore_errors": True,
            },
            {"ansible.builtin.copy": keep, "check_mode": False, "diff": False},
        ]
        play = {"hosts": "all", "gather_facts": False, "tasks": tasks}
        (self.where / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
        done = subprocess.run(
            ["ansible-playbook", "-i", "localhost,", "-c", "local", *options, str(self.where / "play.yml")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=120,
        )
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, self.said
        result: dict[str, t.Any] = json.loads((self.where / "result.json").read_text(encoding="utf-8"))
        return result

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def secrets(self) -> list[str]:
        """Every line of the keys that are secret, as it would show up in an output."""
        key = self.store.gateway_key(name="gw1")
        texts = [key.private_key.reveal(), key.server_key.reveal(), self.store_key()]
        return [line for text in texts for line in text.splitlines() if len(line) > 20 and not line.startswith("--")]

    def store_key(self) -> str:
        return (self.where / "store.key").read_text(encoding="utf-8")


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def test_the_first_run_brings_the_keys_and_the_second_changes_nothing(gateway: Gateway) -> None:
    gateway.make_keys()
    first = gateway.run()
    key = gateway.store.gateway_key(name="gw1")
    assert (first["changed"], first["brought"]) == (True, [*NAMES, "crl"])
    assert first["directory"] == str(gateway.root / "material" / first["digest"])
    assert min(first["certificate_days"], first["crl_days"]) > 365
    where = f"material/{first['digest']}"
    assert gateway.files() == {
        f"{where}/ca.crt": key.ca.encode(),
        f"{where}/gateway.crt": key.certificate.encode(),
        f"{where}/gateway.key": key.private_key.reveal().encode(),
        f"{where}/tls-crypt-v2.key": key.server_key.reveal().encode(),
        "crl.pem": key.crl.encode(),
    }
    before = {path: path.stat().st_mtime_ns for path in gateway.root.rglob("*")}
    second = gateway.run()
    assert (second["changed"], second["brought"], second["digest"]) == (False, [], first["digest"])
    assert {path: path.stat().st_mtime_ns for path in gateway.root.rglob("*")} == before


@pytest.mark.parametrize("pipelining", ["true", "false"])
def test_it_works_with_pipelining_and_without(gateway: Gateway, pipelining: str) -> None:
    gateway.make_keys()
    assert gateway.run("-e", f"ansible_pipelining={pipelining}")["changed"]
    assert gateway.run("-e", f"ansible_pipelining={pipelining}")["changed"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else without a password")
def test_it_works_with_become(gateway: Gateway) -> None:
    gateway.make_keys()
    # Not below pytest's own directory, which nobody else may enter.
    with tempfile.TemporaryDirectory() as public:
        gateway.root = Path(public)
        os.chown(public, 65534, 65534)
        how = {"method": "su", "user": "nobody", "flags": "-s /bin/sh"}
        become = {"ansible_become": True} | {f"ansible_become_{name}": value for name, value in how.items()}
        gateway.variables = become
        assert gateway.run()["changed"]
        assert {path.stat().st_uid for path in gateway.root.rglob("*")} == {65534}
        assert gateway.run()["changed"] is False
        gateway.variables = {}
        assert gateway.run()["changed"], "what belongs to somebody else is not right"


def test_check_mode_tells_the_truth_and_sends_nothing(gateway: Gateway) -> None:
    before_the_keys = gateway.run("--check")
    assert (before_the_keys["changed"], before_the_keys["digest"]) == (True, "")
    assert gateway.run("--check", state="checked")["changed"] is False
    assert "gw1: its keys are not made yet" in gateway.said or before_the_keys["msg"].endswith("not made yet")

    gateway.make_keys()
    would = gateway.run("--check", "--diff", "-vvvvv")
    assert (would["changed"], would["brought"], gateway.files()) == (True, [*NAMES, "crl"], {})
    shown = gateway.said
    digest = would["digest"]
    for name in NAMES:
        assert re.search(rf"\+.*material/{digest}/{name} -rw------- sha256:[0-9a-f]{{64}}", shown)
    assert "spokewright.new" not in shown
    assert "die()" not in shown, "the command that writes was not even started"

    gateway.run()
    assert gateway.run("--check")["changed"] is False
    (gateway.root / "crl.pem").write_text("", encoding="ascii")
    would = gateway.run("--check")
    assert (would["changed"], would["brought"]) == (True, ["crl"])
    assert (gateway.root / "crl.pem").read_bytes() == b""
    assert gateway.run()["brought"] == ["crl"]


def test_a_file_that_was_changed_on_the_gateway_is_mended(gateway: Gateway) -> None:
    gateway.make_keys()
    first = gateway.run()
    whole = gateway.files()
    (Path(first["directory"]) / "gateway.key").write_text("not it\n", encoding="ascii")
    mended = gateway.run("--diff")
    assert (mended["changed"], gateway.files()) == (True, whole)
    assert re.search(r"-.*gateway\.key", gateway.said)
    assert re.search(r"\+.*gateway\.key", gateway.said)


def test_no_key_shows_itself_however_much_ansible_says(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway.make_keys()
    log = tmp_path / "ansible.log"
    monkeypatch.setenv("ANSIBLE_DEBUG", "true")
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(log))
    monkeypatch.setenv("ANSIBLE_LOCAL_TEMP", str(tmp_path / "local"))
    monkeypatch.setenv("ANSIBLE_KEEP_REMOTE_FILES", "true")
    monkeypatch.setenv("ANSIBLE_REMOTE_TEMP", str(tmp_path / "remote"))
    result = gateway.run("-vvvvvv", "--diff")
    assert result["changed"]
    assert "sha256sum" in gateway.said, "it did say everything"
    secrets = gateway.secrets()
    assert len(secrets) > 6
    allowed = {gateway.where / "store.key"}
    seen = gateway.said + json.dumps(result)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path not in allowed and gateway.root not in path.parents:
            seen += path.read_text(encoding="utf-8", errors="replace")
    assert [line for line in secrets if line in seen] == []


def test_keys_that_are_not_made_are_an_error_that_says_what_to_do(gateway: Gateway) -> None:
    for state in ("checked", "present"):
        result = gateway.run(state=state)
        assert (result["failed"], "gw1" in result["msg"]) == (True, True), result["msg"]
    assert gateway.files() == {}


def test_a_key_file_that_does_not_open_the_store_is_an_error(gateway: Gateway) -> None:
    gateway.make_keys()
    other = gateway.where / "other.key"
    other.write_text("x" * 43 + "\n", encoding="ascii")
    other.chmod(0o600)
    result = gateway.run(key_store_key=str(other))
    assert result["failed"]
    assert "other.key" in result["msg"]
    assert gateway.files() == {}


def test_a_gateway_on_which_nothing_can_be_written_says_so(gateway: Gateway) -> None:
    gateway.make_keys()
    result = gateway.run(directory=str(gateway.root / "none/material"))
    assert result["failed"]
    assert f"cannot make {gateway.root}/none/material" in result["msg"]
    assert "Check free space and permissions on the gateway" in result["msg"]


def test_a_path_that_is_not_absolute_is_refused(gateway: Gateway) -> None:
    gateway.make_keys()
    result = gateway.run(directory="material")
    assert result["failed"]
    assert "directory: 'material' is no absolute path" in result["msg"]


def test_a_list_that_is_about_to_run_out_is_refused(gateway: Gateway) -> None:
    gateway.make_keys()
    for state in ("checked", "present"):
        result = gateway.run(state=state, crl_minimum_days=100000)
        assert result["failed"]
        assert re.search(r"crl\.pem: good for \d+ more days, and 100000 are asked for", result["msg"])
    assert gateway.files() == {}
