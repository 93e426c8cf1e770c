# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storms that bench/storm kept, held against the model."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_measured import (
    LEAST,
    calibrated,
    calibration_table,
    compare,
    data,
    read_measured,
    verdict,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import KERNEL_BUFFER, StormError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import site_timers

if TYPE_CHECKING:
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_measured import Measured

OURS = {
    "name": "ours",
    "sites": 4,
    "daemons": 2,
    "cores": 3,
    "keepalive": [2, 6],
    "connect_freq": None,
    "connect_freq_initial": ["2048", "10"],
    "rcvbuf": "2097152",
    "rmem_max": 1_000_000,
    "max_clients": 2048,
    "hand_window": 30,
    "verify": True,
    "timers": "site",
}
STOCK = OURS | {
    "name": "stock",
    "keepalive": [10, 60],
    "connect_freq": ["20", "1"],
    "connect_freq_initial": ["100", "10"],
    "rcvbuf": None,
    "timers": "default",
}


def keep(
    folder: Path,
    *,
    known: dict[str, Any],
    kind: str = "daemons-restarted",
    seconds: float = 0.0,
    flood: str = "",
    back: tuple[float, ...] = (5.8, 6.1, 6.4, 6.9),
    made: dict[str, float] | None = None,
    cpu_daemons: float = 0.02,
    programs: dict[str, float] | None = None,
) -> None:
    """As bench/storm does."""
    result: dict[str, Any] = {
        "scene": kind,
        "back": {f"site-{number}": when for number, when in enumerate(back, start=1)},
        "waited": 90.0,
        "cpu_daemons": cpu_daemons,
        "cpu_clients": 0.08,
    }
    if programs is not None:
        result["programs"] = programs
    document = {
        "configuration": known,
        "scene": {"kind": kind, "seconds": seconds, "flood": flood},
        "result": result if made is None else result | {"made": made},
    }
    number = len(list(folder.iterdir()))
    (folder / f"{known['name']}-{number}.json").write_text(json.dumps(document), encoding="ascii")


def one(folder: Path) -> Measured:
    (found,), short = read_measured(folder)
    assert short == []
    return found


def test_the_model_is_told_what_the_bench_knows(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS, made={"daemon_start": 0.7})
    found = one(tmp_path)

    assert (found.setup.sites, found.setup.daemons, found.setup.cores) == (4, 2, 3)
    assert found.setup.connect_freq_initial == (2048, 10)
    assert found.setup.receive_buffer == 2_000_000
    assert (found.setup.max_clients, found.setup.hand_window) == (2048, 30)
    assert found.setup.timers[2] == site_timers(site_id="site-3")
    assert found.scene.daemon_start == 0.7


def test_what_openvpn_does_by_default_is_told_as_well(tmp_path: Path) -> None:
    keep(tmp_path, known=STOCK)
    found = one(tmp_path)

    assert found.setup.receive_buffer == KERNEL_BUFFER
    assert found.setup.connect_freq == (20, 1)
    assert len(found.setup.timers) == 1


def test_a_handshake_costs_what_it_cost_when_all_clients_started(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS)
    keep(tmp_path, known=OURS, kind="all-start", back=(0.1, 0.2, 0.3, 0.4), made={"spread": 0.3, "first_start": 0.05})
    keep(tmp_path, known=STOCK)
    calm, start, stock = read_measured(tmp_path)[0]

    assert calm.setup.costs.handshake == pytest.approx(5.0)
    assert start.setup.costs.start == pytest.approx(20 - 3.4)
    assert (start.scene.spread, start.shift) == (0.3, 0.05)
    assert stock.setup.costs.handshake == 4.43


def test_a_handshake_is_told_by_clients_that_begin_anew_and_a_start_by_those_that_start(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS, kind="all-start", back=(0.1, 0.2, 0.3, 0.4))
    keep(tmp_path, known=OURS, kind="clients-restarted", back=(1.1, 1.2, 1.3, 1.4), cpu_daemons=0.012)
    for found in read_measured(tmp_path)[0]:
        assert found.setup.costs.handshake == pytest.approx(3.0)
        assert found.setup.costs.start == pytest.approx(20 - 3.4)


