# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/fleet key brings bundles to sites over real sshds on loopback, and the key store learns what they hold."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, open_store
from delivery_support import Remote, free_port, sshd
from fleetlib import deliver
from fleetlib.cli import main
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GOOD = ("site-0001", "site-0002")
DEAD = "site-0003"


@dataclasses.dataclass
class Bench:
    """A plan, its store, two sites that answer, one where nobody listens, and one without a key."""

    plan: str
    fleet: Fleet
    remotes: dict[str, Remote]
    capsys: pytest.CaptureFixture[str]

    @property
    def store(self) -> KeyStore:
        return open_store(self.fleet.plan)

    def states(self) -> dict[str, str]:
        return {site: epochs[max(epochs)]["state"] for site, epochs in self.store.index().items()}

    def run(self, verb: str, *words: str) -> tuple[int, str, str]:
        status = main(["key", verb, "-i", self.plan, *words])
        shown = self.capsys.readouterr()
        return status, shown.out, shown.err

    def report(self, verb: str, *words: str) -> tuple[int, dict[str, Any]]:
        status, out, _err = self.run(verb, *words, "--format", "json")
        found: dict[str, Any] = json.loads(out)
        return status, found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Bench]:
    (tmp_path / "fleet").mkdir()
    plan = write_fleet(tmp_path / "fleet")
    fleet = load_fleet(plan_file=plan)
    store = open_store(fleet.plan)
    store.ensure(fleet="test", key_type="p256", gateways=["gw1", "gw2"], sites=[*GOOD, DEAD])
    with contextlib.ExitStack() as stack:
        remotes = {site: stack.enter_context(sshd(tmp_path / site)) for site in GOOD}
        login = remotes[GOOD[0]].target.private_key_file
        for remote in remotes.values():
            (remote.home / "authorized").write_text(login.with_suffix(".pub").read_text())
        # A plan refuses a network of loopback addresses, and here is no other one.
        sites = tuple(
            dataclasses.replace(
                site,
                oob_address="127.0.0.1",
                oob_port=remotes[site.id].target.port if site.id in remotes else free_port(),
                host_key=remotes[site.id].target.host_key if site.id in remotes else site.host_key,
            )
            for site in fleet.sites
        )
        ssh = dataclasses.replace(fleet.plan.ssh, private_key_file=login)
        fleet = dataclasses.replace(fleet, sites=sites, plan=dataclasses.replace(fleet.plan, ssh=ssh))
        monkeypatch.setattr(deliver, "load_fleet", lambda **_more: fleet)
        yield Bench(plan=str(plan), fleet=fleet, remotes=remotes, capsys=capsys)


def test_the_whole_life_of_a_bundle(bench: Bench) -> None:
    status, report = bench.report("stage", *GOOD, "--check")
    assert (status, report["changed"], report["check"]) == (0, True, True)
    assert "would send bundle" in report["sites"]["site-0001"]["message"]
    assert set(bench.states().values()) == {"issued"}

    status, out, _err = bench.run("stage", *GOOD)
    assert (status, out) == (0, "stage: 2 sites, 2 changed, 0 as they should be, 0 failed\n")
    assert [bench.states()[site] for site in GOOD] == ["staged", "staged"]
    assert bench.run("stage", *GOOD)[1] == "stage: 2 sites, 0 changed, 2 as they should be, 0 failed\n"

    assert bench.run("activate", "site-0001", "--deadman-seconds", "60")[0] == 0
    assert bench.states() == {"site-0001": "active", "site-0002": "staged", DEAD: "issued"}
    assert bench.run("confirm", "site-0001")[0] == 0
    assert bench.states()["site-0001"] == "confirmed"
    current = bench.remotes["site-0001"].root / "etc/spokewright/current"
    assert (current / "psk.key").read_text() == bench.store.site_key(site="site-0001").psk.reveal()
    assert not (bench.remotes["site-0002"].root / "etc/spokewright/current").exists()

    assert main(["key", "regenerate", "site-0001", "--reason", "test", "--yes", "-i", bench.plan]) == 0
    bench.capsys.readouterr()
    for verb in ("stage", "activate", "confirm"):
        assert bench.run(verb, "site-0001")[0] == 0
    status, report = bench.report("revert", "site-0001")
    assert status == 0
    assert (report["sites"]["site-0001"]["current"], report["sites"]["site-0001"]["changed"]) == (1, True)
    assert {epoch: one["state"] for epoch, one in bench.store.index()["site-0001"].items()} == {
        1: "confirmed",
        2: "staged",
    }
    status, report = bench.report("forget", "site-0001", "--epoch", "2")
    assert (status, report["changed"]) == (0, True)
    assert [
        one["generation"] for one in bench.report("status", "site-0001")[1]["sites"]["site-0001"]["generations"]
    ] == [1]
    assert bench.store.verify() == []


