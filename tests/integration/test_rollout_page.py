# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a rollout, opened in a real browser: what a reader sees there is what report.json says."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zlib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_report import write_rollout_report
from rollout_samples import finished, halted, rollout, site, wave

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

BROWSER: Final = "chromium-headless-shell"
STATES: Final = ("done", "failed", "aborted", "parked", "waiting")
VOID: Final = {"meta", "link", "br", "col", "input", "img"}
# What the browser calls the two schemes.
SCHEMES: Final = {"dark": 0, "light": 1}


@dataclass
class Element:
    """One element of the rendered page."""

    tag: str
    attributes: dict[str, str]
    inside: tuple[Element, ...]
    words: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


class Page(HTMLParser):
    """The elements of a page with all text below each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, tuple(self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.words.append(data)

    def having(self, name: str, *, tag: str = "") -> list[Element]:
        return [one for one in self.elements if name in one.attributes and (not tag or one.tag == tag)]

    def figures(self) -> dict[str, str]:
        return {one.attributes["data-figure"]: one.text for one in self.having("data-figure", tag="dd")}


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert shutil.which(BROWSER), f"{BROWSER} is not there. Run: tools/bootstrap browser"
    return subprocess.run(
        # Root has no sandbox, and this test runs as root beside others.
        [BROWSER, "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options, page.as_uri()],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )


def rendered(page: Path) -> Page:
    done = browse(page, "--dump-dom")
    # What the page's own policy refuses, and every other complaint, is said there.
    assert "CONSOLE" not in done.stderr
    return Page(done.stdout)


@pytest.mark.parametrize("data", [halted(), finished(400), finished(10_000, waves=12)], ids=["halted", "400", "10000"])
def test_what_the_page_shows_is_what_the_json_says(tmp_path: Path, data: dict[str, Any]) -> None:
    path = write_rollout_report(directory=tmp_path, data=data)
    raw = path.with_name("report.json").read_bytes()
    said = json.loads(raw)
    page = rendered(path)

    shown = page.figures()
    assert {state: shown[state] for state in ("total", *STATES)} == {
        state: str(number) for state, number in said["summary"].items()
    }
    assert shown["offline_median"] == f"{said['offline']['median']} s"
    assert shown["offline_worst"] == f"{said['offline']['worst']} s {said['offline']['worst_site']}"
    assert shown["budget_failed"] == f"{said['budgets']['failed']} {said['summary']['failed']} used"
    assert shown["budget_unreachable"] == f"{said['budgets']['unreachable']} {said['summary']['parked']} used"
    assert shown["halts"] == str(len(said["halts"]))
    assert {name: shown[name] for name in ("rollout", "fleet", "by", "reason")} == {
        name: said[name] for name in ("rollout", "fleet", "by", "reason")
    }
    assert shown["exit_code"].partition(",")[0] == str(said["exit_code"])
    heading = next(one.text for one in page.elements if one.tag == "h1")
    assert said["verdict"].startswith(heading)

    waves = {one.attributes["data-wave-row"]: one for one in page.having("data-wave-row")}
    assert {name: one.attributes["data-state"] for name, one in waves.items()} == {
        one["name"]: one["state"] for one in said["waves"]
    }
    cells = {
        (row.attributes["data-wave-row"], cell.attributes["data-figure"]): cell.text
        for cell in page.having("data-figure", tag="td")
        for row in cell.inside
        if "data-wave-row" in row.attributes
    }
    for one in said["waves"]:
        states = [said["sites"][name]["state"] for name in one["sites"]]
        assert cells[one["name"], "sites"] == str(len(one["sites"]))
        assert {state: cells[one["name"], state] for state in STATES} == {
            state: str(states.count(state)) for state in STATES
        }

    rows = [row for row in page.having("data-site") if any(one.tag == "details" for one in row.inside)]
    assert [row.attributes["data-site"] for row in rows] == [name for one in said["waves"] for name in one["sites"]]
    for row in rows:
        one = said["sites"][row.attributes["data-site"]]
        assert (row.attributes["data-state"], row.attributes["data-wave"]) == (one["state"], one["wave"])
        assert row.attributes["data-seconds"] == ("" if one["seconds"] is None else str(one["seconds"]))
        for fact in ("kid", "psk_fingerprint", "certificate_fingerprint", "message", "reason", "state"):
            assert one[fact] in row.text
    assert hashlib.sha256(raw).hexdigest() in page.having("data-figure", tag="code")[0].text


def test_what_a_site_says_does_nothing_in_a_browser(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    data = rollout(
        waves=[wave("canary", ["site-0001"])],
        sites={"site-0001": site("site-0001", wave="canary", state="failed", message=hostile)},
        outcome="finished",
    )

    page = rendered(write_rollout_report(directory=tmp_path, data=data))

    tags = [one.tag for one in page.elements]
    assert "img" not in tags
    assert "script" not in tags
    assert next(one.text for one in page.elements if one.tag == "title").startswith("Finished: rollout")
    assert any(hostile in one.text for one in page.having("data-site"))


@pytest.mark.parametrize(("scheme", "ground"), [("light", "fbfaf6"), ("dark", "121716")])
def test_the_page_follows_the_readers_light_or_dark(tmp_path: Path, scheme: str, ground: str) -> None:
    page = write_rollout_report(directory=tmp_path, data=halted())
    picture = tmp_path / "page.png"

    browse(page, f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", f"--screenshot={picture}")

    assert first_pixel(picture.read_bytes()) == ground


def first_pixel(png: bytes) -> str:
    """The colour of the upper left corner; whatever the filter of the first line, it is written as it is."""
    place, packed = 8, b""
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        if png[place + 4 : place + 8] == b"IDAT":
            packed += png[place + 8 : place + 8 + length]
        place += length + 12
    return zlib.decompress(packed)[1:4].hex()
