# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of the store in the hands of the real openvpn: a whole handshake, cookie and metadata included."""

from __future__ import annotations

import socket
import subprocess
import time
from typing import TYPE_CHECKING, Literal

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle
from delivery_support import site_of
from key_support import in_the_clear, new_store

if TYPE_CHECKING:
    from pathlib import Path


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(path: Path, text: str, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        said = path.read_text() if path.exists() else ""
        if text in said:
            return said
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"no {text!r} in:\n{path.read_text()}")


@pytest.mark.parametrize("key_type", ["p256", "ed25519"])
def test_openvpn_shakes_hands_with_what_the_store_made(tmp_path: Path, key_type: Literal["p256", "ed25519"]) -> None:
    store = tmp_path / "plain"
    made = new_store(tmp_path)
    made.ensure(fleet="lab", key_type=key_type, gateways=["gw1"], sites=["site-0001"])
    in_the_clear(store=made, directory=store)
    port = free_port()
    script = tmp_path / "verify.sh"
    script.write_text('#!/bin/sh\nread -r line <"$metadata_file"\necho "METADATA $metadata_type $line"\n')
    script.chmod(0o700)
    gateway, own = store / "gateways/gw1", store / "sites/site-0001/1"
    server_log, client_log = tmp_path / "server.log", tmp_path / "client.log"
    server = f"""--dev null --tls-server --dh none --verb 3 --keepalive 1 5 --local 127.0.0.1 --port {port} --proto udp4
        --ca {store}/ca.pem --cert {gateway}/cert.pem --key {gateway}/key.pem --crl-verify {store}/crl.pem
        --tls-crypt-v2 {store}/server-tls-crypt-v2.pem force-cookie --tls-crypt-v2-verify {script}
        --script-security 2 --remote-cert-tls client"""
    client = f"""--dev null --tls-client --nobind --verb 3 --remote 127.0.0.1 {port} udp4 --remote-cert-tls server
        --ca {store}/ca.pem --cert {own}/cert.pem --key {own}/key.pem --tls-crypt-v2 {own}/psk.pem"""
    running = []
    try:
        for words, log in ((server, server_log), (client, client_log)):
            with log.open("wb") as sink:
                running.append(subprocess.Popen(["openvpn", *words.split()], stdout=sink, stderr=sink))
        wait_for(client_log, "Initialization Sequence Completed", running[1])
        said = wait_for(server_log, "Initialization Sequence Completed", running[0])
    finally:
        for process in running:
            process.terminate()
            process.wait(timeout=20)
    assert "METADATA 0 v=1 site=site-0001 kid=" in said
    assert "CN=site-0001" in said
    assert "CN=gw1" in client_log.read_text()


def test_openvpn_takes_every_line_of_the_rendered_configuration(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=["site-0001"])
    key = store.site_key(site="site-0001")
    for name, text in {
        "ca.crt": key.ca,
        "site.crt": key.certificate,
        "site.key": key.private_key.reveal(),
        "psk.key": key.psk.reveal(),
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    config = bundle.render_config(site=site_of(remotes=[("internet", "127.0.0.1", free_port())]))
    config = config.replace(bundle.DIRECTORY, str(tmp_path)).replace("dev hub0\ndev-type tun", "dev null")
    (tmp_path / "client.conf").write_text(config)
    log = tmp_path / "client.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(["openvpn", "--config", str(tmp_path / "client.conf")], stdout=sink, stderr=sink)
    try:
        said = wait_for(log, "UDPv4 link remote", process)
    finally:
        process.terminate()
        process.wait(timeout=20)
    assert "DEPRECATED" not in said
    assert "WARNING" not in said