def test_a_site_that_fails_is_named_and_the_others_are_served(bench: Bench) -> None:
    status, out, err = bench.run("stage", "--all", "--workers", "2")
    assert status == 1
    lines = out.splitlines()
    assert lines[0].split() == ["SITE", "REASON", "MESSAGE"]
    assert lines[1].startswith("site-0003  unreachable  site-0003: ")
    assert lines[2].startswith("site-0004  no-key       site-0004 has no key in ")
    assert lines[-1] == "stage: 4 sites, 2 changed, 0 as they should be, 2 failed"
    assert all(line.startswith("stage: ") for line in err.splitlines())
    status, report = bench.report("stage", "--all")
    assert (status, report["failed_sites"]) == (1, [DEAD, "site-0004"])
    assert report["sites"][DEAD]["reason"] == "unreachable"


def test_status_shows_every_site_asked_and_changes_nothing(bench: Bench) -> None:
    bench.run("stage", "site-0001")
    bench.run("activate", "site-0001")
    status, out, _err = bench.run("status", "site-0001", "site-0002", DEAD)
    assert status == 1
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("site-")}
    assert rows["site-0001"][1:7] == ["1", "1", "1", "-", "1", "active"]
    assert rows["site-0002"][1:6] == ["-", "-", "-", "-", "-"]
    assert "unreachable:" in rows[DEAD]
    assert out.splitlines()[-1] == "status: 3 sites, 1 failed"
    assert not (bench.remotes["site-0002"].root / "etc/spokewright").exists()


def test_a_group_means_its_sites(bench: Bench) -> None:
    assert list(bench.report("stage", "--group", "canary")[1]["sites"]) == ["site-0001"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no site is named. Name sites, or --group NAME, or --all for all 4 sites."),
        (["--all", "site-0001"], "--all means every site of the registry; name no site and no group beside it."),
        (["--all", "--group", "north"], "--all means every site of the registry; name no site and no group beside it."),
        (["site-0009"], "site-0009: not in the registry "),
        (["--group", "south"], "group south: not in the plan "),
    ],
)
@pytest.mark.parametrize("verb", ["status", "stage", "confirm"])
def test_nobody_is_touched_who_was_not_named(bench: Bench, verb: str, words: list[str], said: str) -> None:
    status, out, err = bench.run(verb, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert all("Accepted" not in (remote.home / "log").read_text() for remote in bench.remotes.values())


def test_who_is_at_work_is_named(bench: Bench) -> None:
    with bench.store.operation("a long rollout"):
        status, out, err = bench.run("stage", "site-0001")
        assert (status, out) == (2, "")
        assert "a long rollout" in err
        # Looking is always possible.
        assert bench.run("status", "site-0001")[0] == 0
        assert bench.run("stage", "site-0001", "--check")[0] == 0


def test_confirm_is_refused_where_nothing_waits(bench: Bench) -> None:
    bench.run("stage", "site-0001")
    status, report = bench.report("confirm", "site-0001")
    assert status == 1
    assert report["sites"]["site-0001"]["reason"] == "not-current"


def test_no_key_is_shown(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    key = bench.store.site_key(site="site-0001")
    said = "".join(
        text
        for verb in ("stage", "activate", "status", "confirm")
        for shape in ("human", "json")
        for text in bench.run(verb, "site-0001", "--format", shape)[1:]
    )
    said += caplog.text + json.dumps(bench.store.index()) + (bench.store.path / "ledger.jsonl").read_text()
    for secret in (key.psk, key.private_key):
        assert not [line for line in secret.reveal().splitlines()[1:-1] if line in said]
