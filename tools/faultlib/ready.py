# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab whose fleet works, before anything of it is broken: the one that is up, or one made for it."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from lablib import paths
from lablib import state as states
from lablib.errors import LabError

from . import fleet_view, pair, scene
from .measure import FINE, STORM, MeasureError, Measurement

if TYPE_CHECKING:
    from collections.abc import Callable

    from .fleet_view import FleetView

ROOT = Path(__file__).resolve().parents[2]
PLAN = paths.INVENTORY / "lab.fleet.yml"
STEADY_SECONDS = 30
# So many are not asked fifty times a second whether they are there.
MANY_SITES = 100
CHANGED = re.compile(r"\bok=\d+ +changed=(\d+)")
SLOWEST = 6


class ReadyError(Exception):
    """There is no working fleet, and none could be made."""


def load_view() -> FleetView:
    """The lab's fleet as plan, registry and lock have it now."""
    return fleet_view.view(fleet=load_fleet(plan_file=PLAN))


def working(*, view: FleetView, logs: Path) -> bool:
    """Whether the fleet that is there can be used as it is."""
    if pair.problems(view):
        return False
    logs.mkdir(parents=True, exist_ok=True)
    pace = STORM if len(view.lans) > MANY_SITES else FINE
    with Measurement(view=view, out=logs / "before.json", pace=pace) as measurement:
        return measurement.wait_steady(seconds=STEADY_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a playbook: how long, how many changes it reported, and its slowest tasks in seconds."""

    seconds: float
    changed: int
    slowest: list[tuple[float, str]]


def site_playbook() -> Run:
    """Bring everything to what the plan says."""
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(PLAN), str(ROOT / "playbooks/site.yml")]
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    heads: list[tuple[float, str]] = []
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(("TASK [", "RUNNING HANDLER [", "PLAY RECAP")):
            heads.append((time.monotonic(), line.partition("[")[2].partition("]")[0]))
    if process.wait():
        raise ReadyError(f"site.yml ended with {process.returncode}:\n{''.join(lines)[-3000:]}")
    return Run(
        seconds=time.monotonic() - began,
        changed=sum(int(number) for line in lines for number in CHANGED.findall(line)),
        slowest=sorted(
            ((after - when, name) for (when, name), (after, _next) in itertools.pairwise(heads)), reverse=True
        )[:SLOWEST],
    )


def make_ready(*, sites: int, logs: Path, at_least: bool, told: Callable[[Run], None] = lambda _run: None) -> FleetView:
    """A working fleet of that many sites (or more, when a larger one is there and that will do).

    `told` is called with the run of site.yml, when there has to be one.
    """
    state = states.load()
    if state is not None and (state.sites == sites or (at_least and state.sites > sites)):
        try:
            scene.mend_all()
            view = load_view()
            if len(view.lans) == state.sites and working(view=view, logs=logs):
                return view
        except (LabError, scene.SceneError, MeasureError, OSError):
            pass  # whatever is there cannot be used
    done = subprocess.run(
        [str(ROOT / "tools" / "lab"), "up", "--sites", str(sites)],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise ReadyError(done.stdout.strip())
    told(site_playbook())
    view = load_view()
    if not working(view=view, logs=logs):
        raise ReadyError(f"after site.yml the fleet does not work: {'; '.join(pair.problems(view)) or 'silent sites'}")
    return view
