# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent of a site under a root directory of its own, whatever shell runs it, and bundles for it."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


AGENT = bundles.ROLE / "files" / "site-agent.sh"


UNIT = "openvpn-client@spokewright.service"


# What a kill may come between.
STEPS = ("mkdir", "mv", "ln", "rm", "tar", "sync", "sha256sum", "systemctl", "systemd-run", "cmp", "readlink", "flock")


SYSTEMCTL = """#!/bin/sh
echo "$*" >>"{home}/calls"
case $1 in
  show)
    [ -f "{home}/active" ] && echo ActiveState=active || echo ActiveState=inactive
    [ -f "{home}/enabled" ] && echo UnitFileState=enabled || echo UnitFileState=disabled
    ;;
  enable) [ ! -f "{home}/cannot-enable" ] && touch "{home}/enabled" || exit 1 ;;
  restart)
    rm -f "{home}/active"
    grep -q broken "{root}/etc/openvpn/client/spokewright.conf" && exit 1
    cat "{root}/etc/openvpn/client/spokewright.conf" >"{home}/active"
    ;;
esac
exit 0
"""


# Stands for the real one of a site without systemd.
INIT = """#!/bin/sh
home=${SPOKEWRIGHT_ROOT%/root}
echo "init $*" >>"$home/calls"
case $1 in
  status) [ -f "$home/active" ] ;;
  restart)
    rm -f "$home/active"
    grep -q broken "$SPOKEWRIGHT_ROOT/etc/spokewright/current/client.conf" && exit 1
    touch "$home/active"
    ;;
esac
"""


class Site:
    """A root directory that takes the place of a site's."""

    def __init__(self, home: Path, shell: str) -> None:
        self.home, self.root, self.bin = home, home / "root", home / "bin"
        (self.root / "etc").mkdir(parents=True)
        (self.root / "run/systemd/system").mkdir(parents=True)
        self.bin.mkdir()
        self.tool("systemctl", SYSTEMCTL.format(home=home, root=self.root))
        self.tool("systemd-run", f'#!/bin/sh\necho "systemd-run $*" >>"{home}/calls"\n')
        self.tool("openvpn", '#!/bin/sh\necho "OpenVPN 2.6.14 x86_64"\n')
        self.path = f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin"
        self.shell = [shell]
        if shell == "busybox":
            applets = home / "busybox"
            applets.mkdir()
            program = shutil.which("busybox")
            assert program is not None
            for name in subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split():
                (applets / name).symlink_to(program)
            self.path = f"{self.bin}:{applets}"
            self.shell = [program, "ash"]

    def tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.shell, str(AGENT), *words],
            check=False,
            input=stdin,
            capture_output=True,
            timeout=60,
            start_new_session=True,
            env={"SPOKEWRIGHT_ROOT": str(self.root), "SPOKEWRIGHT_PATH": self.path},
        )

    def run(self, *words: str, stdin: bytes = b"") -> dict[str, Any]:
        ran = self.start(*words, stdin=stdin)
        answer = Answer(exit_status=ran.returncode, stdout=ran.stdout, stderr=ran.stderr, seconds=0)
        receipt = delivery.read_receipt(site="site-0001", answer=answer)
        assert receipt["ok"] is (ran.returncode == 0)
        return receipt

    def stage(self, bundle: bundles.Bundle) -> dict[str, Any]:
        return self.run("stage", bundle.digest, stdin=bundle.archive)

    def calls(self) -> list[str]:
        path = self.home / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def forget_calls(self) -> None:
        (self.home / "calls").unlink(missing_ok=True)

    @property
    def base(self) -> Path:
        return self.root / "etc/spokewright"


# How a client's unit has its guard run; an earlier release had no unit for it.
WANTED_GUARD = f"[Unit]\nWants={bundles.GUARD}\n[Service]"


EARLIER_GUARD = "[Service]\nExecStartPre=+-/bin/sh /etc/spokewright/current/agent.sh guard"


