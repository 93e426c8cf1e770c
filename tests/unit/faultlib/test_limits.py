# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a daemon's configuration is multiplied, and what stays."""

from __future__ import annotations

from faultlib.limits import Variation, config

TEXT = """\
port 1194
keepalive 2 6
hand-window 30
max-clients 2048
connect-freq-initial 2048 10
connect-freq 512 1
rcvbuf 2097152
sndbuf 2097152
push "route 10.0.0.0 255.0.0.0"
"""


def test_limits_are_multiplied_and_their_periods_are_not() -> None:
    assert config(text=TEXT, variation=Variation(kind="limits", factor=0.5)) == (
        "port 1194\nkeepalive 2 6\nhand-window 15\nmax-clients 1024\nconnect-freq-initial 1024 10\nconnect-freq 256 1\n"
        'rcvbuf 1048576\nsndbuf 1048576\npush "route 10.0.0.0 255.0.0.0"\n'
    )


def test_both_numbers_of_keepalive_are() -> None:
    changed = config(text=TEXT, variation=Variation(kind="keepalive", factor=2))

    assert "keepalive 4 12\n" in changed
    assert "max-clients 2048\n" in changed


def test_nothing_becomes_less_than_one() -> None:
    assert "keepalive 1 1\n" in config(text=TEXT, variation=Variation(kind="keepalive", factor=0.1))


def test_a_side_has_a_name_for_files() -> None:
    assert Variation(kind="limits", factor=0.5).name == "limits-x0.5"
