# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client timers: stable, in range, spread."""

from __future__ import annotations

from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import Timers, site_timers


def test_a_site_always_has_the_same_timers() -> None:
    """A change here would rewrite the configuration of every site of every fleet."""
    assert site_timers(site_id="site-0001") == Timers(1, 6, 3, 16)
    assert site_timers(site_id="site-0002") == Timers(1, 8, 3, 16)


def test_400_sites_use_the_whole_range_evenly() -> None:
    found = [site_timers(site_id=f"site-{number:04d}") for number in range(400)]

    for values, wanted in (
        ([one.connect_retry for one in found], range(1, 2)),
        ([one.connect_retry_max for one in found], range(5, 9)),
        ([one.server_poll_timeout for one in found], range(3, 5)),
        ([one.hand_window for one in found], range(15, 21)),
    ):
        assert set(values) == set(wanted)
        assert all(values.count(value) > 400 / len(wanted) / 2 for value in wanted)
