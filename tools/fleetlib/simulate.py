# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet simulate` does."""

from __future__ import annotations

import argparse
import json
import sys
import typing as t
from dataclasses import replace
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import worst
from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity_answer import rate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm import simulate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_measured import (
    calibrated,
    calibration_table,
    compare,
    data,
    read_measured,
    verdict,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import (
    DEFAULT_TIMERS,
    KERNEL_BUFFER,
    SCENE_KINDS,
    Costs,
    Scene,
    Setup,
    receive_buffer,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_report import report, storm_table
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_story import SCENE, story_setups
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import SPREAD, site_timers
from fleetlib.storm_plot import check_plot, plot_calibration, plot_recovery

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import Measured
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import Outcome

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
    verb.add_argument("--link", type=_bits, default=0.0, metavar="RATE", help="the gateway's link, as 10mbit")
    verb.add_argument("--rtt", type=_milliseconds, metavar="MS", help="to a site and back (default 0.3)")
    verb.add_argument("--handshake-ms", type=_milliseconds, metavar="MS", help="CPU of a handshake (default 4.43)")
    verb.add_argument("--client-version", choices=["2.6", "2.7"], default="2.6", help="of the sites (default 2.6)")
    verb.add_argument(
        "--beside-defaults", action="store_true", help="OpenVPN's defaults and the story's options beside it"
    )
    verb.add_argument("--seed", type=int, default=1, help="another run of chance (default 1)")
    verb.add_argument("--plot", type=Path, metavar="FILE", help="draw sites back over time into FILE.svg or FILE.png")
    other = verb.add_mutually_exclusive_group()
    other.add_argument("--story", action="store_true", help="replay the storm of 2006 instead of the plan's")
    other.add_argument(
        "--calibrate", type=Path, metavar="DIR", help="hold the model against storms that bench/storm measured"
    )
    verb.set_defaults(run=run_storm)


def wants_plan(args: argparse.Namespace) -> bool:
    """Whether this call is about a plan: the story and what was measured need none."""
    return not (getattr(args, "story", False) or getattr(args, "calibrate", None))


def run_storm(args: argparse.Namespace) -> bool:
    """Simulate; true when every site came back or the model holds, and always for the story."""
    if args.plot is not None:
        check_plot(args.plot)
    if args.calibrate is not None:
        return _calibrate(args)
    if args.story:
        outcomes = [simulate(setup=one, scene=SCENE, horizon=STORY_SECONDS) for one in story_setups()]
    else:
        junk = 10_000.0 if args.scene == "junk" else 0.0
        scene = Scene(kind=args.scene, seconds=args.seconds, junk_per_second=junk)
        outcomes = [simulate(setup=one, scene=scene, seed=args.seed) for one in _setups(args)]
    found = [report(one) for one in outcomes]
    if args.plot is not None:
        plot_recovery(panels=_panels(outcomes, story=args.story), path=args.plot)
    print(json.dumps(found, indent=2) if args.format == "json" else storm_table(outcomes))
    # The others are shown for comparison, so the plan's own decides.
    return bool(args.story) or bool(found[0]["back"] == found[0]["affected"])


def _calibrate(args: argparse.Namespace) -> bool:
    measured, short = read_measured(args.calibrate)
    for path in short:
        print(f"{path}: left out: it does not say how long the gateways were away.", file=sys.stderr)
    these = [compare(one) for one in measured]
    if args.plot is not None and these:
        plot_calibration(these=these, path=args.plot)
    if args.format == "json":
        print(json.dumps([data(one) for one in these], indent=2))
    else:
        print(f"{calibration_table(these)}\n\n{verdict(these)}")
    return calibrated(these)


def _panels(outcomes: Sequence[Outcome], *, story: bool) -> dict[str, list[tuple[str, Outcome]]]:
    """The story's runs: sites and cost make a panel, the limit a line. Any others: one panel."""
    panels: dict[str, list[tuple[str, Outcome]]] = {}
    for one in outcomes:
        title, _comma, limit = one.setup.name.rpartition(", ") if story else (one.scene.kind, "", one.setup.name)
        panels.setdefault(title, []).append((limit, one))
    return panels


def _setups(args: argparse.Namespace) -> list[Setup]:
    own = _setup(args)
    if not args.beside_defaults:
        return [own]
    defaults = replace(
        own,
        name="OpenVPN's defaults",
        keepalive=(10, 60),
        timers=[DEFAULT_TIMERS],
        connect_freq=None,
        connect_freq_initial=(100, 10),
        receive_buffer=KERNEL_BUFFER,
        max_clients=1024,
        hand_window=60,
    )
    return [own, defaults, replace(defaults, name="the story's options", keepalive=(60, 300), daemons=1)]


def _setup(args: argparse.Namespace) -> Setup:
    fleet = load_fleet(plan_file=args.plan_file)
    fleet.refuse_bad_capacity()
    plan = fleet.plan
    sites = len(fleet.sites) if args.sites is None else args.sites
    daemons = len(fleet.instances) if args.daemons is None else args.daemons
    known = [one.timers for one in fleet.sites][:sites]
    measured = worst(list(fleet.capacity.measured)) if fleet.capacity and fleet.capacity.measured else None
    values = None if fleet.capacity is None else fleet.capacity.values
    spread = SPREAD if values is None else values.spread
    others = [site_timers(site_id=f"simulated-{number}", spread=spread) for number in range(len(known), sites)]
    limit = 4 * max(CAPACITY, -(-sites // max(1, daemons)))
    limiter = args.connect_freq or (None if values is None or not values.connect_freq else (values.connect_freq, 1))
    pings = args.keepalive or (plan.tunnels.keepalive.interval, plan.tunnels.keepalive.timeout)
    return Setup(
        name=plan.name,
        sites=sites,
        daemons=daemons,
        cores=min(one.cores for one in plan.gateways) if args.cores is None else args.cores,
        keepalive=(pings[0], pings[1]),
        timers=[*known, *others],
        client_version=args.client_version,
        costs=_costs(args, measured),
        connect_freq=None if limiter is None else (limiter[0], limiter[1]),
        connect_freq_initial=(limit if values is None else values.connect_freq_initial, 10),
        receive_buffer=receive_buffer(option=RCVBUF if values is None else values.socket_buffer),
        max_clients=limit if values is None else values.max_clients,
        hand_window=HAND_WINDOW if values is None else values.hand_window,
        link_bits=args.link,
        **({} if args.rtt is None else {"round_trip": args.rtt / 1000}),
    )


def _costs(args: argparse.Namespace, measured: Measured | None) -> Costs:
    """What a handshake costs: as it was said, else as it was measured on the gateways, else as others measured it."""
    known = Costs() if measured is None else Costs(handshake=measured.cost_ms, reset=measured.first_packet_ms)
    return known if args.handshake_ms is None else replace(known, handshake=args.handshake_ms)


def _bits(text: str) -> float:
    try:
        return rate(text) * 1e6
    except FleetError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 60_000:
        raise argparse.ArgumentTypeError(f"{text!r}: milliseconds, 0 to 60000, are wanted")
    return value
