# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from . import image, lifecycle, machine, processes, report, teardown, topology
from . import state as states
from .errors import LabError, NotRootError
from .progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

EPILOG = """\
hosts:     gw1 gw2 core1 site-0001 site-0002 ...
networks:  oob frame_relay internet inside (each host's interfaces: oob0 fr0 inet0 inside0, a site's LAN is lan0)
"""


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(
        prog="tools/lab",
        description="A fleet of real Linux hosts on this machine. Needs root.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="bring the lab up, or complete it, and write its inventory")
    up.add_argument("--sites", type=int, metavar="N", help="exactly N sites (default: as many as are up, else 8)")
    up.add_argument("--release", choices=image.RELEASES, help="Debian release of the hosts (default: bookworm)")
    verbs.add_parser("down", help="take the lab down and prove that nothing is left")
    status = verbs.add_parser("status", help="every host: power, ssh, cut cables; exit code 0 when all are well")
    status.add_argument("--format", choices=("table", "json"), default="table")
    run = verbs.add_parser("run", help="run a command inside a host; its exit code is passed on")
    run.add_argument("host", metavar="HOST")
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD")
    shell = verbs.add_parser("shell", help="a shell inside a host")
    shell.add_argument("host", metavar="HOST")
    cut = verbs.add_parser("cut", help="cut a host's cable to a network")
    cut.add_argument("--how", choices=("cable", "silent"), default="cable", help="carrier is lost, or nothing passes")
    mend = verbs.add_parser("mend", help="mend a cut cable")
    for verb in (cut, mend):
        verb.add_argument("host", metavar="HOST")
        verb.add_argument("network", metavar="NETWORK")
    for name, text in (("kill", "cut a host's power"), ("boot", "give a host its power back")):
        verbs.add_parser(name, help=text).add_argument("host", metavar="HOST")
    return top


def _enter(*, name: str, command: Sequence[str]) -> NoReturn:
    state = states.require()
    topology.host(name=name, sites=state.sites)
    entry = state.hosts.get(name)
    if entry is None or entry.init is None or not processes.alive(entry.init):
        raise LabError(f"{name} has no power. Give it back: tools/lab boot {name}")
    terminal = os.environ.get("TERM") if sys.stdin.isatty() else None
    full = processes.enter_command(init=entry.init, command=list(command), terminal=terminal)
    os.execvp(full[0], full)  # noqa: S606 - the command's exit code and signals are to be this process's own


def _status(arguments: argparse.Namespace) -> int:
    output = arguments.format
    state = states.load()
    if state is None:
        if output == "json":
            print(json.dumps({"up": False, "hosts": []}))
        else:
            print("No lab is up. Start one with: tools/lab up")
        return 1
    rows = report.rows(state=state)
    if output == "json":
        print(json.dumps(report.document(state=state, rows=rows), indent=2))
    else:
        print(report.table(state=state, rows=rows))
    return 0 if all(row.well for row in rows) else 1


def _up(arguments: argparse.Namespace) -> int:
    lifecycle.up(sites=arguments.sites, release=arguments.release, progress=Progress())
    return 0


def _down(_: argparse.Namespace) -> int:
    teardown.down(progress=Progress())
    return 0


def _run(arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise LabError(f"What is to be run on {arguments.host}? tools/lab run {arguments.host} -- COMMAND")
    _enter(name=arguments.host, command=command)


def _shell(arguments: argparse.Namespace) -> int:
    _enter(name=arguments.host, command=["bash", "-l"])


def _cut(arguments: argparse.Namespace) -> int:
    how = arguments.how if arguments.verb == "cut" else None
    lifecycle.cut(name=arguments.host, network_name=arguments.network, how=how, progress=Progress())
    return 0


def _kill(arguments: argparse.Namespace) -> int:
    lifecycle.kill(name=arguments.host, progress=Progress())
    return 0


def _boot(arguments: argparse.Namespace) -> int:
    lifecycle.boot(name=arguments.host, progress=Progress())
    return 0


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "up": _up,
    "down": _down,
    "status": _status,
    "run": _run,
    "shell": _shell,
    "cut": _cut,
    "mend": _cut,
    "kill": _kill,
    "boot": _boot,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: exit code 0 done, 1 an error that was said, 2 wrong usage or not root."""
    arguments = parser().parse_args(argv)
    try:
        machine.require_root()
        return VERBS[arguments.verb](arguments)
    except NotRootError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. tools/lab up completes what was begun, tools/lab down removes it.", file=sys.stderr)
        return 130
