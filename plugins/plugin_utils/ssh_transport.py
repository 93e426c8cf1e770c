# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One SSH exchange with one pinned host: a command, bytes on its standard input, what it answered.

The host key is compared with the one pinned key and nothing else; there is no known_hosts, no agent, no password.
Every wait has an end, and all of them together end at the deadline of the host. This is the door; paramiko talks
behind it, or the OpenSSH client where a host is too old for paramiko, and both may go through a bastion.
"""

from __future__ import annotations

from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Client
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_bastion import bastion_target, close_ways
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_openssh import OpenSshSession
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_paramiko import Session
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    LOG,
    Answer,
    AuthRefusedError,
    BastionError,
    ClosedError,
    HostKeyChangedError,
    HostKeyUnknownError,
    OldAlgorithmsError,
    Reason,
    SshError,
    SshTimeoutError,
    Target,
    Timeouts,
    UnreachableError,
    fingerprint,
    pinned_key,
)

__all__ = [
    "LOG",
    "Answer",
    "AuthRefusedError",
    "BastionError",
    "Client",
    "ClosedError",
    "HostKeyChangedError",
    "HostKeyUnknownError",
    "OldAlgorithmsError",
    "OpenSshSession",
    "Reason",
    "Session",
    "SshError",
    "SshTimeoutError",
    "Target",
    "Timeouts",
    "UnreachableError",
    "bastion_target",
    "close_ways",
    "exchange",
    "fingerprint",
    "open_session",
    "pinned_key",
]


def open_session(*, target: Target, timeouts: Timeouts | None = None) -> Session | OpenSshSession:
    """A login on a host with the client the registry names for it, to be used in a with statement."""
    if target.client == "openssh":
        return OpenSshSession(target=target, timeouts=timeouts)
    return Session(target=target, timeouts=timeouts)


def exchange(*, target: Target, command: str, stdin: bytes = b"", timeouts: Timeouts | None = None) -> Answer:
    """Log in, run one command, log out."""
    with open_session(target=target, timeouts=timeouts) as session:
        return session.run(command=command, stdin=stdin)
