# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which generations a site forgets, and which it keeps."""

from __future__ import annotations

from unit.roles.site_agent_support import ONE, THREE, TWO, Site, fire, generations, make, settle


def test_forget_takes_what_is_old_and_leaves_what_is_needed(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    site.stage(THREE)
    site.run("activate", "3", "60")
    for number, why in (("2", "the confirmed one"), ("3", "current")):
        refused = site.run("forget", number)
        assert (refused["reason"], refused["changed"]) == ("in-use", False)
        assert f"generation {number} is {why}" in refused["message"]
    refused = site.run("forget", ONE.digest)
    assert "generation 1 is the way back; forget it by its number" in refused["message"]
    assert site.run("forget", "old")["changed"] is False
    assert generations(site) == ["1", "2", "3"]
    gone = site.run("forget", "1")
    assert (gone["changed"], gone["forgotten"], gone["previous"]) == (True, [1], 0)
    assert generations(site) == ["2", "3"]
    again = site.run("forget", "1")
    assert (again["ok"], again["changed"], again["forgotten"]) == (True, False, [])
    fire(site, "3")
    gone = site.run("forget", THREE.digest)
    assert (gone["changed"], gone["forgotten"], gone["reverted"]) == (True, [3], 0)


def test_forget_below_takes_every_older_key_also_the_way_back_and_never_what_is_needed(site: Site) -> None:
    settle(site, ONE)
    settle(site, TWO)
    settle(site, THREE)
    assert site.run("forget", "below", "1")["forgotten"] == []
    gone = site.run("forget", "below", "2")
    assert (gone["ok"], gone["forgotten"], gone["previous"]) == (True, [1, 2], 0)
    assert generations(site) == ["3"]
    refused = site.run("forget", "below", "3")
    assert (refused["reason"], refused["changed"]) == ("in-use", False)
    assert generations(site) == ["3"]


def test_what_waits_for_its_activation_is_not_old(site: Site) -> None:
    site.stage(ONE)
    assert site.run("forget", "old")["forgotten"] == []
    for bundle in (ONE, TWO, make("3\n")):
        settle(site, bundle)
    site.stage(THREE)
    assert site.run("forget", "old")["forgotten"] == [1]
    assert generations(site) == ["2", "3", "4"]
    assert site.run("forget", "4")["forgotten"] == [4]


def test_forget_by_epoch_takes_a_key_that_leaked_off_the_site(site: Site) -> None:
    for text in ("a\n", "b\n", "c\n"):
        site.stage(make(text, epoch=int(text == "c\n") + 1))
    site.run("activate", "3", "60")
    assert site.run("forget", "epoch", "1")["forgotten"] == [1, 2]
    refused = site.run("forget", "epoch", "2")
    assert (refused["reason"], generations(site)) == ("in-use", ["3"])
    assert not list(site.base.rglob(".old*"))
