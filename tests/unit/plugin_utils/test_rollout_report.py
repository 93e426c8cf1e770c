# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files a rollout leaves: whole, in agreement with each other, and safe whatever a site says."""

from __future__ import annotations

import hashlib
import json
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rollout_report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_report import (
    TEMPLATES,
    rollout_text,
    write_rollout_report,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import ReportError
from rollout_samples import finished, halted, rollout, site, wave

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "</td><script>alert(1)</script>\x1b[2J & \"quoted\" 'and' \u202ereversed \ud800\nnext line"


def junit(page: Path) -> ET.Element:
    return ET.fromstring(page.with_name("report.xml").read_bytes())  # noqa: S314  # our own file


def test_there_are_three_files_and_the_page_names_the_digest_of_the_json(tmp_path: Path) -> None:
    page = write_rollout_report(directory=tmp_path / "reports" / "20261126-2350-keys", data=halted())

    assert sorted(path.name for path in page.parent.iterdir()) == ["report.html", "report.json", "report.xml"]
    raw = page.with_name("report.json").read_bytes()
    assert hashlib.sha256(raw).hexdigest() in page.read_text(encoding="utf-8")
    found = json.loads(raw)
    assert {key: found[key] for key in halted()} == halted()
    assert found["offline"]["median"] == 0.31
    assert found["verdict"].startswith("Halted by the gate of wave north: 1 site failed, the budget is 0.")
    assert {path.stat().st_mode & 0o777 for path in page.parent.iterdir()} == {0o644}


def test_junit_has_a_case_for_each_site_and_each_halt(tmp_path: Path) -> None:
    suites = junit(write_rollout_report(directory=tmp_path, data=halted()))

    cases = {
        (case.get("classname"), case.get("name")): [child.tag for child in case] for case in suites.iter("testcase")
    }
    assert cases == {
        ("canary", "site-0001"): [],
        ("canary", "site-0002"): [],
        ("north", "site-0003"): ["failure"],
        ("north", "site-0004"): ["error"],
        ("north", "site-0005"): ["skipped"],
        ("north", "site-0006"): [],
        ("south", "site-0007"): ["skipped"],
        ("north", "gate 2026-11-26T23:52:07Z"): ["failure"],
    }
    assert {name: suites.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "8",
        "failures": "2",
        "errors": "1",
        "skipped": "2",
    }
    for name in ("tests", "failures", "errors", "skipped"):
        assert sum(int(suite.get(name, "")) for suite in suites) == int(suites.get(name, ""))
    failure = suites.find(".//testcase[@name='site-0003']/failure")
    assert failure is not None
    assert failure.attrib == {
        "type": "no evidence",
        "message": "no evidence: site-0003: gw1 has not seen it with epoch 2 within 20 s.",
    }
    assert [case.get("time") for case in suites.iter("testcase")][:3] == ["0.28", "0.9", "0"]


def test_a_run_in_which_all_is_well_has_no_failure(tmp_path: Path) -> None:
    suites = junit(write_rollout_report(directory=tmp_path, data=finished(40)))

    assert (suites.get("tests"), suites.get("failures"), suites.get("errors")) == ("40", "0", "0")
    assert suites.find("./testsuite[@name='gates']") is None


def test_whatever_a_site_says_stays_text(tmp_path: Path) -> None:
    data = rollout(
        waves=[wave(HOSTILE, ["site-0001"], state="halted", approved_by=HOSTILE)],
        sites={"site-0001": site("site-0001", wave=HOSTILE, state="failed", message=HOSTILE, reason=HOSTILE)},
        outcome="halted",
        by=HOSTILE,
        reason=HOSTILE,
        halts=[{"at": "2026-11-26T23:50:07Z", "wave": HOSTILE, "why": HOSTILE}],
    )

    page = write_rollout_report(directory=tmp_path, data=data)
    html = page.read_text(encoding="utf-8")

    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    shown = "</td><script>alert(1)</script>\\x1b[2J & \"quoted\" 'and' \\u202ereversed \\ud800 next line"
    failure = junit(page).find(".//failure")
    assert failure is not None
    assert failure.get("message") == f"{shown}: {shown}"
    assert json.loads(page.with_name("report.json").read_bytes())["by"] == HOSTILE
    assert all(line.isprintable() for line in rollout_text(data).splitlines())


def test_the_page_needs_nothing_from_outside(tmp_path: Path) -> None:
    html = write_rollout_report(directory=tmp_path, data=halted()).read_text(encoding="utf-8")

    assert re.findall(r'(?:src|href)="(?!#)[^"]*"|url\((?!#)[^)]*\)|@import|<(?:script|link|img|iframe)\b', html) == []
    assert "default-src 'none'" in html


def test_a_person_who_does_not_see_it_can_use_the_page(tmp_path: Path) -> None:
    html = write_rollout_report(directory=tmp_path, data=halted()).read_text(encoding="utf-8")

    assert '<html lang="en">' in html
    assert "<title>Halted: rollout 20261126-2350-keys on fleet lab</title>" in html
    assert html.count("<h1>") == 1
    assert html.count("<table") == html.count("<caption>") > 1
    assert all('role="img" aria-label="' in tag for tag in re.findall(r"<svg [^>]*>", html))
    assert all('scope="' in tag for tag in re.findall(r"<th\b[^>]*>", html))
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|aria-labelledby=")([^"]+)"', html)) <= set(ids)