ALWAYS = (dt.date(2001, 1, 1), dt.date(9999, 1, 1))


def make(
    text: str,
    *,
    epoch: int = 1,
    valid: tuple[dt.date, dt.date] = ALWAYS,
    more: Mapping[str, str] | None = None,
    leave_out: tuple[str, ...] = (),
) -> bundles.Bundle:
    files = {
        "client.conf": text,
        "unit.conf": f"{EARLIER_GUARD if bundles.GUARD in leave_out else WANTED_GUARD}\n# {text}\n",
        bundles.GUARD: "[Service]\n# guard\n",
        "agent.sh": AGENT.read_text(),
        "site.key": f"SECRET {text}\n",
        "facts": bundles.facts_line(epoch=epoch, kid="00ff", psk_fingerprint="SHA256:aa/b+c=", valid=valid),
        "init.sh": INIT,
        "openrc.sh": INIT,
        **(more or {}),
    }
    for name in leave_out:
        del files[name]
    manifest = bundles.manifest_of(files=files)
    return bundles.Bundle(
        site="site-0001",
        epoch=epoch,
        digest=hashlib.sha256(manifest.encode()).hexdigest(),
        archive=bundles._tar({**files, "MANIFEST": manifest}),
        manifest=manifest,
    )


ONE, TWO, THREE = make('one "quoted" \\ back\n\ttab\n'), make("two\n"), make("three\n", epoch=2)


def cut_power(site: Site) -> None:
    """The next start of the unit is one after another boot: systemd reads all files, and starts what it finds."""
    pending = site.base / "state/pending"
    if pending.exists():
        pending.write_text(f"{pending.read_text().split()[0]} another-boot started\n")
    units = site.root / "etc/systemd/system"
    drop_in = units / f"{UNIT}.d/spokewright.conf"
    unit = drop_in.read_text() if drop_in.exists() else ""
    if EARLIER_GUARD in unit or (WANTED_GUARD in unit and (units / bundles.GUARD).exists()):
        site.start("guard")


def time_is_up(site: Site) -> None:
    """The probation has lasted its seconds."""
    pending = site.base / "state/pending"
    if pending.exists():
        pending.write_text(" ".join([*pending.read_text().split()[:3], "0"]) + "\n")


def fire(site: Site, number: str) -> None:
    time_is_up(site)
    site.start("deadman", number)


def settle(site: Site, bundle: bundles.Bundle) -> int:
    number = int(site.stage(bundle)["generation"])
    assert site.run("activate", str(number), "60")["ok"]
    assert site.run("confirm", str(number))["ok"]
    return number


def killed_at(calm: Site, here: Path, step: int, *words: str, stdin: bytes = b"") -> tuple[Site, bool]:
    """A copy of the calm site on which the verb was killed before that step, and whether it came so far."""
    shutil.copytree(calm.home, here, symlinks=True)
    site = Site.__new__(Site)
    site.home, site.root, site.bin, site.shell = here, here / "root", here / "bin", ["dash"]
    site.tool("systemctl", SYSTEMCTL.format(home=here, root=site.root))
    traps = here / "traps"
    traps.mkdir()
    for name in STEPS:
        real = site.bin / name if (site.bin / name).exists() else shutil.which(name)
        (traps / name).write_text(
            f'#!/bin/sh\necho x >>"{here}/count"\n[ "$(wc -l <"{here}/count")" -eq {step} ] && kill -9 0\n'
            f'exec {real} "$@"\n'
        )
        (traps / name).chmod(0o755)
    plain = f"{site.bin}:/usr/sbin:/usr/bin:/sbin:/bin"
    site.path = f"{traps}:{plain}"
    killed = site.start(*words, stdin=stdin).returncode == -signal.SIGKILL
    site.path = plain
    return site, killed


def generations(site: Site) -> list[str]:
    return sorted(path.name for path in (site.base / "generations").iterdir())
