# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A daemon waits for every program it runs, and all its sites with it: one small script is the only one it may run.

How long it waits for that one is measured under a storm by bench/storm, from the kernel's books.
"""

from __future__ import annotations

import re
from pathlib import Path

from unit.roles.test_tunnel_server import render

ROLES = Path(__file__).resolve().parents[3] / "roles"
# Every option of OpenVPN 2.6 and 2.7 that names a program to run, or a plugin to load (its manual).
RUNS_SOMETHING = (
    *("up", "down", "ipchange", "route-up", "route-pre-down", "tls-verify", "auth-user-pass-verify", "learn-address"),
    *("client-connect", "client-disconnect", "client-crresponse", "tls-crypt-v2-verify", "plugin", "iproute"),
    "dns-updown",
)
HOOK = re.compile(rf"^\s*(?:-{{0,2}})({'|'.join(RUNS_SOMETHING)})\s+(.+)$", re.MULTILINE)


def test_the_rendered_gateway_configuration_runs_the_judging_script_and_nothing_else(tmp_path: Path) -> None:
    for series in ("2.6", "2.7"):
        text = render("instance.conf.j2", tmp_path, __tunnel_server_openvpn={"series": series})

        assert HOOK.findall(text) == [("tls-crypt-v2-verify", f"{tmp_path}/tunnel-verify")]


def test_no_other_template_of_a_role_names_a_hook() -> None:
    found = {
        (path.name, option) for path in ROLES.glob("*/templates/*") for option, _rest in HOOK.findall(path.read_text())
    }

    assert {one for one in found if one[0].endswith(("instance.conf.j2", "client.conf.j2"))} == {
        ("instance.conf.j2", "tls-crypt-v2-verify")
    }


def test_the_judging_script_starts_no_process(tmp_path: Path) -> None:
    text = re.sub(r"^\s*#.*$", "", render("tunnel-verify.j2", tmp_path), flags=re.MULTILINE)

    # Nothing substituted, piped or in the background: what is left are builtins, as the tests without PATH prove.
    assert re.findall(r"\$\(|`|[^|&]\|[^|]\s*\w+\s*$|&\s*$", text) == []