def luminance(colour: str) -> float:
    """As WCAG 2 counts it."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(scheme: str) -> None:
    css = (TEMPLATES / "rollout_report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", css.split(":root")[1 if scheme == "light" else 2]))

    low = {
        (name, ground): round(ratio, 2)
        for name in ("ink", "soft", "done", "failed", "aborted", "parked", "waiting", "good", "mixed", "bad")
        for ground in ("paper", "sheet", "shade")
        if (ratio := contrast(colours[name], colours[ground])) < 4.5
    }
    assert low == {}


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_large_rollout_is_folded(tmp_path: Path) -> None:
    small = write_rollout_report(directory=tmp_path / "small", data=finished(100)).read_text(encoding="utf-8")
    large = write_rollout_report(directory=tmp_path / "large", data=finished(400)).read_text(encoding="utf-8")

    assert (small.count("<details open>"), large.count("<details>")) == (5, 5)
    # Who needs a look is listed apart from the folded lists.
    assert large.count('data-state="parked"') == 2 * 4


def test_the_text() -> None:
    assert rollout_text(halted()) == (
        "Halted by the gate of wave north: 1 site failed, the budget is 0. 3 of 7 sites run the new generation,"
        " 1 failed, 1 aborted, 1 parked, 1 waiting.\n"
        "Rotation of keys 20261126-2350-keys on fleet lab by root@controller\n"
        "From 2026-11-26T23:50:00Z to 2026-11-26T23:52:10Z, 2 min 10 s\n"
        "Reason: quarter 3\n"
        "Offline: 0.31 s in the median, 0.9 s at worst (site-0002)\n"
        "Halted at 2026-11-26T23:52:07Z by the gate of wave north: 1 site failed, the budget is 0\n"
        "\n"
        "WAVE    STATE    SITES  DONE  FAILED  ABORTED  PARKED  WAITING  BEGAN                 ENDED\n"
        "canary  done     2      2     0       0        0       0        2026-11-26T23:50:10Z  2026-11-26T23:51:02Z\n"
        "north   halted   4      1     1       1        1       0        2026-11-26T23:51:10Z  2026-11-26T23:52:08Z\n"
        "south   waiting  1      0     0       0        0       1        -                     -\n"
        "\n"
        "SITE       STATE    WAVE   MESSAGE\n"
        "site-0003  failed   north  no evidence: site-0003: gw1 has not seen it with epoch 2 within 20 s.\n"
        "site-0004  aborted  north  clock: site-0004: its clock is 2 years behind; nothing was changed.\n"
        "site-0005  parked   north  unreachable: site-0005: nothing answers at 198.18.1.5:22 within 10 s.\n"
    )


def test_the_text_names_no_more_sites_than_a_screen_holds() -> None:
    text = rollout_text(finished(10_000))

    assert len(text.splitlines()) < 40
    assert text.endswith("and 83 more, in the report\n")


def test_a_crash_on_the_way_leaves_the_former_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_rollout_report(directory=tmp_path, data=halted())
    before = page.read_bytes()

    def crash(path: Path, *args: object, **more: object) -> None:
        if path.name == "report.html":
            raise KeyboardInterrupt
        write_atomic(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(rollout_report, "write_atomic", crash)
    with pytest.raises(KeyboardInterrupt):
        write_rollout_report(directory=tmp_path, data=finished(4))

    assert page.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "report.xml"]


def test_a_report_that_cannot_be_written_says_that_the_work_is_done(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way", encoding="utf-8")

    with pytest.raises(ReportError, match=r"reports/ID could not be written: .*What was done at the sites stands"):
        write_rollout_report(directory=tmp_path / "reports" / "ID", data=halted())
