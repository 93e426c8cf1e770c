# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of a run: what it says, and that it is whole whenever somebody looks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import run_report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import (
    Circumstances,
    ReportError,
    report,
    report_text,
    write_report,
)

if TYPE_CHECKING:
    from pathlib import Path

BEGAN = 1795445718.0
SITES: dict[str, dict[str, Any]] = {
    "site-0002": {
        "ok": False,
        "changed": False,
        "reason": "unreachable",
        "message": "site-0002: nothing answers at 198.18.1.2:22 within 10 s.",
        "seconds": 10.0,
    },
    "site-0001": {
        "ok": True,
        "changed": True,
        "reason": "",
        "message": "staged as generation 2",
        "generation": 2,
        "digest": "338abfcf1052103fef1bfb577fee0ce4c8f6add4e761f8d91c640e3d0d3f63bc",
        "seconds": 0.21,
    },
    "site-0003": {"ok": True, "changed": False, "reason": "", "message": "generation 1 holds it", "seconds": 0.1},
}
KEYS: dict[str, dict[int, dict[str, Any]]] = {
    "site-0001": {
        1: {"epoch": 1, "kid": "de77bac98661ba3d", "psk_fingerprint": "SHA256:00", "state": "confirmed"},
        2: {"epoch": 2, "kid": "0123456789abcdef", "psk_fingerprint": "SHA256:11", "state": "staged", "issued": 1},
    }
}


def data(ended: float = BEGAN + 12.5) -> dict[str, Any]:
    circumstances = Circumstances(fleet="lab", verb="stage", by="ops@controller", began=BEGAN, ended=ended)
    return report(circumstances=circumstances, sites=SITES, keys=KEYS)


def test_the_data() -> None:
    found = data()

    assert list(found["sites"]) == ["site-0001", "site-0002", "site-0003"]
    assert found["summary"] == {"total": 3, "changed": 1, "as_they_should_be": 1, "failed": 1}
    assert found["failed_by_reason"] == {"unreachable": ["site-0002"]}
    assert (found["began"], found["ended"], found["seconds"]) == ("2026-11-23T14:55:18Z", "2026-11-23T14:55:30Z", 12.5)
    # The newest key counts, by what it may be known by outside.
    assert {fact: found["sites"]["site-0001"].get(fact) for fact in ("epoch", "kid", "state", "issued")} == {
        "epoch": 2,
        "kid": "0123456789abcdef",
        "state": "staged",
        "issued": None,
    }


def test_the_text() -> None:
    assert report_text(data()) == (
        "stage on fleet lab by ops@controller, 2026-11-23T14:55:18Z to 2026-11-23T14:55:30Z\n"
        "3 total, 1 changed, 1 as they should be, 1 failed\n"
        "\n"
        "unreachable: 1\n"
        "  site-0002: nothing answers at 198.18.1.2:22 within 10 s.\n"
        "\n"
        "Run the same again when this is mended: only what is missing is sent.\n"
        "\n"
        "SITE       RESULT   EPOCH  KEY               GENERATION  BUNDLE        SECONDS  MESSAGE\n"
        "site-0001  changed  2      0123456789abcdef  2           338abfcf1052  0.2      staged as generation 2\n"
        "site-0002  failed   -      -                 -           -             10.0     unreachable\n"
        "site-0003  ok       -      -                 -           -             0.1      generation 1 holds it\n"
    )


def test_latest_leads_to_the_last_one_and_the_former_stays(tmp_path: Path) -> None:
    base = tmp_path / "reports" / "keys"

    first = write_report(base=base, data=data())
    second = write_report(base=base, data=data(ended=BEGAN + 20))

    assert (first.name, second.name) == ("keys-20261123T145530Z.txt", "keys-20261123T145538Z.txt")
    assert first.read_text(encoding="utf-8") == report_text(data())
    latest = base.with_name("keys-latest.txt")
    assert latest.readlink() == second.relative_to(base.parent)
    assert json.loads(base.with_name("keys-latest.json").read_text(encoding="utf-8"))["seconds"] == 20
    assert sorted(path.name for path in base.parent.iterdir()) == [
        "keys-20261123T145530Z.json",
        "keys-20261123T145530Z.txt",
        "keys-20261123T145538Z.json",
        "keys-20261123T145538Z.txt",
        "keys-latest.json",
        "keys-latest.txt",
    ]


def test_a_crash_on_the_way_leaves_the_former_report_as_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "keys"
    write_report(base=base, data=data())

    def crash(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_report, "write_atomic", crash)
    with pytest.raises(KeyboardInterrupt):
        write_report(base=base, data=data(ended=BEGAN + 20))

    assert json.loads(base.with_name("keys-latest.json").read_text(encoding="utf-8"))["seconds"] == 12.5


def test_a_report_that_cannot_be_written_says_that_the_work_is_done(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way", encoding="utf-8")

    with pytest.raises(ReportError, match=r"reports/keys-.* could not be written: .*What was done at the sites stands"):
        write_report(base=tmp_path / "reports" / "keys", data=data())
