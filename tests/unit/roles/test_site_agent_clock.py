# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site whose clock no certificate fits."""

from __future__ import annotations

import datetime as dt
import re

import pytest

from unit.roles.site_agent_support import ONE, TWO, Site, make, settle

TODAY = dt.datetime.now(tz=dt.UTC).date()


DAY = dt.timedelta(days=1)


@pytest.mark.parametrize(("first", "last"), [(DAY * 2, DAY * 900), (-DAY * 900, -DAY * 2)])
def test_a_site_whose_clock_no_certificate_fits_keeps_the_client_that_runs(
    site: Site, first: dt.timedelta, last: dt.timedelta
) -> None:
    settle(site, ONE)
    other = make("late\n", valid=(TODAY + first, TODAY + last))
    site.stage(other)
    site.forget_calls()
    answer = site.run("activate", other.digest, "60")
    assert (answer["reason"], answer["changed"], answer["current"], answer["pending"]) == ("wrong-clock", False, 1, 0)
    said = answer["message"]
    assert re.fullmatch(
        r"its clock says \d{4}-\d\d-\d\d, and this generation's certificates are valid from "
        rf"{TODAY + first} to {TODAY + last}: its client might believe no gateway, with the keys it has now as "
        r"little\. Set the clock, then run again; nothing was changed",
        said,
    ), said
    assert not [call for call in site.calls() if "restart" in call or "systemd-run" in call]


def test_a_wrong_clock_keeps_nobody_from_a_client_that_is_down_or_half_way_back(site: Site) -> None:
    late = (TODAY + DAY * 2, TODAY + DAY * 900)
    first = make("first\n", valid=late)
    assert settle(site, first) == 1
    (site.home / "active").unlink()
    assert site.run("activate", "1", "60")["ok"]
    # A dead-man that was killed between its link and its restart.
    site.stage(TWO)
    site.run("activate", "2", "60")
    site.run("confirm", "2")
    site.run("revert", "2")
    (site.base / "state/pending").write_text("2 this-boot started 0\n")
    assert site.run("activate", "1", "60")["ok"]
    assert (site.home / "active").read_text().startswith("first")


def test_a_clock_that_says_nothing_is_not_asked(site: Site) -> None:
    settle(site, ONE)
    site.tool("date", "#!/bin/sh\nexit 1\n")
    assert settle(site, make("late\n", valid=(TODAY + DAY * 2, TODAY + DAY * 900))) == 2


def test_the_days_at_both_ends_are_good_and_a_generation_that_names_none_is_not_asked(site: Site) -> None:
    for number, bundle in enumerate(
        (
            # Midnight may pass meanwhile.
            make("ends\n", valid=(TODAY - DAY * 900, TODAY + DAY)),
            make("begins\n", valid=(TODAY, TODAY + DAY * 900)),
            make("older\n", more={"facts": '{"epoch":1,"kid":"00ff","psk_fingerprint":""}\n'}),
        ),
        start=1,
    ):
        assert settle(site, bundle) == number
