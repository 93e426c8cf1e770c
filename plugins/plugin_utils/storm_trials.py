# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storms of real OpenVPN 2.6.14 clients that were measured before there was a simulator, and the same ones simulated.

Each trial says what was not written down when it was made. The tests hold the model to 25 % of every figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm import simulate
from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import (
    DEFAULT_TIMERS,
    Costs,
    Scene,
    Setup,
    receive_buffer,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.timers import Timers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.storm_model import Outcome

Figure = Literal["last", "per minute"]
# P-256 with tls-crypt, and with tls-crypt-v2, no script: server CPU of a handshake, measured.
TLS_CRYPT: Final = Costs(handshake=2.31)
TLS_CRYPT_V2: Final = Costs(handshake=2.84)


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement: seconds until the last site was back, or sites admitted in a minute."""

    name: str
    setup: Setup
    scene: Scene
    figure: Figure
    low: float
    high: float

    @property
    def measured(self) -> float:
        """The middle of what was seen."""
        return (self.low + self.high) / 2


def _lab(*, tuned: bool) -> dict[str, Any]:
    """400 clients in namespaces, 4 daemons, all on the same 2 cores."""
    common = {"sites": 400, "daemons": 4, "cores": 2, "clients_share_cores": True, "costs": TLS_CRYPT}
    if tuned:
        timers = Timers(connect_retry=1, connect_retry_max=5, server_poll_timeout=4, hand_window=15)
        return {
            **common,
            "keepalive": (2, 6),
            "timers": (timers,),
            "connect_freq_initial": (4000, 10),
            "receive_buffer": receive_buffer(option=2_097_152),
        }
    # The clients had been started within 4 s, so their pings came in step. How old the last ones were when the daemons
    # went was not written down: 3 s is fitted to these two figures.
    return {**common, "keepalive": (10, 60), "timers": (DEFAULT_TIMERS,), "ping_age": (3.0, 4.0)}


def _limited(*, connect_freq: tuple[int, int]) -> dict[str, Any]:
    """60 clients, one daemon killed and started. The keepalive was not written down: 3 10 is fitted."""
    return {
        "sites": 60,
        "daemons": 1,
        "cores": 2,
        "clients_share_cores": True,
        "costs": TLS_CRYPT_V2,
        "keepalive": (3, 10),
        "timers": (DEFAULT_TIMERS,),
        "connect_freq": connect_freq,
    }


def trials() -> list[Trial]:
    """All that were written down."""
    killed = Scene(kind="daemons-restarted")
    told = {**_limited(connect_freq=(1, 1)), "sites": 150, "connect_freq": None}
    return [
        Trial("400 tuned, daemons killed", Setup(name="tuned", **_lab(tuned=True)), killed, "last", 7.4, 8.0),
        Trial("400 tuned, 45 s away", Setup(name="tuned", **_lab(tuned=True)), Scene("outage", 45), "last", 2.6, 2.6),
        Trial("400 tuned, 120 s away", Setup(name="tuned", **_lab(tuned=True)), Scene("outage", 120), "last", 2.5, 2.5),
        Trial("400 defaults, daemons killed", Setup(name="defaults", **_lab(tuned=False)), killed, "last", 56, 56),
        Trial(
            "400 defaults, 120 s away",
            Setup(name="defaults", **_lab(tuned=False)),
            Scene("outage", 120),
            "last",
            5.1,
            5.1,
        ),
        Trial("60, connect-freq 20 1", Setup(name="20 1", **_limited(connect_freq=(20, 1))), killed, "last", 13, 13),
        Trial("60, connect-freq 2 3", Setup(name="2 3", **_limited(connect_freq=(2, 3))), killed, "per minute", 11, 14),
        Trial("60, connect-freq 2 1", Setup(name="2 1", **_limited(connect_freq=(2, 1))), killed, "per minute", 30, 30),
        Trial("150 told by exit-notify", Setup(name="told", **told), Scene("daemons-told"), "last", 8, 8),
    ]


def figure(*, trial: Trial, outcome: Outcome) -> float:
    """The simulated value of what was measured.

    The limiters are judged by the rate over the whole recovery: one minute depends on how many bursts fall into it.
    """
    last = outcome.at(1.0)
    if last is None:
        return float("inf")
    if trial.figure == "last":
        return last
    return 60 * (len(outcome.back) - 1) / (last - outcome.back[0])


def compare(these: Sequence[Trial], *, seed: int = 1) -> list[tuple[Trial, float, float]]:
    """Each trial with its simulated figure and how far that is off, in per cent."""
    found = []
    for trial in these:
        value = figure(trial=trial, outcome=simulate(setup=trial.setup, scene=trial.scene, seed=seed))
        found.append((trial, value, 100 * (value / trial.measured - 1)))
    return found
