# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site whose service manager knows holds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from unit.roles.site_agent_support import AGENT, Site

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOLDER = "spokewright-hold.service"
# As systemd would: a condition that does not hold lets a start succeed and starts nothing.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"{home}/calls"
unit={root}/etc/openvpn/client/spokewright.conf
condition={root}/etc/systemd/system/openvpn-client@spokewright.service.d/hold.conf
for last in "$@"; do :; done
case "$1 $last" in
  "show "*)
    [ -f "{home}/active" ] && echo ActiveState=active || echo ActiveState=inactive
    [ -f "{home}/enabled" ] && echo UnitFileState=enabled || echo UnitFileState=disabled
    ;;
  "enable "*) touch "{home}/enabled" ;;
  "is-active {holder}") [ -f "{home}/holder" ] || exit 3 ;;
  "restart {holder}")
    [ ! -f "{home}/no-holder" ] && [ -f "{root}/etc/systemd/system/{holder}" ] && touch "{home}/holder"
    exit
    ;;
  "stop {holder}") rm -f "{home}/holder" ;;
  "stop "*service) [ ! -f "{home}/cannot-stop" ] && rm -f "{home}/active" || exit 1 ;;
  "start "*service | "restart "*service)
    [ "$1" = start ] || rm -f "{home}/active"
    file=$(sed -n 's/^ConditionPathExists=!//p' "$condition" 2>/dev/null)
    [ -z "$file" ] || [ ! -e "$file" ] || exit 0
    grep -q broken "$unit" && exit 1
    [ ! -f "{home}/cannot-start" ] || exit 1
    touch "{home}/active"
    ;;
esac
"""
# Its guard runs before the client, as that of the real one.
INIT = """#!/bin/sh
home=${SPOKEWRIGHT_ROOT%/root}
echo "init $*" >>"$home/calls"
case $1 in
  status) [ -f "$home/active" ] ;;
  restart)
    rm -f "$home/active"
    [ ! -e "$SPOKEWRIGHT_ROOT/etc/spokewright/state/hold" ] || exit 1
    touch "$home/active"
    ;;
esac
"""
WHO = ("ann@desk", 'storm of "the 3rd"')


class Held(Site):
    """A site whose service manager knows conditions."""

    def __init__(self, home: Path, shell: str) -> None:
        super().__init__(home, shell)
        self.tool("systemctl", SYSTEMCTL.format(home=home, root=self.root, holder=HOLDER))

    @property
    def runs(self) -> bool:
        return (self.home / "active").exists()

    @property
    def left_behind(self) -> list[str]:
        """What only a held site has."""
        names = {"hold", "held", "hold.sh", "hold.conf", HOLDER}
        return sorted(path.name for path in self.root.rglob("*") if path.name in names)

    def hold(self, seconds: int, *, now: float | None = None, who: tuple[str, str] = WHO) -> dict[str, Any]:
        return self.run("hold", str(seconds), str(int(time.time() if now is None else now)), *who)

    def change(self, name: str, change: Callable[[list[str]], list[str]]) -> None:
        """Change the first line of a state file."""
        path = self.base / "state" / name
        first, _end, rest = path.read_text().partition("\n")
        path.write_text(" ".join(change(first.split())) + "\n" + rest)

    def holder(self) -> int:
        """The unit of the hold, once: its exit status."""
        program = self.base / "state/hold.sh"
        text = program.read_text()
        # It is the agent, as it came.
        assert text == AGENT.read_text()
        return self.start("holder").returncode

    def ran_for(self, seconds: int) -> None:
        """So long ago the hold was set, as this boot counts it."""
        self.change("hold", lambda one: [*one[:3], str(int(one[3]) - seconds)])
