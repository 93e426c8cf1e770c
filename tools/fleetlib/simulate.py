# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet simulate` does."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import worst
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm import simulate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import (
    SCENE_KINDS,
    Costs,
    Scene,
    Setup,
    receive_buffer,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_report import report, storm_table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_story import SCENE, story_setups
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import SPREAD, site_timers

if t.TYPE_CHECKING:
    import argparse

# The role's defaults, where nothing was measured: rcvbuf, hand-window, four of each limit per site of its capacity.
RCVBUF, HAND_WINDOW, CAPACITY = 2_097_152, 30, 512
STORY_SECONDS = 1200.0


def add(verbs: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> None:
    """The verb."""
    verb = verbs.add_parser("simulate", parents=[common, shape], help="how long sites would take to come back")
    verb.add_argument("--scene", choices=SCENE_KINDS, default="owner-dead")
    verb.add_argument("--seconds", type=float, default=45.0, help="how long an outage or a freeze lasts (default 45)")
    verb.add_argument("--sites", type=int, help="another number of sites than the plan has")
    verb.add_argument("--daemons", type=int, help="another number of daemons")
    verb.add_argument("--cores", type=int, help="another number of cores")
    verb.add_argument("--keepalive", type=int, nargs=2, metavar=("INTERVAL", "TIMEOUT"), help="another keepalive")
    verb.add_argument("--connect-freq", type=int, nargs=2, metavar=("N", "SECONDS"), help="a limit of new sessions")
    verb.add_argument("--seed", type=int, default=1, help="another run of chance (default 1)")
    verb.add_argument("--story", action="store_true", help="replay the storm of 2006 instead of the plan's")
    verb.set_defaults(run=run_storm)


def run_storm(args: argparse.Namespace) -> bool:
    """Simulate; true when every site came back, and always for the story."""
    if args.story:
        outcomes = [simulate(setup=one, scene=SCENE, horizon=STORY_SECONDS) for one in story_setups()]
    else:
        junk = 10_000.0 if args.scene == "junk" else 0.0
        scene = Scene(kind=args.scene, seconds=args.seconds, junk_per_second=junk)
        outcomes = [simulate(setup=_setup(args), scene=scene, seed=args.seed)]
    data = [report(one) for one in outcomes]
    print(json.dumps(data, indent=2) if args.format == "json" else storm_table(outcomes))
    return args.story or all(one["back"] == one["affected"] for one in data)


def _setup(args: argparse.Namespace) -> Setup:
    fleet = load_fleet(plan_file=args.plan_file)
    plan = fleet.plan
    sites = len(fleet.sites) if args.sites is None else args.sites
    daemons = len(fleet.instances) if args.daemons is None else args.daemons
    known = [one.timers for one in fleet.sites][:sites]
    measured = None if fleet.capacity is None else worst(list(fleet.capacity.measured))
    values = None if fleet.capacity is None else fleet.capacity.values
    spread = SPREAD if values is None else values.spread
    others = [site_timers(site_id=f"simulated-{number}", spread=spread) for number in range(len(known), sites)]
    limit = 4 * max(CAPACITY if values is None else values.capacity, -(-sites // max(1, daemons)))
    limiter = args.connect_freq or (None if values is None or not values.connect_freq else (values.connect_freq, 1))
    pings = args.keepalive or (plan.tunnels.keepalive.interval, plan.tunnels.keepalive.timeout)
    return Setup(
        name=plan.name,
        sites=sites,
        daemons=daemons,
        cores=min(one.cores for one in plan.gateways) if args.cores is None else args.cores,
        keepalive=(pings[0], pings[1]),
        timers=[*known, *others],
        costs=Costs() if measured is None else Costs(handshake=measured.cost_ms, reset=measured.first_packet_ms),
        connect_freq=None if limiter is None else (limiter[0], limiter[1]),
        connect_freq_initial=(limit, 10),
        receive_buffer=receive_buffer(option=RCVBUF if values is None else values.socket_buffer),
        max_clients=limit,
        hand_window=HAND_WINDOW if values is None else values.hand_window,
    )
