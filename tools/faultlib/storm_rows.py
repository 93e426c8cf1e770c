# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of bench/storm: its scenes, their targets, and the judgement of what was seen. Pure."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .hooks import LIMIT_MS, Waits
from .rows import seconds_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal["owner-dead", "daemons-restarted", "clients-restarted", "outage", "all-start", "junk", "frozen"]
# How much longer a recovery may take under a flood of first packets.
JUNK_FACTOR = 1.5
# How much faster than the others it has to be where detection is what takes the time.
DEFAULTS_FACTOR, STORY_FACTOR = 5.0, 25.0
MOST_PROGRAMS = 7


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One storm. `target` is for the last of all sites, in seconds; `seconds` is an outage's length.

    `detection` says whether the sites have to find out by themselves that their session is gone; `flood` what is sent
    meanwhile; `sides` who goes through it in a whole run, which with 400 sites is to be over in 40 minutes.
    """

    name: str
    title: str
    kind: Kind
    target: float | None
    seconds: float = 0.0
    detection: bool = False
    flood: str = ""
    sides: tuple[str, ...] = ("ours", "stock")


SIDES = ("ours", "stock", "story")
SCENES = (
    Scene(name="owner-dead", title="owner's host dead", kind="owner-dead", target=10.0, detection=True, sides=SIDES),
    Scene(name="daemons", title="all daemons killed, started", kind="daemons-restarted", target=9.0, detection=True),
    Scene(name="junk", title="the same, 10,000 junk/s", kind="junk", target=None, flood="junk", sides=("ours",)),
    Scene(
        name="foreign",
        title="the same, 10,000 foreign/s",
        kind="junk",
        target=None,
        flood="foreign",
        sides=("ours",),
    ),
    Scene(
        name="outage-45",
        title="both down 45 s, one returns",
        kind="outage",
        target=5.0,
        seconds=45,
    ),
    Scene(
        name="outage-600",
        title="both down 10 min, one returns",
        kind="outage",
        target=5.0,
        seconds=600,
        sides=("ours",),
    ),
    Scene(name="herd", title="every client begins anew", kind="clients-restarted", target=10.0, sides=("ours",)),
    Scene(name="start", title="every client starts at once", kind="all-start", target=10.0),
    Scene(name="frozen", title="one daemon frozen 60 s", kind="frozen", target=None, seconds=60, sides=("ours",)),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one side went through: when each site was back (infinite: not by the end), and what it cost.

    `waited` is when the looking ended. Processor time is in seconds of one processor; `busy` is the share of the
    machine's processors that was used between the fault and the last site's return. `made` is how the scene came about,
    in seconds: for the simulator, which is to say the rest by itself. `hook_ms` is how long a daemon stood still for
    each key that was judged. `programs` is the processor time of the whole scene by program, and of `all` of them.
    """

    side: str
    scene: str
    back: dict[str, float]
    waited: float
    half_open: int
    drops: int
    packets: int
    cpu_daemons: float
    cpu_clients: float
    cpu_machine: float
    busy: float
    note: str = ""
    made: dict[str, float] = field(default_factory=dict)
    hook_ms: tuple[float, ...] = ()
    programs: dict[str, float] = field(default_factory=dict)

    @property
    def times(self) -> list[float]:
        """Seconds, sorted."""
        return sorted(self.back.values())

    @property
    def last(self) -> float:
        """When the last site was back."""
        return max(self.back.values(), default=math.inf)

    def share(self, part: float) -> float:
        """When that share of the sites was back."""
        times = self.times
        return times[min(len(times) - 1, math.ceil(part * len(times)) - 1)] if times else math.inf


def missed(*, scene: Scene, results: Mapping[str, Result], calm: Result | None, slack: float) -> list[str]:
    """What of a scene's targets was not met, in words. `calm` is the same recovery without the flood."""
    found = []
    ours = results["ours"]
    if scene.target is not None and not ours.last < scene.target * slack:
        found.append(f"last site {seconds_text(ours.last)} s, wanted < {scene.target * slack:g}")
    # After an outage the first may be back before the last daemon is up, from which on the seconds count;
    # that all of them were lost has been seen before the gateway returned.
    if scene.kind != "outage" and (untouched := sum(seconds == 0 for seconds in ours.back.values())):
        # Where nothing broke nothing can have recovered: such a run has shown nothing.
        found.append(f"{untouched} sites lost nothing, so the scene was not made for them")
    if math.isinf(ours.last):
        found.append(f"{sum(map(math.isinf, ours.back.values()))} sites did not come back")
    if scene.kind == "junk" and calm is not None and not ours.last <= calm.last * JUNK_FACTOR * slack:
        found.append(
            f"last site {seconds_text(ours.last)} s, wanted {JUNK_FACTOR * slack:g} times {seconds_text(calm.last)}"
        )
    waits = Waits(ms=ours.hook_ms)
    if not waits.well(slack=slack):
        found.append(f"{waits.text()}, wanted: 99 % under {LIMIT_MS * slack:g} ms")
    if scene.detection:
        for side, factor in (("stock", DEFAULTS_FACTOR), ("story", STORY_FACTOR)):
            other = results.get(side)
            if other is not None and not min(other.last, other.waited) >= factor / slack * ours.last:
                found.append(f"{seconds_text(ours.last)} s is not {factor / slack:g} times faster than {side}")
    return found


def row(*, scene: Scene, result: Result) -> tuple[str, ...]:
    """One line of the table."""
    return (
        scene.title,
        result.side,
        "-" if scene.target is None or result.side != "ours" else f"< {scene.target:g}",
        seconds_text(min(result.times, default=math.inf), waited=result.waited),
        seconds_text(statistics.median(result.times) if result.times else math.inf, waited=result.waited),
        seconds_text(result.share(0.99), waited=result.waited),
        seconds_text(result.last, waited=result.waited),
        str(result.half_open),
        str(result.drops),
        str(result.packets),
        f"{result.cpu_daemons:.2f}",
        f"{result.cpu_clients:.2f}",
        f"{result.busy:.0%}",
    )


def programs_text(result: Result) -> str:
    """Who used the processors, in one line; what ended meanwhile, and what the kernel did for nobody, is the rest."""
    known = {name: seconds for name, seconds in result.programs.items() if name != "all"}
    most = sorted(known.items(), key=lambda one: -one[1])[:MOST_PROGRAMS]
    total = result.programs.get("all", 0.0)
    parts = [f"{name} {seconds:.1f}" for name, seconds in most] + [f"the rest {total - sum(dict(most).values()):.1f}"]
    return f"{total:.1f} s of processor time: {', '.join(parts)}"


HEAD = (
    "scene",
    "side",
    "wanted",
    "first",
    "median",
    "99 %",
    "last",
    "UNDEF",
    "drops",
    "packets",
    "CPU daemons",
    "CPU clients",
    "machine",
)


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines to print."""
    every = [HEAD, *rows]
    widths = [max(len(one[column]) for one in every) for column in range(len(HEAD))]
    return [
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(one, widths, strict=True))
        ).rstrip()
        for one in every
    ]
