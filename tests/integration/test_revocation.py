# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stolen box is shut out by both gateways, as its own client proves; a leaked key is replaced in one run."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.certificates import crl_serials
from integration.labtools import (
    INVENTORY,
    daemon_pids,
    fleet,
    fleet_of,
    newest_keys,
    on,
    owner,
    playbook,
    status,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SITES = 4
STOLEN, LEAKED = "site-0003", "site-0002"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.usefixtures("lab_goes_off"),
    pytest.mark.timeout(1200),
]


@pytest.fixture(scope="module", autouse=True)
def running_fleet() -> Iterator[None]:
    """Shared by all tests here."""
    with fleet_of(SITES):
        yield


def verdicts() -> dict[str, str]:
    return {site["id"]: site["verdict"] for site in status()["sites"]}


def refusals(gateway: str) -> int:
    said = on(gateway, "journalctl --boot --no-pager --output=cat").output
    return said.count(f"tunnel-verify: refused site={STOLEN} ")


def wait_refused(gateway: str, *, more_than: int, seconds: float = 40) -> int:
    """The box tries again and again; that it is refused once more says that it tried this gateway."""
    deadline = time.monotonic() + seconds
    while (found := refusals(gateway)) <= more_than and time.monotonic() < deadline:
        time.sleep(1)
    assert found > more_than, f"{gateway} has refused the box {found} times and not once more in {seconds:.0f} s"
    return found


def test_a_site_of_the_registry_is_not_revoked_and_nothing_is_touched() -> None:
    refused = playbook("revoke_site.yml", "-e", f"site={STOLEN}", "-e", "reason=stolen")
    assert refused.status != 0
    assert f"{STOLEN} is in the registry" in " ".join(refused.output.split())
    assert refused.changed == {}
    assert set(verdicts().values()) == {"up"}


def test_a_stolen_box_is_shut_out_by_both_gateways_and_nobody_else_notices() -> None:
    registry = INVENTORY / "sites.csv"
    text = registry.read_text(encoding="utf-8")
    before, pids = owner(), daemon_pids()
    index = json.loads((INVENTORY / "keystore" / "index" / f"{STOLEN}.json").read_text(encoding="utf-8"))["epochs"]
    certificate_serial = int(index[str(max(map(int, index)))]["certificate_serial"], 16)
    since = {site["id"]: site["since"] for site in status()["sites"]}
    without = [line for line in text.splitlines(keepends=True) if not line.startswith(STOLEN)]
    registry.write_text("".join(without), encoding="utf-8")
    try:
        done = playbook("revoke_site.yml", "-e", f"site={STOLEN}", "-e", "reason=stolen")
        assert done.status == 0, done.output[-3000:]
        # A session of a site without a line would be a problem of its own.
        assert [one for one in status()["problems"] if STOLEN in one] == []
        after = {site["id"]: site["since"] for site in status()["sites"]}
        assert after == {site: since[site] for site in since if site != STOLEN}
        assert daemon_pids() == pids

        count = wait_refused(before, more_than=0)
        # Its certificate is on the list that both gateways have.
        for name in ("gw1", "gw2"):
            listed = on(name, "cat /etc/openvpn/server/crl.pem").output
            assert certificate_serial in crl_serials(crl=listed)
            assert STOLEN not in on(name, "ls /etc/openvpn/server/*/ccd").output

        moved = playbook("failover.yml")
        assert moved.status == 0, moved.output[-3000:]
        other = owner()
        assert other != before
        wait_refused(other, more_than=0)
        assert {verdict for site, verdict in verdicts().items() if site != STOLEN} == {"up"}
        assert count > 0

        again = playbook("revoke_site.yml", "-e", f"site={STOLEN}", "-e", "reason=stolen")
        assert (again.status, again.changed) == (0, {})
    finally:
        registry.write_text(text, encoding="utf-8")


def test_a_run_of_the_gateways_lets_no_revoked_key_in_again() -> None:
    before = on(owner(), "ls /etc/openvpn/server/denied").output.split()
    assert playbook("gateways.yml").status == 0
    assert on(owner(), "ls /etc/openvpn/server/denied").output.split() == before
    assert before


def test_a_box_that_comes_back_gets_another_key() -> None:
    # Its line is there again, so the run before has made it one.
    epoch, state = newest_keys()[STOLEN]
    assert state == "issued"
    back = playbook("site.yml")
    assert back.status == 0, back.output[-5000:]
    assert newest_keys()[STOLEN] == (epoch, "confirmed")
    assert set(verdicts().values()) == {"up"}
    assert playbook("site.yml").changed == {}


def test_a_leaked_key_is_replaced_in_one_run() -> None:
    pids = daemon_pids()
    before = {site["id"]: site["epoch"] for site in status()["sites"]}
    order = (
        "revoke_site.yml",
        "-e",
        f"site={LEAKED}",
        "-e",
        f"reason='leaked {time.time():.0f}'",
        "-e",
        "emergency=true",
    )
    done = playbook(*order)
    assert done.status == 0, done.output[-5000:]
    assert newest_keys()[LEAKED] == (before[LEAKED] + 1, "confirmed")
    assert {site["id"]: site["epoch"] for site in status()["sites"]} == {**before, LEAKED: before[LEAKED] + 1}
    assert fleet("status").status == 0
    assert daemon_pids() == pids
    again = playbook(*order)
    assert (again.status, again.changed) == (0, {})
    checked = fleet("ledger", "verify")
    assert checked.status == 0, checked.output
