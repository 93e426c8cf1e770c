# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/fleet status: what it prints, writes and ends with, with gateways that say what the test wants."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import status as core
from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import assemble
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.own_word import OwnWord
from fleetlib import watch as watching
from fleetlib.cli import main
from unit.plugin_utils.fleet_files import write_fleet

if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.evidence import Evidence
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

VIPS = ["10.200.0.1", "192.168.32.1", "203.0.113.1"]
NOBODY = frozenset[str]()


def evidence(fleet: Fleet, *, down: frozenset[str] = NOBODY, owner: str = "gw1", dead: str = "") -> Evidence:
    def instance(name: str, *, owns: bool) -> dict[str, Any]:
        clients = [
            {
                "common_name": site.id,
                "real_address": f"192.168.32.{site.tunnel_address.rpartition('.')[2]}:4711",
                "virtual_address": site.tunnel_address,
                "connected_since": 1000,
                "bytes_received": 1,
                "bytes_sent": 1,
            }
            for site in fleet.sites
            if owns and site.instance == name and site.id not in down
        ]
        return {"name": name, "pid": 7, "version": "", "clients": clients}

    answers: dict[str, dict[str, Any] | str] = {}
    for name in ("gw1", "gw2"):
        owns = name == owner
        answers[name] = {
            "time": 1010.0,
            "addresses": VIPS if owns else [],
            "instances": [instance("tun0", owns=owns), instance("tun1", owns=owns)],
            "echoes": [],
        }
    if dead:
        answers[dead] = f"{dead}: nothing answers"
    return assemble(fleet=fleet, answers=answers)


