# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Ansible's own ssh connection reaches a host: by key only, against the pinned host keys only, over the bastion."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import Target

BASTION: Final = "ssh.bastion"
_STRICT: Final = (
    "StrictHostKeyChecking=yes",
    "UserKnownHostsFile=none",
    "GlobalKnownHostsFile=none",
    "UpdateHostKeys=no",
    "CheckHostIP=no",
    "PasswordAuthentication=no",
    "IdentitiesOnly=yes",
    # A shared connection to a host that lost its power would otherwise hold a run for as long as TCP waits.
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
)
# What a host that needs oob_client=openssh may lack everything but; offered last, and to such hosts only.
_OLD: Final = (
    "KexAlgorithms=+diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha1",
    "HostKeyAlgorithms=+ssh-rsa",
    "PubkeyAcceptedKeyTypes=+ssh-rsa",
    "Ciphers=+aes128-cbc,aes256-cbc",
)


def connection_variables(*, target: Target) -> dict[str, Any]:
    """The variables of one host for Ansible's ssh connection."""
    return {
        "ansible_host": target.address,
        "ansible_port": target.port,
        "ansible_user": target.user,
        "ansible_ssh_private_key_file": str(target.private_key_file),
        "ansible_ssh_common_args": _arguments(target=target),
    }


def _arguments(*, target: Target) -> str:
    options = [*_pinned(name=target.name, host_key=target.host_key), *_STRICT]
    if target.client == "openssh":
        options += _OLD
    if target.bastion is not None:
        options.append(f"ProxyCommand={_proxy(target=target)}")
    return _joined(options)


def _pinned(*, name: str, host_key: str) -> tuple[str, str]:
    # The pin travels with the host: no known_hosts file that could be stale, and a changed registry counts at once.
    return f"HostKeyAlias={name}", f"KnownHostsCommand=/bin/echo {name} {' '.join(host_key.split()[:2])}"


def _proxy(*, target: Target) -> str:
    """The command that leads through the bastion; its own %-signs are doubled, since ssh reads it as a pattern."""
    bastion = target.bastion
    if bastion is None:
        return ""
    options = [*_pinned(name=BASTION, host_key=bastion.host_key), *_STRICT, "BatchMode=yes"]
    login = shlex.join(["-i", str(bastion.private_key_file), "-l", bastion.user, "-p", str(bastion.port)])
    command = f"ssh {_joined(options)} {login}".replace("%", "%%")
    return f"{command} -W %h:%p {bastion.address}"


def _joined(options: Sequence[str]) -> str:
    return shlex.join(word for option in options for word in ("-o", option))
