# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab whose fleet works, before anything of it is broken: the one that is up, or one made for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from lablib import paths
from lablib import state as states
from lablib.errors import LabError

from . import fleet_view, pair, scene
from .measure import MeasureError, Measurement

if TYPE_CHECKING:
    from .fleet_view import FleetView

ROOT = Path(__file__).resolve().parents[2]
PLAN = paths.INVENTORY / "lab.fleet.yml"
STEADY_SECONDS = 30
# So many are not asked fifty times a second whether they are there.
MANY_SITES = 100


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
    storm = len(view.lans) > MANY_SITES
    with Measurement(view=view, out=logs / "before.json", storm=storm) as measurement:
        return measurement.wait_steady(seconds=STEADY_SECONDS)


def site_playbook() -> None:
    """Bring everything to what the plan says."""
    command = [str(ROOT / ".venv/bin/ansible-playbook"), "-i", str(PLAN), str(ROOT / "playbooks/site.yml")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        raise ReadyError(f"site.yml ended with {done.returncode}:\n{done.stdout[-3000:]}")


def make_ready(*, sites: int, logs: Path, at_least: bool) -> FleetView:
    """A working fleet of that many sites (or more, when a larger one is there and that will do)."""
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
    site_playbook()
    view = load_view()
    if not working(view=view, logs=logs):
        raise ReadyError(f"after site.yml the fleet does not work: {'; '.join(pair.problems(view)) or 'silent sites'}")
    return view
