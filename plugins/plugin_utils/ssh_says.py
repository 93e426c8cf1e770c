# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the log of the OpenSSH client says went wrong, in the errors every transport has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    ClosedError,
    OldAlgorithmsError,
    SshError,
    SshTimeoutError,
    Target,
    UnreachableError,
    changed_host_key,
    pinned_key,
    refused_login,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# From here on the host may have begun to carry out the command.
STARTED: Final = "Authenticated to "
LOST: Final = re.compile(
    r"closed by remote host|closed by .* port|reset by|not responding|Broken pipe|Connection to .* timed out",
    re.IGNORECASE,
)
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]+")
_OFFER = re.compile(r"no matching (.+?) found\. Their offer: (\S+)")
_CONNECT = re.compile(r"connect to host \S+ port \d+: (.+)")


def failure(*, target: Target, log: str) -> SshError:
    """The error behind a login that did not come about."""
    for judge in _JUDGES:
        found = judge(target, log)
        if found is not None:
            return found
    return ClosedError(
        f"{target.name}: {target.where} ended the connection before the login ({last_line(log)}). "
        "It may be refusing too many logins at once; run again.",
        passing=True,
    )


def last_line(log: str) -> str:
    """The last line the client wrote."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it says nothing"


def forwarding_failure(log: str) -> tuple[bool, str] | None:
    """Whether the bastion refused to forward, and why; None when it did forward."""
    match = re.search(r"open failed: (administratively prohibited|[^:\r\n]+)(?:: ([^\r\n]*))?", log)
    if match is None:
        return None
    return match[1].startswith("administratively"), match[2] or match[1]


def _host_key(target: Target, log: str) -> SshError | None:
    lacks = "no matching host key type" in log
    if not (lacks or "IDENTIFICATION HAS CHANGED" in log or "Host key verification failed" in log):
        return None
    shown = _FINGERPRINT.search(log)
    unknown = "" if lacks else "unknown"
    return changed_host_key(
        target=target, shown=shown[0] if shown and not lacks else unknown, pinned=pinned_key(target=target)[1]
    )


def _old(target: Target, log: str) -> SshError | None:
    match = _OFFER.search(log)
    if match is None:
        return None
    return OldAlgorithmsError(
        f"{target.name}: {target.where} offers only algorithms ({match[1]}: {match[2]}) that even the OpenSSH client "
        "of the controller no longer speaks. Install a newer SSH server there."
    )


def _refused(target: Target, log: str) -> SshError | None:
    refused = "Permission denied (" in log or "Too many authentication failures" in log
    return refused_login(target=target) if refused else None


def _unreachable(target: Target, log: str) -> SshError | None:
    if "during banner exchange" in log:
        return SshTimeoutError(
            f"{target.name}: {target.where} takes connections, but no SSH server greets us.", passing=True
        )
    match = _CONNECT.search(log)
    if match is None:
        return None
    why = match[1].strip()
    if "timed out" in why:
        return UnreachableError(
            f"{target.name}: nothing answers at {target.where}. Is it switched on, and its out-of-band link up?"
        )
    hint = "No sshd listens there." if "refused" in why else "Look at its out-of-band link."
    return UnreachableError(f"{target.name}: {target.where} cannot be reached: {why}. {hint}", passing=True)


_JUDGES: Final[tuple[Callable[[Target, str], SshError | None], ...]] = (_host_key, _old, _refused, _unreachable)
