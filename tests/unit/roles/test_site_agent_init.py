# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on a site without systemd."""

from __future__ import annotations

import time

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from unit.roles.site_agent_support import ONE, TWO, Site, make, settle


def without_systemd(site: Site, kind: str) -> None:
    (site.root / "run/systemd/system").rmdir()
    initd = site.root / "etc/init.d"
    initd.mkdir()
    log = f'echo "${{0##*/}} $*" >>"{site.home}/calls"'
    for name, text in {
        "update-rc.d": f'{log}; ln -s ../init.d/spokewright "{site.root}/etc/rc2.d/S01spokewright"',
        "chkconfig": "exit 1",
        "rc-service": f'{log}; shift; exec sh "{initd}/spokewright" "$@"',
        "rc-update": f'{log}; mkdir -p "{site.root}/etc/runlevels/default"; : >"{site.root}/etc/runlevels/default/$2"',
    }.items():
        site.tool(name, f"#!/bin/sh\n{text}\n")
    if kind == "openrc":
        (site.root / "etc/runlevels").mkdir()
    if kind.startswith("sysv"):
        for level in range(7):
            (site.root / f"etc/rc{level}.d").mkdir()
        if kind == "sysv-links":
            site.tool("update-rc.d", "#!/bin/sh\nexit 1\n")
    if kind == "busybox-links":
        (initd / "rcS").write_text("for i in /etc/init.d/S??* ;do $i start; done\n")
    if kind == "busybox-line":
        (site.root / "etc/inittab").write_text("::sysinit:/etc/init.d/rcS")


@pytest.mark.parametrize("kind", ["openrc", "sysv", "sysv-links", "busybox-links", "busybox-line"])
def test_the_whole_life_without_systemd(site: Site, kind: str) -> None:
    without_systemd(site, kind)
    assert site.run("show")["init"] == kind.split("-", maxsplit=1)[0]
    site.stage(ONE)
    shown = site.run("show")
    assert (shown["enabled"], shown["links"], shown["service"]) == (False, False, "inactive")
    assert site.run("activate", "1", "60")["changed"] is True
    shown = site.run("show")
    assert (shown["enabled"], shown["links"], shown["service"]) == (True, True, "active")
    assert site.run("confirm", "1")["changed"] is True
    assert delivery.settled(shown=site.run("show"), digest=ONE.digest)
    site.forget_calls()
    assert site.run("activate", "1", "60")["changed"] is False
    assert not [call for call in site.calls() if "start" in call.split()[1]]
    site.stage(make("broken\n"))
    failed = site.run("activate", "2", "60")
    assert failed["reason"] == "service-failed"
    assert "did not start on generation 2; went back to 1" in failed["message"]
    settle(site, TWO)
    assert site.run("revert")["current"] == 1
    assert site.run("show")["service"] == "active"
    assert not any("systemctl" in call for call in site.calls())
    script = site.root / "etc/init.d/spokewright"
    if kind == "openrc":
        assert script.stat().st_mode & 0o777 == 0o755
        assert script.read_text() == (site.base / "current/openrc.sh").read_text()
        script.write_text("edited")
        assert site.run("show")["links"] is False
    else:
        assert script.readlink() == site.base / "current/init.sh"
    if kind == "busybox-line":
        line = f"::once:/bin/sh {site.root}/etc/init.d/spokewright start\n"
        assert (site.root / "etc/inittab").read_text() == f"::sysinit:/etc/init.d/rcS\n{line}"


def test_the_timer_without_systemd_goes_back_by_itself(site: Site) -> None:
    without_systemd(site, "busybox-line")
    settle(site, ONE)
    site.stage(TWO)
    assert site.run("activate", "2", "1")["ok"]
    end = time.monotonic() + 20
    while site.run("show")["pending"] and time.monotonic() < end:
        time.sleep(0.2)
    shown = site.run("show")
    assert (shown["current"], shown["reverted"], shown["pending"]) == (1, 2, 0)


def test_where_no_init_system_is_known_nothing_is_touched(site: Site) -> None:
    (site.root / "run/systemd/system").rmdir()
    site.stage(ONE)
    assert site.run("activate", "1", "60")["reason"] == "no-service-manager"
    assert site.run("show")["current"] == 0
