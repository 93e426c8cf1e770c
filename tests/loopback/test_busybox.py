# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host with BusyBox as its only userland takes the whole life, with a tunnel that really comes up."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_transport as ssh
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import Hold
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
from busybox_host import WAN, Host, busybox_host
from delivery_support import site_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.bundle import Bundle
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import GatewayKey

INSIDE = "10.255.77.10"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with busybox_host(tmp_path_factory.mktemp("busybox")) as found:
        yield found


class Keys:
    """The bundles this host is given: one that works, one whose tunnel comes up nowhere, one openvpn refuses."""

    def __init__(self, home: Path) -> None:
        store = KeyStore(path=home / "store", key=home / "store.key")
        store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=["site-0001"])
        self.gateway = store.gateway_key(name="gw1")
        self.good = self._bundle(store)
        self.lost = self._bundle(store, port=9)
        # The name of a transport stands in a comment of the configuration.
        self.refused = self._bundle(store, transport="internet\nno-such-option")
        store.regenerate(sites=["site-0001"], key_type="p256", reason="test")
        self.newer = self._bundle(store)

    def _bundle(self, store: KeyStore, *, transport: str = "internet", port: int = 1194) -> Bundle:
        site = site_of(remotes=[(transport, WAN[0], port)])
        return bundles.build(site=site, key=store.site_key(site="site-0001"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module", autouse=True)
def server(host: Host, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real openvpn server where the host's tunnel leads."""
    home = tmp_path_factory.mktemp("server")
    words = _server(home=home, key=keys.gateway)
    with (home / "log").open("wb") as log:
        running = subprocess.Popen(["ip", "netns", "exec", host.gateway, *words], stdout=log, stderr=log)
    try:
        yield
    finally:
        running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.wait(timeout=10)
        running.kill()


def _server(*, home: Path, key: GatewayKey) -> list[str]:
    texts = {
        "ca": key.ca,
        "cert": key.certificate,
        "key": key.private_key.reveal(),
        "tls-crypt-v2": key.server_key.reveal(),
        "crl-verify": key.crl,
    }
    words = ["openvpn", "--dev", "tun", "--topology", "subnet", "--server", "10.255.77.0", "255.255.255.0"]
    words += ["--local", WAN[0], "--proto", "udp4", "--dh", "none", "--keepalive", "1", "5", "--verb", "3"]
    for option, text in texts.items():
        (home / option).write_text(text)
        (home / option).chmod(0o600)
        words += [f"--{option}", str(home / option)]
    (home / "ccd").mkdir()
    (home / "ccd/site-0001").write_text(f"ifconfig-push {INSIDE} 255.255.255.0\n")
    return [*words, "--client-config-dir", str(home / "ccd"), "--ccd-exclusive", "--remote-cert-tls", "client"]


def do(host: Host, verb: str, bundle: Bundle | None = None, **more: Any) -> SiteResult:
    return delivery.carry_out(order=delivery.Order(target=host.target, verb=verb, bundle=bundle, **more))


def shown(host: Host) -> dict[str, Any]:
    return dict(do(host, "show").receipt)


def settle(host: Host, bundle: Bundle) -> None:
    for verb in ("stage", "activate", "confirm"):
        result = do(host, verb, bundle)
        assert result.ok, result
    assert delivery.settled(shown=shown(host), digest=bundle.digest)


def wait_until_back(host: Host, *, seconds: float) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while (found := shown(host))["pending"] and time.monotonic() < end:
        time.sleep(0.3)
    return found


def test_the_whole_life(host: Host, keys: Keys) -> None:
    assert host.run("for f in /proc/1/exe /bin/sh /bin/tar; do readlink $f; done").split() == ["/usr/bin/busybox"] * 3
    found = shown(host)
    assert (found["init"], found["installed"], found["generations"]) == ("busybox", True, [])
    assert found["openvpn"].startswith("2.")
    assert "busybox" in found["tools"]
    assert found["free_kb"] > 0
    for verb in ("stage", "activate", "confirm"):
        dry = do(host, verb, keys.good, dry_run=True)
        assert (dry.ok, dry.changed) == (True, True), dry
        result = do(host, verb, keys.good)
        assert (result.ok, result.changed) == (True, True), result
        if verb == "activate":
            assert host.pings(INSIDE, seconds=20)
    for verb in ("stage", "activate", "confirm"):
        result = do(host, verb, keys.good)
        assert (result.ok, result.changed) == (True, False), result
    settle(host, keys.newer)
    assert host.pings(INSIDE, seconds=20)
    assert [one["facts"]["epoch"] for one in shown(host)["generations"]] == [1, 2]
    assert do(host, "revert").receipt["current"] == 1
    assert do(host, "revert").changed is False
    assert host.pings(INSIDE, seconds=20)
    forgotten = do(host, "forget", generation="epoch 2")
    assert (forgotten.changed, forgotten.receipt["forgotten"]) == (True, [2])
    assert do(host, "forget", generation="1").reason == "in-use"
    assert host.run("ls /etc/spokewright/generations").split() == ["1"]


def test_a_client_that_died_is_started_again(host: Host, keys: Keys) -> None:
    settle(host, keys.good)
    assert host.pings(INSIDE, seconds=20)
    before = host.run("cat /run/spokewright-client.pid")
    assert "openvpn" in host.run(f"readlink /proc/{before.strip()}/exe")
    host.run(f"kill -9 {before}")
    assert shown(host)["service"] == "inactive"
    assert host.pings(INSIDE, seconds=25)
    assert host.run("cat /run/spokewright-client.pid") != before
    assert shown(host)["service"] == "active"


def test_a_bundle_that_openvpn_refuses_is_left_at_once(host: Host, keys: Keys) -> None:
    settle(host, keys.good)
    assert do(host, "stage", keys.refused).ok
    result = do(host, "activate", keys.refused)
    assert (result.ok, result.reason) == (False, "service-failed"), result
    assert "no-such-option" in result.message
    found = shown(host)
    assert (found["current"], found["pending"], found["service"]) == (found["confirmed"], 0, "active")
    assert host.pings(INSIDE, seconds=20)


def test_a_tunnel_that_does_not_come_up_is_left_when_its_time_is_over(host: Host, keys: Keys) -> None:
    settle(host, keys.good)
    good = shown(host)["current"]
    assert do(host, "stage", keys.lost).ok
    began = time.monotonic()
    activated = do(host, "activate", keys.lost, deadman_seconds=5)
    assert (activated.ok, activated.receipt["pending"]) == (True, activated.receipt["generation"])
    found = wait_until_back(host, seconds=25)
    assert time.monotonic() - began >= 5
    assert (found["current"], found["pending"]) == (good, 0)
    assert found["reverted"] == activated.receipt["generation"]
    assert host.pings(INSIDE, seconds=20)
    assert do(host, "confirm", keys.lost).reason == "not-current"


def test_a_power_cut_in_the_middle_of_probation_ends_on_what_was_confirmed(host: Host, keys: Keys) -> None:
    settle(host, keys.good)
    good = shown(host)["current"]
    assert do(host, "stage", keys.lost).ok
    assert do(host, "activate", keys.lost, deadman_seconds=3600).ok
    assert shown(host)["current"] != good
    host.cut_power()
    assert not host.pings(INSIDE, seconds=1)
    host.boot()
    assert host.pings(INSIDE, seconds=20)
    found = shown(host)
    assert (found["current"], found["pending"], found["service"], found["enabled"]) == (good, 0, "active", True)


def test_a_hold_stays_through_a_power_cut_and_ends_by_release_or_by_itself(host: Host, keys: Keys) -> None:
    settle(host, keys.good)
    assert host.pings(INSIDE, seconds=20)
    held = do(host, "hold", hold=Hold(seconds=3600, by="ann@desk", reason="a storm"))
    assert (held.ok, held.changed, held.receipt["held_by"]) == (True, True, "ann@desk"), held
    assert not host.pings(INSIDE, seconds=1)
    assert do(host, "hold", hold=Hold(seconds=3600, by="ann@desk", reason="a storm")).changed is False
    host.cut_power()
    host.boot()
    assert not host.pings(INSIDE, seconds=8)
    # A boot counts for a minute, and what was not noted of the one before is not in it.
    assert 3400 < shown(host)["held"] <= 3540
    assert do(host, "activate", keys.good).reason == "held"
    assert not host.pings(INSIDE, seconds=1)
    assert do(host, "release").changed
    assert host.pings(INSIDE, seconds=20)
    assert do(host, "release").changed is False
    began = time.monotonic()
    assert do(host, "hold", hold=Hold(seconds=6, by="ann@desk")).ok
    assert host.pings(INSIDE, seconds=30)
    assert time.monotonic() - began > 5
    found = shown(host)
    assert (found["held"], found["service"]) == (0, "active")


def test_where_no_script_runs_the_links_the_init_itself_is_told(host: Host, keys: Keys) -> None:
    settle(host, keys.good)
    host.run("rm /etc/init.d/S60spokewright; sed -i '/S??/d' /etc/init.d/rcS")
    assert shown(host)["enabled"] is False
    settle(host, keys.good)
    assert shown(host)["enabled"] is True
    host.cut_power()
    host.boot()
    assert host.pings(INSIDE, seconds=20)
    assert host.run("grep -c spokewright /etc/inittab").strip() == "1"


def test_a_key_that_arrives_in_half_is_refused(host: Host, keys: Keys) -> None:
    command = delivery.command(user="root", words=("stage", keys.newer.digest))
    cut = delivery.agent_bytes() + keys.newer.archive[:9000]
    answer = ssh.exchange(target=host.target, command=command, stdin=cut)
    assert delivery.read_receipt(site="site-0001", answer=answer)["reason"] == "incomplete"
    assert ".incoming" not in host.run("ls -a /etc/spokewright/generations")
