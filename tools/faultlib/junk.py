# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""First packets that nobody asked for, at a stated rate, from a lab host to the tunnel ports of a virtual address.

`junk` looks like a client's first packet and is random behind the first byte; `foreign` carries a client key that is
made as it should be, under another gateway's server key. Started as a program with its plan as JSON on standard input;
at SIGTERM it prints how many it has sent and in how many seconds: a rate that was not reached has tested nothing.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    ROOT = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "collections")]

from ansible_collections.spokewright.fleet.plugins.plugin_utils import tls_crypt_v2
from faultlib import namespaces

# P_CONTROL_HARD_RESET_CLIENT_V3 with key id 0 (OpenVPN, src/openvpn/ssl_pkt.h).
FIRST_BYTE = bytes([10 << 3])
# Session id, packet id with its time, HMAC, and what a first packet has behind it, encrypted.
HEAD_BYTES = 8 + 8 + 32 + 5
SOCKETS = 64
STEP_SECONDS = 0.005
DIFFERENT = 256


def packets(kind: str) -> list[bytes]:
    """A supply of first packets, no two of them alike."""
    server = tls_crypt_v2.ServerKey(raw=os.urandom(128))
    made = []
    for _number in range(DIFFERENT):
        if kind == "junk":
            made.append(FIRST_BYTE + os.urandom(HEAD_BYTES + 300))
            continue
        text = tls_crypt_v2.wrap(server=server, secret=os.urandom(tls_crypt_v2.KEY_BYTES), payload=b"nobody")
        file = base64.b64decode("".join(line for line in text.splitlines() if "-----" not in line))
        made.append(FIRST_BYTE + os.urandom(HEAD_BYTES) + file[tls_crypt_v2.KEY_BYTES :])
    return made


def _socket() -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    link.bind(("0.0.0.0", 0))  # noqa: S104 - in a lab host's namespace, to send only
    return link


def main() -> int:
    """Send until told to stop."""
    plan = json.load(sys.stdin)
    links = [namespaces.inside(plan["host"], _socket) for _number in range(SOCKETS)]
    targets = [(plan["target"], port) for port in plan["ports"]]
    supply = itertools.cycle(packets(plan["kind"]))
    ways = itertools.cycle([(link, target) for link in links for target in targets])
    stopped = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    sent, began = 0, time.monotonic()
    while not stopped:
        due = int((time.monotonic() - began) * plan["rate"])
        while sent < due:
            link, target = next(ways)
            with contextlib.suppress(OSError):
                link.sendto(next(supply), target)
            sent += 1
        time.sleep(STEP_SECONDS)
    print(json.dumps({"sent": sent, "seconds": time.monotonic() - began}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
