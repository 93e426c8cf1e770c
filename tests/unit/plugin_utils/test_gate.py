# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A gate passes a site on evidence only, and ends in time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import gate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence, assemble
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gate import wait_for_sites
from unit.plugin_utils.fleet_files import write_fleet
from unit.plugin_utils.pair_evidence import KEYS, VIPS, answer, client, healthy, with_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return load_fleet(plan_file=write_fleet(tmp_path))


def _gate(fleet: Fleet, evidence: Evidence, **different: Any) -> dict[str, tuple[bool, str]]:
    passed = wait_for_sites(
        fleet=fleet, sites=["site-0001"], seconds=0, look=lambda **_asked: evidence, pause=0, **different
    )
    return {site: (one.ok, one.message) for site, one in passed.items()}


def test_the_gate_passes_on_session_address_instance_and_echo(fleet: Fleet) -> None:
    found = _gate(fleet, assemble(fleet=fleet, answers=healthy(fleet)))

    assert found == {"site-0001": (True, "connected to tun0 on gw1 as 10.101.0.16, an echo went through the tunnel")}


def test_the_gate_does_not_pass_a_session_that_carries_no_packet(fleet: Fleet) -> None:
    answers = healthy(fleet)
    gw1 = answers["gw1"]
    assert isinstance(gw1, dict)
    gw1["echoes"] = []

    assert _gate(fleet, assemble(fleet=fleet, answers=answers)) == {
        "site-0001": (False, "connected to tun0 on gw1, but 10.101.0.16 answers no echo through the tunnel")
    }


def test_the_gate_does_not_pass_a_session_older_than_the_activation(fleet: Fleet) -> None:
    # The gateway's clock says that the session is ten seconds old; the activation was two seconds ago.
    evidence = assemble(fleet=fleet, answers=healthy(fleet))

    assert _gate(fleet, evidence, since={"site-0001": time.time() - 2}) == {
        "site-0001": (False, "connected to tun0 on gw1, but by a session older than the activation")
    }
    assert _gate(fleet, evidence, since={"site-0001": time.time() - 60})["site-0001"][0] is True


def test_the_gate_passes_a_site_with_its_newest_key_only(fleet: Fleet) -> None:
    fresh = {"site-0001": time.time() - 60}
    where = "connected to tun0 on gw1"
    assert _gate(fleet, with_key(fleet, "b" * 16, 2), keys=KEYS, since=fresh) == {
        "site-0001": (True, f"{where} as 10.101.0.16 with its key of epoch 2, an echo went through the tunnel")
    }
    assert _gate(fleet, with_key(fleet, "a" * 16, 1), keys=KEYS, since=fresh) == {
        "site-0001": (False, f"{where}, but with its key of epoch 1, and epoch 2 is its newest")
    }
    unnoted = assemble(fleet=fleet, answers=healthy(fleet))
    said = f"{where}, but with a key gw1 did not note (is it built by an older version? run gateways.yml first), and "
    assert _gate(fleet, unnoted, keys=KEYS, since=fresh) == {"site-0001": (False, f"{said}epoch 2 is its newest")}
    # A site that nothing was done to may be connected for longer than the verify script notes keys.
    assert _gate(fleet, unnoted, keys=KEYS)["site-0001"][0] is True


def test_the_gate_looks_again_until_the_site_is_there(fleet: Fleet) -> None:
    looks = [
        assemble(fleet=fleet, answers={"gw1": answer(vips=VIPS, tun0=[], tun1=[])}),
        assemble(fleet=fleet, answers=healthy(fleet)),
    ]
    told: list[tuple[int, int]] = []

    passed = wait_for_sites(
        fleet=fleet,
        sites=["site-0001", "site-0002"],
        seconds=5,
        look=lambda **_asked: looks.pop(0),
        pause=0,
        on_look=lambda done, total: told.append((done, total)),
    )

    assert all(one.ok for one in passed.values())
    assert told == [(0, 2), (2, 2)]


def _slow_gate(fleet: Fleet, **different: Any) -> tuple[float, dict[str, bool]]:
    """A gate of 60 s on sites that never come up, and how long it took."""
    nobody = assemble(fleet=fleet, answers={"gw1": answer(vips=VIPS, tun0=[], tun1=[])})
    began = time.monotonic()
    passed = wait_for_sites(
        **{
            "fleet": fleet,
            "sites": ["site-0001", "site-0002"],
            "seconds": 60,
            "look": lambda **_asked: nobody,
            "pause": 0.05,
            **different,
        }
    )
    return time.monotonic() - began, {site: one.ok for site, one in passed.items()}


def test_the_gate_ends_in_time_to_confirm_the_site_that_was_activated_first(fleet: Fleet) -> None:
    now = time.time()

    took, passed = _slow_gate(fleet, since={"site-0001": now - 89, "site-0002": now}, deadman_seconds=120)

    assert 0.5 < took < 5
    assert passed == {"site-0001": False, "site-0002": False}


def test_a_gate_that_is_over_before_it_begins_still_looks_once(fleet: Fleet) -> None:
    evidence = assemble(fleet=fleet, answers=healthy(fleet))

    assert _gate(fleet, evidence, since={"site-0001": time.time() - 600}, deadman_seconds=120)["site-0001"][0] is True


def test_a_look_that_hangs_does_not_hold_the_gate_and_what_was_seen_counts(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_LAST_LOOK", 0.3)
    release = threading.Event()
    one = assemble(
        fleet=fleet,
        answers={
            "gw1": answer(vips=VIPS, tun0=[client("site-0001", "10.101.0.16")], tun1=[], echoes=("10.101.0.16",)),
        },
    )
    looks = [one]

    def look(**_asked: Any) -> Evidence:
        if not looks:
            release.wait(30)
        return looks.pop() if looks else one

    took, passed = _slow_gate(fleet, look=look, seconds=0.5)
    never = _slow_gate(fleet, look=look, seconds=0.5)[1]
    release.set()

    assert took < 5
    assert passed == {"site-0001": True, "site-0002": False}
    assert never == {"site-0001": False, "site-0002": False}


def test_a_look_that_fails_is_the_gates_error(fleet: Fleet) -> None:
    def look(**_asked: Any) -> Evidence:
        raise FleetError("no login key")

    with pytest.raises(FleetError, match="no login key"):
        _slow_gate(fleet, look=look)
