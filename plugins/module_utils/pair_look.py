# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thorough look at one gateway of a pair, taken on the gateway: what it runs, with what, and who else is there.

Runs on gateways: standard library only. Files are told by digest; what tells the two gateways apart by plan (names,
addresses, interfaces) is put into common words first, so that equal digests mean equal content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import time
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.module_utils import gateway_look
from ansible_collections.spokewright.fleet.plugins.module_utils.arp_question import Question, who_answers

RUN = Path("/run/spokewright")
SERVER = Path("/etc/openvpn/server")
# By what people call them. A file that neither gateway has is no difference.
CONFIGS = {
    "keepalived.conf": "/etc/keepalived/keepalived.conf",
    "keepalived's unit": "/etc/systemd/system/keepalived.service.d/60-spokewright.conf",
    "health daemon": "/etc/spokewright/health.json",
    "demotion push": "/etc/spokewright/push.json",
    "lease fence": "/etc/nftables.d/spokewright-fence.nft",
    "packet filter": "/etc/nftables.d/spokewright.nft",
    "kernel parameters": "/etc/sysctl.d/60-spokewright.conf",
    "site routes": "/etc/spokewright/routing/routes.batch",
    "frr.conf": "/etc/frr/frr.conf",
}
PACKAGES = ("openvpn", "keepalived", "frr")
_MATERIAL = re.compile(r"/material/[0-9a-f]+/")
_MEMBER = re.compile(r"^vrrp_instance\s+(\S+)\s*\{", re.MULTILINE)


def look(
    *,
    instances: t.Sequence[str],
    questions: t.Sequence[t.Mapping[str, str]] = (),
    words: t.Mapping[str, str] | None = None,
) -> dict[str, t.Any]:
    """Look once.

    Args:
        instances: the tunnel instances that should run here.
        questions: the addresses to ask each network for: ``interface``, ``sender``, ``address``.
        words: what to put in place of the words that tell this gateway from the other one.

    Returns:
        What ``gateway_look.look`` says, and more of this gateway. ``time`` is the last thing that is read.
    """
    words = words or {}
    seen: dict[str, t.Any] = {
        **gateway_look.look(instances=instances),
        "arp": who_answers(questions=[Question(**question) for question in questions]),
        "hardware": _hardware(),
        "agent": _active("keepalived.service"),
        "score": _score(),
        "health": _health(),
        "hold": _text(RUN / "hold").strip(),
        "software": _software(),
        "configs": _configs(instances=instances, words=words),
        "members": members(text=_text(RUN / "keepalived.started")),
        "keys": _keys(),
        "ccd": _directory(SERVER, names=["%s/ccd" % name for name in instances]),
        "denied": _directory(SERVER, names=["denied"]),
        "crl": _text(SERVER / "crl.pem"),
    }
    seen["time"] = time.time()
    return seen


def neutral(*, text: str, words: t.Mapping[str, str]) -> str:
    """A configuration without comments and without what tells one gateway from the other."""
    lines = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0].rstrip() for line in text.splitlines())
    kept = "\n".join(line for line in lines if line and not line.startswith("CPUAffinity="))
    kept = _MATERIAL.sub("/material/", kept)
    if not words:
        return kept
    longest_first = sorted(words, key=len, reverse=True)
    pattern = r"(?<![A-Za-z0-9])(%s)(?![A-Za-z0-9])" % "|".join(re.escape(word) for word in longest_first)
    return re.sub(pattern, lambda match: words[match.group(1)], kept)


def members(*, text: str) -> dict[str, list[str]]:
    """The members of a keepalived configuration: by VRRP id and peer-independent facts, the addresses they announce.

    Two gateways hear each other on a member only when both announce the same addresses under the same id.
    """
    found: dict[str, list[str]] = {}
    for part in re.split(r"^(?=vrrp_instance\s)", text, flags=re.MULTILINE):
        if not _MEMBER.match(part):
            continue
        number = re.search(r"^\s*virtual_router_id\s+(\d+)", part, re.MULTILINE)
        block = re.search(r"^\s*virtual_ipaddress\s*\{([^}]*)\}", part, re.MULTILINE)
        addresses = [line.split()[0] for line in (block.group(1).splitlines() if block else []) if line.strip()]
        found[number.group(1) if number else "51"] = sorted(addresses)
    return found


def _configs(*, instances: t.Sequence[str], words: t.Mapping[str, str]) -> dict[str, str]:
    wanted = {name: Path(path) for name, path in CONFIGS.items()}
    for name in instances:
        wanted["instance %s" % name] = SERVER / ("%s.conf" % name)
        wanted["unit of %s" % name] = Path("/etc/systemd/system/openvpn-server@%s.service.d/spokewright.conf" % name)
    found = {name: _text(path) for name, path in wanted.items() if path.is_file()}
    return {name: _digest(neutral(text=text, words=words).encode()) for name, text in found.items()}


def _keys() -> dict[str, t.Any]:
    """What the configurations name: the authority and the tls-crypt-v2 key by digest, the certificate as it is."""
    named: dict[str, set[str]] = {}
    for config in sorted(SERVER.glob("*.conf")):
        for line in _text(config).splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in {"ca", "cert", "tls-crypt-v2"}:
                named.setdefault(words[0], set()).add(words[1])
    digests = {
        kind: "+".join(sorted({_digest(_bytes(Path(path))) for path in named.get(kind, ())}))
        for kind in ("ca", "tls-crypt-v2")
    }
    return {**digests, "certificates": [_text(Path(path)) for path in sorted(named.get("cert", ()))]}


def _directory(root: Path, *, names: t.Sequence[str]) -> dict[str, t.Any]:
    digest, count = hashlib.sha256(), 0
    for name in names:
        directory = root / name
        for path in sorted(directory.iterdir()) if directory.is_dir() else []:
            count += 1
            digest.update(("%s/%s\0" % (name, path.name)).encode() + _digest(_bytes(path)).encode())
    return {"digest": digest.hexdigest()[:16], "count": count}


def _software() -> dict[str, str]:
    found = {"kernel": os.uname().release}
    for package in PACKAGES:
        said = _run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", package]).split()
        if len(said) == 2 and said[0] == "installed":
            found[package] = said[1]
    return found


def _score() -> int | None:
    try:
        return int(_text(RUN / "score").split()[0])
    except (IndexError, ValueError):
        return None


def _health() -> dict[str, t.Any] | None:
    try:
        health = json.loads(_text(RUN / "health.json"))
    except ValueError:
        return None
    return health if isinstance(health, dict) else None


def _hardware() -> dict[str, str]:
    found = {}
    for path in Path("/sys/class/net").iterdir():
        address = _text(path / "address").strip()
        if address:
            found[path.name] = address
    return found


def _active(unit: str) -> bool:
    return _run(["systemctl", "is-active", unit]).strip() == "active"


def _run(argv: t.Sequence[str]) -> str:
    # Not run_command: this is a program of its own on the gateway, there is no module around it.
    # pylint: disable-next=ansible-bad-function
    done = subprocess.run(list(argv), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return done.stdout


def _text(path: Path) -> str:
    return _bytes(path).decode(errors="replace")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