@pytest.fixture
def plan_file(tmp_path: Path) -> str:
    return str(write_fleet(tmp_path))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each look finds; after the last one somebody presses Ctrl-C."""
    found: list[dict[str, Any]] = []

    def collect(*, fleet: Fleet) -> Evidence:
        if not found:
            raise KeyboardInterrupt
        return evidence(fleet, **found.pop(0))

    monkeypatch.setattr(core, "collect", collect)
    return found


@pytest.fixture
def never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(**_words: Any) -> None:
        pytest.fail("a site was asked")

    monkeypatch.setattr(core, "ask_sites", ask)


@pytest.mark.usefixtures("never_asked")
@pytest.mark.parametrize(("down", "code"), [(NOBODY, 0), (frozenset({"site-0002"}), 1)])
def test_one_look(
    plan_file: str, looks: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], down: frozenset[str], code: int
) -> None:
    looks += [{"down": down}] * 3

    assert main(["status", "-i", plan_file]) == code
    assert f"{4 - len(down)}/4 sites up" in capsys.readouterr().out
    assert main(["status", "-i", plan_file, "--format", "json"]) == code
    assert json.loads(capsys.readouterr().out)["summary"]["up"] == 4 - len(down)
    assert main(["status", "-i", plan_file, "--format", "prometheus"]) == code
    assert 'spokewright_site_up{fleet="test",site="site-0001",group="canary"} 1\n' in capsys.readouterr().out


def test_the_groups_decide_who_is_asked_and_the_exit_code(
    plan_file: str,
    looks: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def ask(*, fleet: Fleet, sites: list[str]) -> dict[str, OwnWord]:
        del fleet
        asked.extend(sites)
        return {site: OwnWord(up=site != "site-0003", reason="unreachable", message="it is off") for site in sites}

    monkeypatch.setattr(core, "ask_sites", ask)
    looks += [{}, {}]

    assert main(["status", "-i", plan_file, "--oob", "--group", "canary"]) == 0
    assert asked == ["site-0001"]
    assert main(["status", "-i", plan_file, "--oob", "--group", "canary", "--group", "north"]) == 1
    assert asked[1:] == ["site-0001", "site-0002", "site-0003", "site-0004"]
    assert "site-0003: out-of-band link down: unreachable: it is off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--group", "nort"], "which has canary, north."),
        (["--watch", "--format", "json"], "Add --output FILE"),
        (["--output", "/dev/null"], "/dev/null: is no file."),
    ],
)
def test_what_cannot_be_is_said_before_anybody_is_asked(
    plan_file: str,
    looks: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    looks += [{}]

    assert main(["status", "-i", plan_file, *options]) == 2
    assert said in " ".join(capsys.readouterr())
    assert len(looks) == 1


@pytest.mark.parametrize("seconds", ["0", "0.5", "-1", "nan", "inf", "often"])
def test_a_watch_needs_a_pause(plan_file: str, capsys: pytest.CaptureFixture[str], seconds: str) -> None:
    with pytest.raises(SystemExit):
        main(["status", "-i", plan_file, f"--watch={seconds}"])
    assert f"{seconds} is no number of seconds, 1 or more" in capsys.readouterr().err


def test_a_file_is_replaced_as_a_whole_and_may_be_read_by_others(
    plan_file: str, looks: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    target = tmp_path / "textfile" / "fleet.prom"
    target.parent.mkdir()
    looks += [{"down": frozenset({"site-0002"})}]

    assert main(["status", "-i", plan_file, "--format", "prometheus", "--output", str(target)]) == 1
    assert capsys.readouterr().out == ""
    assert target.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in target.parent.iterdir()] == ["fleet.prom"]
    assert "spokewright_fleet_well" in target.read_text(encoding="utf-8")
    looks += [{}]
    assert main(["status", "-i", plan_file, "--output", str(tmp_path / "nowhere" / "fleet.prom")]) == 2


def test_a_watch_without_a_terminal_says_what_changed(
    plan_file: str,
    looks: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("fleetlib.watch.time.sleep", lambda _seconds: None)
    bad = frozenset({"site-0002"})
    looks += [{}, {}, {"down": bad}, {"down": bad, "dead": "gw2"}, {"owner": "gw2"}]
    target = tmp_path / "fleet.json"

    # It ends as the last look did.
    assert main(["status", "-i", plan_file, "--watch", "1", "--format", "json", "--output", str(target)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert all(line[2] == line[5] == ":" for line in lines)
    assert [line[9:] for line in lines] == [
        "4/4 sites up",
        f"gw1 holds {', '.join(VIPS)}",
        "site-0002 up -> down: no gateway has a session of it",
        "3/4 sites up, 1 down",
        "problem: gw2 cannot be asked: gw2: nothing answers",
        f"gw2 holds {', '.join(VIPS)}",
        "over: gw2 cannot be asked: gw2: nothing answers",
        "site-0002 down -> up: connected to tun1 on gw2",
        "4/4 sites up",
    ]
    assert json.loads(target.read_text(encoding="utf-8"))["gateways"][1]["vips"] == VIPS


def test_a_watch_ends_as_its_last_look_and_before_one_as_any_command(
    plan_file: str, looks: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetlib.watch.time.sleep", lambda _seconds: None)
    looks += [{}, {"dead": "gw2"}]

    assert main(["status", "-i", plan_file, "--watch"]) == 1
    assert main(["status", "-i", plan_file, "--watch"]) == 130


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screens(monkeypatch: pytest.MonkeyPatch, plan_file: str) -> Callable[..., list[str]]:
    """The screens of a watch on a terminal of so many lines."""

    def draw(*looks: frozenset[str], lines: int) -> list[str]:
        monkeypatch.setattr("fleetlib.watch.time.sleep", lambda _seconds: None)
        monkeypatch.setenv("LINES", str(lines))
        monkeypatch.setenv("COLUMNS", "100")
        fleet = load_fleet(plan_file=Path(plan_file))
        left = list(looks)

        def look() -> dict[str, Any]:
            if not left:
                raise KeyboardInterrupt
            found = evidence(fleet, down=left.pop(0))
            verdicts = core.judge_fleet(fleet=fleet, evidence=found, sightings={})
            return core.report(fleet=fleet, evidence=found, verdicts=verdicts, sightings={})

        terminal = Terminal()
        watching.watch(look=look, seconds=2, stream=terminal)
        return terminal.getvalue().split(watching.CLEAR)[1:]

    return draw


def test_a_watch_on_a_terminal_draws_the_table_and_keeps_what_changed(screens: Callable[..., list[str]]) -> None:
    first, second = screens(NOBODY, frozenset({"site-0002"}), lines=40)

    assert first.startswith("every 2 s, ")
    assert "site-0001  canary  up" in first
    assert "->" not in first
    assert "site-0002 up -> never seen: " in second


@pytest.mark.parametrize("lines", [9, 12, 14])
def test_a_table_that_does_not_fit_shows_what_is_not_up_and_never_scrolls(
    screens: Callable[..., list[str]], lines: int
) -> None:
    bad = frozenset({"site-0002"})

    (screen,) = screens(bad, lines=lines)

    assert screen.count("\n") < lines
    assert all(len(line) <= 100 for line in screen.splitlines())
    assert "site-0001" not in screen
    assert ("more" in screen) == (lines == 9)
