# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of keys and delivery share."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_transport as ssh
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tunnel_fit import tunnel_fit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGqO4U1iFqOB4lRbM0uqJMtbWABlJWrfDicYAYgfJUL1"
OPENVPN = '#!/bin/sh\necho "OpenVPN 2.6.14 x"\n'
# The sshd is real; the service manager of a loopback login cannot be, and the lab's sites have a real one.
SYSTEMCTL = "#!/bin/sh\ncase $1 in show) echo ActiveState=active; echo UnitFileState=enabled ;; esac\nexit 0\n"


def site_of(
    *,
    site: str = "site-0001",
    mtu: int = 1500,
    remotes: Sequence[tuple[str, str, int]] = (("frame_relay", "198.19.0.1", 1194), ("internet", "198.19.128.1", 1194)),
) -> Any:
    """A site with just what a bundle reads of it."""
    return SimpleNamespace(
        id=site,
        timers=SimpleNamespace(connect_retry=1, connect_retry_max=6, server_poll_timeout=4, hand_window=16),
        fit=tunnel_fit(mtus=[mtu]),
        remotes=tuple(SimpleNamespace(transport=t, address=a, port=p) for t, a, p in remotes),
    )


@dataclasses.dataclass(frozen=True)
class Remote:
    """A site's sshd, and the directory it takes for its root."""

    target: ssh.Target
    root: Path
    home: Path
    pid: int


def keygen(path: Path, kind: str = "ed25519") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def sshd(home: Path, *, root: Path | None = None, more: str = "") -> Iterator[Remote]:
    home.mkdir(parents=True)
    root = root or home / "root"
    for directory in ("etc", "run/systemd/system"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    tools = home / "bin"
    tools.mkdir()
    for name, text in {"openvpn": OPENVPN, "systemctl": SYSTEMCTL, "systemd-run": "#!/bin/sh\n"}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    pinned = keygen(home / "host")
    keygen(home / "login")
    shutil.copy(home / "login.pub", home / "authorized")
    port = free_port()
    (home / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {home}/authorized\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin yes\nBanner {home}/banner\n"
        f"SetEnv SPOKEWRIGHT_ROOT={root} SPOKEWRIGHT_PATH={tools}:/usr/sbin:/usr/bin:/sbin:/bin\n{more}"
    )
    (home / "banner").write_text("Authorised persons only.\n")
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # noqa: PTH103 - sshd insists on it
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(home / "config")], stderr=(home / "log").open("wb")
    )
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        target = ssh.Target(
            name="site-0001",
            address="127.0.0.1",
            port=port,
            user="root",
            host_key=pinned,
            private_key_file=home / "login",
        )
        yield Remote(target=target, root=root, home=home, pid=server.pid)
    finally:
        server.terminate()
        server.wait(timeout=10)


@contextlib.contextmanager
def relay(port: int, *, stop_after: int) -> Iterator[int]:
    """A link that goes silent after so many bytes towards the site, without closing."""
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket, limit: int) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(4096):
                limit -= len(chunk)
                if limit < 0:
                    return
                sink.sendall(chunk)

    def serve() -> None:
        with contextlib.suppress(OSError):
            near, _address = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            ends.extend((near, far))
            threading.Thread(target=pump, args=(near, far, stop_after), daemon=True).start()
            threading.Thread(target=pump, args=(far, near, 1 << 40), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        for end in (listener, *ends):
            end.close()
