# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout engine hands to the report: small and made by hand, or as large as one likes."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any, Final

BEGAN: Final = dt.datetime(2026, 11, 26, 23, 50, tzinfo=dt.UTC)


def at(seconds: float) -> str:
    """A moment of the rollout."""
    return (BEGAN + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def site(name: str, *, wave: str, state: str = "done", seconds: float | None = 0.31, **more: Any) -> dict[str, Any]:
    """One site's entry."""
    changed = state in {"done", "failed"}
    return {
        "group": wave,
        "wave": wave,
        "state": state,
        "reason": "",
        "message": "confirmed as generation 2" if state == "done" else "",
        "activated": at(12) if changed else "",
        "seconds": seconds if changed else None,
        "epoch": 2,
        "kid": hashlib.sha256(name.encode()).hexdigest()[:16],
        "psk_fingerprint": f"SHA256:{hashlib.sha256(b'psk' + name.encode()).hexdigest()[:32]}",
        "certificate_fingerprint": f"SHA256:{hashlib.sha256(b'crt' + name.encode()).hexdigest()}",
        **more,
    }


def wave(name: str, sites: list[str], *, state: str = "done", began: str = "", ended: str = "", **more: Any) -> Any:
    """One wave's entry."""
    return {
        "name": name,
        "group": name,
        "state": state,
        "began": began,
        "ended": ended,
        "soak_seconds": 0,
        "approval": False,
        "approved_by": "",
        "sites": sites,
        **more,
    }


def rollout(*, waves: list[Any], sites: dict[str, Any], outcome: str, **more: Any) -> dict[str, Any]:
    """All of it, with the sums that follow."""
    states = [one["state"] for one in sites.values()]
    return {
        "rollout": "20261126-2350-keys",
        "fleet": "lab",
        "what": "keys",
        "reason": "quarter 3",
        "by": "root@controller",
        "began": at(0),
        "ended": at(130),
        "seconds": 130.2,
        "outcome": outcome,
        "exit_code": 0,
        "halts": [],
        "budgets": {"failed": 0, "unreachable": 4},
        "summary": {
            "total": len(sites),
            **{state: states.count(state) for state in ("done", "failed", "aborted", "parked", "waiting")},
        },
        "waves": waves,
        "sites": sites,
        **more,
    }


def halted() -> dict[str, Any]:
    """A canary of two, of which one failed; a wave with every other state behind it; one that did not begin."""
    sites = {
        "site-0001": site("site-0001", wave="canary", seconds=0.28),
        "site-0002": site("site-0002", wave="canary", seconds=0.9),
        "site-0003": site(
            "site-0003",
            wave="north",
            state="failed",
            seconds=None,
            activated=at(71),
            reason="no evidence",
            message="site-0003: gw1 has not seen it with epoch 2 within 20 s.",
        ),
        "site-0004": site(
            "site-0004",
            wave="north",
            state="aborted",
            reason="clock",
            message="site-0004: its clock is 2 years behind; nothing was changed.",
        ),
        "site-0005": site(
            "site-0005",
            wave="north",
            state="parked",
            reason="unreachable",
            message="site-0005: nothing answers at 198.18.1.5:22 within 10 s.",
        ),
        "site-0006": site("site-0006", wave="north", seconds=0.31, activated=at(72)),
        "site-0007": site("site-0007", wave="south", state="waiting"),
    }
    return rollout(
        waves=[
            wave("canary", ["site-0001", "site-0002"], began=at(10), ended=at(62), soak_seconds=45),
            wave(
                "north",
                ["site-0003", "site-0004", "site-0005", "site-0006"],
                state="halted",
                began=at(70),
                ended=at(128),
                approval=True,
                approved_by="eve@desk",
            ),
            wave("south", ["site-0007"], state="waiting", approval=True),
        ],
        sites=sites,
        outcome="halted",
        exit_code=3,
        halts=[{"at": at(127), "wave": "north", "why": "1 site failed, the budget is 0"}],
    )


def finished(number: int, *, waves: int = 5) -> dict[str, Any]:
    """So many sites, all well but every 97th, which is parked."""
    names = [f"site-{count:05}" for count in range(1, number + 1)]
    cut = [names[index::waves] for index in range(waves)]
    sites = {
        name: site(
            name,
            wave=f"group-{index + 1}",
            state="parked" if int(name[5:]) % 97 == 0 else "done",
            seconds=round(0.22 + (int(hashlib.sha256(name.encode()).hexdigest()[:4], 16) % 1000) ** 2 / 1e6, 2),
            activated="" if int(name[5:]) % 97 == 0 else at(60 * index + 3 + 40 * place / len(part)),
        )
        for index, part in enumerate(cut)
        for place, name in enumerate(part)
    }
    return rollout(
        waves=[
            wave(f"group-{index + 1}", part, began=at(60 * index), ended=at(60 * index + 55), soak_seconds=10)
            for index, part in enumerate(cut)
        ],
        sites=sites,
        outcome="finished",
        ended=at(60 * waves),
        seconds=60.0 * waves,
    )
