# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command lines of the OpenSSH client: by key only, against the pinned host keys only, nothing of the user's."""

from __future__ import annotations

import math
import shlex
import subprocess
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import SshError, Target, Timeouts, family

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLIENT: Final = "ssh"
LOG_FILE: Final = "log"
BASTION_LOG_FILE: Final = "bastion.log"
PINS_FILE: Final = "pins"
# Whatever is new comes first; what is old is offered too, since for its sake this client is used at all.
_KEX: Final = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "diffie-hellman-group14-sha256",
)
_OLD_KEX: Final = ("diffie-hellman-group-exchange-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group1-sha1")
_OLD_CIPHERS: Final = ("aes128-cbc", "aes256-cbc", "3des-cbc")
_RSA: Final = ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa")
STRICT: Final = (
    "StrictHostKeyChecking=yes",
    "GlobalKnownHostsFile=none",
    "UpdateHostKeys=no",
    "CheckHostIP=no",
    "PasswordAuthentication=no",
    "IdentitiesOnly=yes",
)
_OURS: Final = (
    *STRICT,
    "BatchMode=yes",
    "KbdInteractiveAuthentication=no",
    "PreferredAuthentications=publickey",
    "IdentityAgent=none",
    "ControlMaster=no",
    "ControlPath=none",
    "ConnectionAttempts=1",
    "EscapeChar=none",
    "LogLevel=VERBOSE",
)


def command_line(*, target: Target, bastion: Target | None, folder: Path, timeouts: Timeouts) -> list[str]:
    """What logs in to a host, through the bastion if there is one; the command is still to be added.

    `folder` holds the pins and takes the logs.
    """
    words = _to(target=target, folder=folder, log=LOG_FILE, timeouts=timeouts)
    if bastion is not None:
        inner = _to(target=bastion, folder=folder, log=BASTION_LOG_FILE, timeouts=timeouts)
        proxy = shlex.join([*inner, "-W", target.where, "--", bastion.address])
        words += ["-o", f"ProxyCommand={_literal(proxy)}"]
    return [*words, "-T", "--", target.address]


def _to(*, target: Target, folder: Path, log: str, timeouts: Timeouts) -> list[str]:
    kind = (target.host_key.split() or [""])[0]
    options = (
        *_OURS,
        f"UserKnownHostsFile={_literal(str(folder / PINS_FILE))}",
        f"HostKeyAlias={target.name}",
        # A host with several keys must show the one that is pinned.
        f"HostKeyAlgorithms={','.join(_kinds(kind))}",
        f"KexAlgorithms={','.join((*_known('kex', _KEX), *_known('kex', _OLD_KEX)))}",
        f"Ciphers=+{','.join(_known('cipher', _OLD_CIPHERS))}",
        # The name that clients before 8.5 know, and later ones still do.
        "PubkeyAcceptedKeyTypes=+ssh-rsa",
        f"ConnectTimeout={max(1, math.ceil(timeouts.connect))}",
        f"ServerAliveInterval={timeouts.keepalive}",
    )
    words = [CLIENT, "-F", "none", "-a", "-x", "-E", str(folder / log), "-i", _literal(str(target.private_key_file))]
    words += ["-l", target.user, "-p", str(target.port)]
    return words + [word for option in options for word in ("-o", option)]


def _kinds(pinned: str) -> tuple[str, ...]:
    if not pinned:
        return ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", *_RSA)
    return _RSA if family(pinned) == "ssh-rsa" else (pinned,)


def pins(*, targets: Sequence[Target]) -> str:
    """The pinned keys in the format of known_hosts."""
    return "".join(f"{target.name} {' '.join(target.host_key.split()[:2])}\n" for target in targets)


def _literal(text: str) -> str:
    """Text in which the client finds no token of its own."""
    return text.replace("%", "%%")


def _known(what: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in _supported(what)]


@lru_cache(maxsize=4)
def _supported(what: str) -> frozenset[str]:
    try:
        done = subprocess.run([CLIENT, "-Q", what], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise SshError(
            f"the OpenSSH client cannot be used on the controller ({exc}). Install it, or remove oob_client=openssh "
            "from the options of the sites that have it.",
            reason="no-ssh-client",
        ) from exc
    return frozenset(done.stdout.split())