def test_what_else_a_site_kept_busy_is_told_where_it_was_measured(tmp_path: Path) -> None:
    programs = {
        "all": 0.4,
        "the bench": 0.1,
        "openvpn of the gateways": 0.02,
        "openvpn of the sites": 0.08,
        "systemd": 0.12,
    }
    keep(tmp_path, known=OURS, made={"background": 0.5}, programs=programs)
    keep(tmp_path, known=OURS, kind="clients-restarted", back=(1.1, 1.2, 1.3, 1.4), programs=programs)
    keep(tmp_path, known=OURS, kind="all-start", back=(0.1, 0.2, 0.3, 0.4), made={"spread": 0.3}, programs=programs)
    calm, _herd, start = read_measured(tmp_path)[0]

    # 0.2 s for four sites, and in a start 0.08 s more that no program at the end of it owned up to.
    assert calm.setup.costs.client == pytest.approx(50 - 0.5)
    assert start.setup.costs.start == pytest.approx(70 - 3.4)
    assert (calm.setup.background, start.scene.spread) == (0.5, 0.0)


def test_a_model_that_is_right_is_within_a_quarter_and_one_that_is_wrong_is_not(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS)
    keep(tmp_path, known=OURS, back=(20.0, 21.0, 22.0, 23.0))
    right, wrong = (compare(each) for each in read_measured(tmp_path)[0])

    assert not right.off
    assert right.ratio == pytest.approx(1.0, abs=0.25)
    assert wrong.off
    assert "OFF" in calibration_table([wrong])
    assert data(wrong)["off"] is True
    assert verdict([right, wrong]).startswith("1 of 2 measured storms: last site within 25%.")


def test_five_storms_are_too_few(tmp_path: Path) -> None:
    for _each in range(LEAST):
        keep(tmp_path, known=OURS)
    these = [compare(each) for each in read_measured(tmp_path)[0]]

    assert calibrated(these)
    assert not calibrated(these[1:])
    assert verdict(these[1:]).endswith("At least 6 are wanted.")


def test_what_is_shorter_than_the_probes_can_see_counts_for_nothing(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS, kind="all-start", back=(0.1, 0.2, 0.2, 0.25))
    short = compare(one(tmp_path))

    assert not short.off
    assert not calibrated([short] * LEAST)
    assert "1 were too short" in verdict([short])


def test_an_outage_lasts_as_long_as_the_gateways_were_away(tmp_path: Path) -> None:
    keep(tmp_path, known=STOCK, kind="outage", seconds=45, back=(8.3, 8.4, 8.5, 8.6), made={"away": 52.4})
    found = one(tmp_path)

    assert found.scene.seconds == 52.4
    assert not compare(found).off


def test_an_outage_of_unknown_length_is_named(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS, kind="outage", seconds=45)

    assert read_measured(tmp_path) == ([], [tmp_path / "ours-0.json"])


def test_a_frozen_daemon_of_ours_is_replaced_and_one_of_the_others_thaws(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS, kind="frozen", seconds=60, back=(6.4, 7.0), made={"replaced": 2.6})
    keep(tmp_path, known=STOCK, kind="frozen", seconds=60, back=(60.1, 60.2))
    ours, stock = read_measured(tmp_path)[0]

    assert (ours.scene.kind, ours.scene.daemon_start, ours.setup.sites) == ("daemons-restarted", 2.6, 2)
    assert (stock.scene.kind, stock.setup.sites) == ("frozen", 4)
    assert [compare(each).off for each in (ours, stock)] == [False, False]
    assert compare(stock).last >= 60


def test_a_site_that_was_not_back_in_time_wants_a_model_that_says_so(tmp_path: Path) -> None:
    keep(tmp_path, known=OURS, back=(5.0, 6.0, 6.0, math.inf))
    late = compare(one(tmp_path))

    assert late.ratio is None
    assert late.off
    assert "> 90 s" in calibration_table([late])
    assert data(late)["measured"]["last"] is None


def test_other_files_are_passed_over_and_broken_ones_named(tmp_path: Path) -> None:
    (tmp_path / "before.json").write_text('{"streams": []}', encoding="ascii")
    assert read_measured(tmp_path) == ([], [])

    keep(tmp_path, known={name: value for name, value in OURS.items() if name != "keepalive"})
    with pytest.raises(StormError, match=r"ours-1\.json: KeyError\('keepalive'\)"):
        read_measured(tmp_path)
    (tmp_path / "ours-1.json").write_text("{", encoding="ascii")
    with pytest.raises(StormError, match=r"ours-1\.json: not JSON"):
        read_measured(tmp_path)
    with pytest.raises(StormError, match="no such directory"):
        read_measured(tmp_path / "nothing")
