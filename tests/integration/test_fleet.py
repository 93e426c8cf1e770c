# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way on real hosts, in the order of a fleet's life. Each test goes on where the one before it ended."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import open_store
from integration.labtools import (
    INVENTORY,
    PLAN,
    ROOT,
    daemon_pids,
    fleet,
    forget_fleet,
    lab,
    on,
    owner,
    playbook,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import SiteKey

SITES = 8
REGISTRY = INVENTORY / "sites.csv"
LOCK = INVENTORY / "lab.lock.json"
KEY_STORE = INVENTORY / "keystore"
NEW_LAN = "10.203.77.0/24"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module", autouse=True)
def empty_fleet() -> Iterator[None]:
    """Hosts as new, nothing recorded, no key made: the first run must be a first run."""
    forget_fleet()
    up = lab("up", "--sites", str(SITES))
    assert up.status == 0, up.output
    yield
    if os.environ.get("SPOKEWRIGHT_KEEP_LAB") is None:
        forget_fleet()


def site_lans() -> dict[str, str]:
    """Each site's first LAN, as the plan has it."""
    plan = json.loads(fleet("plan", "--format", "json").output)
    return {site["id"]: site["lans"][0] for site in plan["sites"]}


def answering_address(lan: str) -> str:
    """The address in a lab LAN that answers."""
    return lan.rpartition(".")[0] + ".1"


def key_lines() -> set[str]:
    """Every line of every private key, out of the opened store: none of them may ever be printed."""
    if not KEY_STORE.exists():
        return set()
    loaded = load_fleet(plan_file=PLAN)
    store = open_store(loaded.plan)
    secrets = [part for site in store.index() for part in _secret_parts(store.site_key(site=site))]
    for gateway in loaded.plan.gateways:
        key = store.gateway_key(name=gateway.name)
        secrets += [key.private_key.reveal(), key.server_key.reveal()]
    secrets.append(loaded.plan.key_store_key.read_text(encoding="ascii"))
    lines = {line.strip() for text in secrets for line in text.splitlines()}
    return {line for line in lines if len(line) > 40 and not line.startswith("-----")}


def _secret_parts(key: SiteKey) -> list[str]:
    return [key.private_key.reveal(), key.psk.reveal()]


def assert_no_secret(output: str) -> None:
    assert "PRIVATE KEY" not in output
    assert "tls-crypt-v2 client key" not in output
    assert "tls-crypt-v2 server key" not in output
    leaked = [line for line in key_lines() if line in output]
    assert not leaked, f"{len(leaked)} lines of keys in the output"


def test_check_before_the_first_run_tells_what_it_would_do_and_does_nothing() -> None:
    run = playbook("site.yml", "--check", "--diff")

    assert run.status == 0, run.output
    assert run.recap["gw1"].changed > 0
    assert run.recap["gw2"].changed > 0
    assert all(run.recap[f"site-{number:04}"].changed >= 1 for number in range(1, SITES + 1)), run.output
    assert not LOCK.exists()
    assert not KEY_STORE.exists()
    assert on("gw1", "ls /etc/openvpn/server /etc/systemd/network").output.split() == [
        "/etc/openvpn/server:",
        "/etc/systemd/network:",
    ]
    assert on("site-0001", "test -e /etc/spokewright").status != 0
    assert_no_secret(run.output)


def test_the_first_run_brings_every_site_up_and_shows_no_secret() -> None:
    run = playbook("site.yml", "--diff", "-vvv")

    assert run.status == 0, run.output[-5000:]
    assert len(key_lines()) > 10 * SITES, "the search would find nothing because it looks for nothing"
    assert_no_secret(run.output)
    report = status()
    assert report["summary"]["up"] == report["summary"]["total"] == SITES
    assert report["summary"]["well"] is True
    assert fleet("status").status == 0


def test_every_lan_answers_core1_and_one_lan_reaches_another() -> None:
    lans = {site: answering_address(lan) for site, lan in site_lans().items()}

    silent = [site for site, address in lans.items() if on("core1", f"ping -c 1 -W 2 {address}").status != 0]

    assert silent == []
    there = on("site-0001", f"ping -c 1 -W 2 -I {lans['site-0001']} {lans['site-0008']}")
    assert there.status == 0, there.output


def test_packets_take_the_tunnel_and_not_the_transport() -> None:
    lans = site_lans()
    gateway = owner()
    address = answering_address(lans["site-0002"])

    via = on(gateway, f"ip -4 route get {address}").output

    assert re.search(r"dev tun\d", via), via


@pytest.mark.parametrize("options", [(), ("--check", "--diff")], ids=["run", "check"])
def test_a_second_run_changes_nothing(options: tuple[str, ...]) -> None:
    pids = daemon_pids()
    since = {site["id"]: site["since"] for site in status()["sites"]}

    run = playbook("site.yml", *options)

    assert run.status == 0, run.output
    assert run.changed == {}, run.output
    assert len(run.recap) >= SITES + 2
    assert daemon_pids() == pids
    assert {site["id"]: site["since"] for site in status()["sites"]} == since


def test_check_tells_the_truth_about_a_changed_lan_and_then_it_happens_to_that_site_alone() -> None:
    lans = site_lans()
    pids = daemon_pids()
    before = {site["id"]: site["since"] for site in status()["sites"]}
    text = REGISTRY.read_text(encoding="utf-8")
    REGISTRY.write_text(text.replace(lans["site-0003"], NEW_LAN), encoding="utf-8")
    on("site-0003", f"ip address add {answering_address(NEW_LAN)}/24 dev lan0")

    said = playbook("site.yml", "--check", "--diff")
    assert said.status == 0, said.output
    assert set(said.changed) >= {"gw1", "gw2"}
    assert "10.203.77.0" in said.output
    assert daemon_pids() == pids
    assert {site["id"]: site["since"] for site in status()["sites"]} == before

    done = playbook("site.yml")
    assert done.status == 0, done.output
    assert daemon_pids() == pids
    deadline = time.monotonic() + 30
    reached = 1
    while reached and time.monotonic() < deadline:
        reached = on("core1", f"ping -c 1 -W 1 {answering_address(NEW_LAN)}").status
    assert reached == 0
    after = {site["id"]: site["since"] for site in status()["sites"]}
    assert {site for site in after if after[site] != before[site]} <= {"site-0003"}
    assert on(owner(), f"ip -4 route show {lans['site-0003']}").output.strip() == ""


def test_one_site_alone_with_limit() -> None:
    run = playbook("site.yml", "--limit", "site-0003")

    assert run.status == 0, run.output
    assert set(run.recap) <= {"site-0003", "localhost"}
    assert run.changed == {}


def _probe(addresses: dict[str, str], seconds: int) -> dict[str, subprocess.Popen[str]]:
    return {
        site: subprocess.Popen(
            [
                *(str(ROOT / "tools" / "lab"), "run", "core1", "--"),
                *("ping", "-D", "-n", "-i", "0.1", "-W", "1", "-w", str(seconds), address),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        for site, address in addresses.items()
    }


def _hole(output: str) -> tuple[float, float]:
    """The longest time without an answer, and the time of the last answer."""
    times = [float(stamp) for stamp in re.findall(r"^\[(\d+\.\d+)\] \d+ bytes from", output, re.MULTILINE)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    return max(gaps, default=float("inf")), times[-1] if times else 0.0


def test_the_owners_death_brings_every_site_back_through_the_other_gateway() -> None:
    dead = owner()
    other = {"gw1": "gw2", "gw2": "gw1"}[dead]
    lans = {site: answering_address(lan) for site, lan in site_lans().items()}
    probes = _probe(lans, 30)
    time.sleep(3)

    assert lab("kill", dead).status == 0

    outputs = {site: probe.communicate(timeout=60)[0] for site, probe in probes.items()}
    ended = time.time()
    holes = {site: _hole(output) for site, output in outputs.items()}
    for site, (hole, _last) in sorted(holes.items()):
        print(f"{site}: {hole:.2f} s without an answer after the death of {dead}")  # noqa: T201 - the measured figures
    assert [site for site, (_hole_, last) in holes.items() if last < ended - 5] == [], "some site never came back"
    assert all(1 < hole < 20 for hole, _last in holes.values()), holes
    report = status()
    assert {site["gateway"] for site in report["sites"]} == {other}
    assert report["summary"]["up"] == SITES
    assert report["summary"]["well"] is False
    assert any(problem.startswith(f"{dead} cannot be asked") for problem in report["problems"])


def test_nothing_touches_the_owner_while_its_peer_is_dead() -> None:
    alive = owner()
    pids = daemon_pids()

    run = playbook("gateways.yml")

    assert run.status != 0
    said = " ".join(run.output.split())
    assert f"cannot be reached or is not fit to be a gateway (see above), so {alive} stays as it is" in said
    assert daemon_pids() == pids

    alone = playbook("gateways.yml", "-e", "gateways_alone=true")
    assert alone.recap[alive].failed == 0, alone.output
    assert alone.changed == {}
    assert daemon_pids() == pids


def test_the_dead_gateway_returns_as_standby_and_nothing_moves() -> None:
    alive = owner()
    dead = {"gw1": "gw2", "gw2": "gw1"}[alive]
    since = {site["id"]: site["since"] for site in status()["sites"]}

    assert lab("boot", dead).status == 0
    deadline = time.monotonic() + 60
    while not status()["summary"]["well"] and time.monotonic() < deadline:
        time.sleep(1)

    report = status()
    assert report["summary"]["well"] is True, report["problems"]
    assert owner() == alive
    assert {site["id"]: site["since"] for site in report["sites"]} == since
    assert playbook("site.yml").changed == {}


def test_a_dead_site_is_named_and_the_others_are_served() -> None:
    assert lab("kill", "site-0004").status == 0

    run = playbook("sites.yml")

    assert run.status != 0
    assert run.recap["site-0004"].failed + run.recap["site-0004"].unreachable == 1
    assert all(line.failed + line.unreachable == 0 for host, line in run.recap.items() if host != "site-0004"), (
        run.output
    )
    assert lab("boot", "site-0004").status == 0
    deadline = time.monotonic() + 60
    while status()["summary"]["up"] < SITES and time.monotonic() < deadline:
        time.sleep(1)
    assert playbook("sites.yml").changed == {}


def test_a_wrong_host_key_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    text = REGISTRY.read_text(encoding="utf-8")
    pinned = next(row.split(",")[3] for row in text.splitlines() if row.startswith("site-0005,"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    foreign = " ".join((tmp_path / "key.pub").read_text(encoding="utf-8").split()[:2])
    try:
        REGISTRY.write_text(text.replace(pinned, foreign), encoding="utf-8")
        run = playbook("site.yml", "--limit", "site-0005")
    finally:
        REGISTRY.write_text(text, encoding="utf-8")

    assert run.status != 0
    assert len(set(re.findall(r"SHA256:[A-Za-z0-9+/]{43}", run.output))) == 2, run.output
    assert playbook("sites.yml").changed == {}


def test_a_broken_registry_never_becomes_an_empty_fleet() -> None:
    text = REGISTRY.read_text(encoding="utf-8")
    try:
        REGISTRY.write_text(text + "site-0002,nowhere,198.18.1.300,,10.200.0.0/24,\n", encoding="utf-8")
        run = playbook("site.yml")
    finally:
        REGISTRY.write_text(text, encoding="utf-8")

    assert run.status != 0
    assert "sites.csv:10: id:" in run.output
    assert "sites.csv:10: group:" in run.output
    assert run.recap == {}


def test_a_new_site_joins_without_disturbing_the_others() -> None:
    pids = daemon_pids()
    before = {site["id"]: (site["since"], site["tunnel_address"]) for site in status()["sites"]}
    assert lab("up", "--sites", str(SITES + 1)).status == 0

    run = playbook("site.yml")

    assert run.status == 0, run.output
    report: dict[str, Any] = status()
    after = {site["id"]: (site["since"], site["tunnel_address"]) for site in report["sites"]}
    assert report["summary"]["up"] == SITES + 1
    assert {site: after[site] for site in before} == before
    assert daemon_pids() == pids
