# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pinned host keys: fetch what a site shows, compare it with the registry, write it there when told to."""

from __future__ import annotations

import contextlib
import csv
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import paramiko

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult, fan_out
from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_key_text import host_key_fault
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_bastion import way_through
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_login import dial
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_openssh import shown_host_key
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_types import (
    LOG,
    Clock,
    Target,
    Timeouts,
    fingerprint,
    pinned_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import Progress
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_login import Link

State = Literal["new", "same", "changed", "unreachable"]
COLUMN: Final = "host_key"
IDENTITY: Final = "id"
BOM: Final = b"\xef\xbb\xbf"
WAIT_SECONDS: Final = 15.0
_TIMEOUTS: Final = Timeouts(connect=WAIT_SECONDS, banner=WAIT_SECONDS, deadline=2 * WAIT_SECONDS)


class RegistryEditError(FleetError):
    """The registry cannot take the keys; it is untouched."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What one site showed, against what is pinned."""

    site: str
    state: State
    shown: str
    shown_fingerprint: str
    pinned_fingerprint: str
    message: str


def fingerprint_of(*, text: str) -> str:
    """Fingerprint of a key as the registry writes it, as `ssh-keygen -l` prints it; '' for no key."""
    if not text.strip():
        return ""
    fault = host_key_fault(text=text)
    if fault is not None:
        raise FleetError(f"the host key {fault}.")
    target = Target(name="", address="", port=0, user="", host_key=text, private_key_file=None)  # type: ignore[arg-type]
    return fingerprint(blob=pinned_key(target=target)[1])


def collect(
    *,
    targets: Sequence[Target],
    workers: int = 32,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Sighting]:
    """Ask every target for its host key, without logging in. Only as trustworthy as the link it goes over."""
    by_name = {target.name: target for target in targets}
    shown: dict[str, str] = {}
    lock = threading.Lock()

    def look(name: str) -> SiteResult:
        text = _fetch(target=by_name[name])
        with lock:
            shown[name] = text
        return SiteResult(site=name, ok=True)

    results = fan_out(sites=list(by_name), work=look, workers=workers, limit=2 * WAIT_SECONDS, on_progress=on_progress)
    return {
        name: compare(site=name, pinned=by_name[name].host_key, shown=shown.get(name, ""), failure=result.message)
        for name, result in results.items()
    }


def compare(*, site: str, pinned: str, shown: str, failure: str = "") -> Sighting:
    """Say for one site whether its key is new, the same or changed."""
    old, new = fingerprint_of(text=pinned), fingerprint_of(text=shown)
    if not shown:
        state: State = "unreachable"
        message = failure or f"{site}: showed no host key."
    elif not old:
        state, message = "new", f"{site}: shows host key {new}, none is pinned yet."
    elif pinned.split()[:2] == shown.split()[:2]:
        state, message = "same", f"{site}: host key {new} is the pinned one."
    else:
        state = "changed"
        message = (
            f"{site}: shows host key {new}, pinned is {old}. If the host was not installed anew, somebody is in "
            f"between. To accept it, empty its {COLUMN} in the registry and collect again."
        )
    return Sighting(site=site, state=state, shown=shown, shown_fingerprint=new, pinned_fingerprint=old, message=message)


def write_keys(*, registry: Path, keys: Mapping[str, str]) -> list[str]:
    """Put keys into the host_key column and change no other byte. Returns the ids whose line changed."""
    for site, key in keys.items():
        fault = host_key_fault(text=key)
        if fault is not None:
            raise RegistryEditError(f"{site}: the host key {fault}. Nothing was written.")
    mark, lines, endings = _read_lines(registry=registry)
    header_at, columns = _header(registry=registry, lines=lines)
    changed, found = [], set()
    for at in range(header_at + 1, len(lines)):
        if _comment(lines[at]):
            continue
        fields = _split(lines[at])
        site = _plain(fields[columns[IDENTITY]]) if len(fields) > max(columns.values()) else ""
        if site not in keys:
            continue
        found.add(site)
        if _plain(fields[columns[COLUMN]]) != keys[site]:
            fields[columns[COLUMN]] = keys[site]
            lines[at] = ",".join(fields)
            changed.append(site)
    missing = sorted(set(keys) - found)
    if missing:
        raise RegistryEditError(f"{registry} has no line for {', '.join(missing)}. Nothing was written.")
    if changed:
        text = "".join(line + ending for line, ending in zip(lines, endings, strict=True))
        write_atomic(registry, mark + text.encode(), registry.stat().st_mode & 0o777)
    return changed


def _read_lines(*, registry: Path) -> tuple[bytes, list[str], list[str]]:
    """A byte order mark, the lines, and for each line how it ends: a file may mix the three ways."""
    try:
        raw = registry.read_bytes()
        mark = BOM if raw.startswith(BOM) else b""
        pieces = re.split(r"(\r\n|\r|\n)", raw[len(mark) :].decode("utf-8"))
        return mark, pieces[::2], [*pieces[1::2], ""]
    except OSError as exc:
        raise RegistryEditError(f"{registry} cannot be read: {exc.strerror or exc}.") from exc
    except UnicodeDecodeError as exc:
        raise RegistryEditError(f"{registry} is no UTF-8 text ({exc}). Save it as UTF-8.") from exc


def _header(*, registry: Path, lines: Sequence[str]) -> tuple[int, dict[str, int]]:
    for at, line in enumerate(lines):
        if _comment(line):
            continue
        names = [_plain(field) for field in _split(line)]
        if IDENTITY in names and COLUMN in names:
            return at, {IDENTITY: names.index(IDENTITY), COLUMN: names.index(COLUMN)}
        if line.strip():
            break
    raise RegistryEditError(f"{registry}: its first line does not name the columns {IDENTITY} and {COLUMN}.")


def _comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _split(line: str) -> list[str]:
    """Fields with their quotes and spaces as they stand; a comma inside quotes does not count."""
    fields, start, quoted = [], 0, False
    for at, letter in enumerate(line):
        if letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            fields.append(line[start:at])
            start = at + 1
    fields.append(line[start:])
    return fields


def _plain(field: str) -> str:
    return next(csv.reader([field.strip()]), [""])[0].strip() if field.strip() else ""


def _fetch(*, target: Target) -> str:
    clock = Clock(target=target, timeouts=_TIMEOUTS)
    if target.client == "openssh":
        return shown_host_key(target=target, clock=clock)
    try:
        with contextlib.ExitStack() as held:
            if target.bastion is None:
                link: Link = held.enter_context(contextlib.closing(dial(clock=clock)))
            else:
                link = held.enter_context(way_through(bastion=target.bastion, clock=clock))
            transport = paramiko.Transport(link)
            transport.daemon = True
            transport.set_log_channel(LOG)
            transport.banner_timeout = WAIT_SECONDS
            options = transport.get_security_options()
            pinned = target.host_key.split()[:1]
            # The pinned kind, or else the kind that OpenSSH would choose, so that both tools see the same key.
            wanted = [kind for kind in options.key_types if kind in pinned] or sorted(
                options.key_types, key=lambda kind: (kind != "ssh-ed25519", not kind.startswith("ecdsa"), kind)
            )
            options.key_types = wanted
            try:
                transport.start_client(timeout=WAIT_SECONDS)
                key = transport.get_remote_server_key()
            finally:
                transport.close()
    except (paramiko.SSHException, EOFError, OSError) as exc:
        raise FleetError(
            f"{target.name}: {target.address}:{target.port} showed no host key ({exc or type(exc).__name__})."
        ) from exc
    return f"{key.get_name()} {key.get_base64()}"
