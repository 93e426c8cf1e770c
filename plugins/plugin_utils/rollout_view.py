# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout as data for reports and programs: times as people write them, keys by fingerprint, no secret."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_states import newest_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.run_report import KEY_FACTS, iso

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout import Rollout
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.rollout_lines import Control


def rollout_data(
    *, record: Rollout, control: Control, keys: Mapping[str, Mapping[int, Mapping[str, Any]]]
) -> dict[str, Any]:
    """All of it. `keys` is the key store's index of its sites."""
    ended = record.ended
    return {
        "rollout": record.rollout,
        "fleet": record.fleet,
        "what": record.what,
        "reason": record.reason,
        "by": record.by,
        "began": iso(record.began),
        "ended": _moment(ended),
        "seconds": round((ended if ended is not None else time.time()) - record.began, 1),
        "outcome": record.outcome,
        "exit_code": record.exit_code,
        "halts": [{"at": iso(one.at), "wave": one.wave, "why": one.why} for one in record.halts],
        "budgets": {"failed": record.failed, "unreachable": record.unreachable},
        "summary": record.summary,
        "paused_by": control.paused_by,
        "waves": [
            {
                "name": wave.name,
                "group": wave.group,
                "state": wave.state,
                "began": _moment(wave.began),
                "ended": _moment(wave.ended or wave.proven),
                "soak_seconds": wave.soak_seconds,
                "approval": wave.approval,
                "approved_by": record.approved_by(wave, control=control),
                "settled": wave.settled,
                "sites": [site for site in wave.sites if site in record.sites],
            }
            for wave in record.part
        ],
        "sites": {
            site: {
                "group": line.group,
                "wave": line.wave,
                "state": line.state,
                "reason": line.reason,
                "message": line.message,
                "activated": _moment(line.activated),
                "seconds": line.seconds,
                **_key(keys.get(site, {})),
            }
            for site, line in sorted(record.sites.items())
        },
    }


def _moment(when: float | None) -> str:
    return iso(when) if when is not None else ""


def _key(epochs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """What its key is known by, empty for a site without one. The key's state is left out: it is about the site's."""
    newest = epochs.get(newest_of(epochs), {})
    return {fact: newest.get(fact, "") for fact in KEY_FACTS if fact != "state"}
