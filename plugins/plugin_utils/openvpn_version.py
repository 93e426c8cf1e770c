# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which OpenVPN a gateway has, and whether the holes known in it are closed.

Floors: CVE-2025-13086, CVE-2025-2704, CVE-2026-35058, -40215, -12932, -13698, -12996 and -13117 all let a peer with or
without a key stop or starve a server that uses tls-crypt-v2. Distributions carry the fixes back without changing the
upstream number, so a package of Debian is judged by its own revision.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

UPSTREAM_FLOORS: t.Final = {(2, 6): 21, (2, 7): 5}
# release of Debian -> (upstream number it packages, first revision with all the fixes)
DEBIAN_FLOORS: t.Final = {12: ((2, 6, 14), 2), 13: ((2, 6, 14), 3)}

_BANNER = re.compile(r"^OpenVPN (\d+)\.(\d+)(?:\.(\d+)|_git)")
_PACKAGE = re.compile(r"^(?P<major>\d+)\.(?P<minor>\d+)\.(?P<patch>\d+)-\d+\+deb(?P<release>\d+)u(?P<revision>\d+)$")


class VersionError(Exception):
    """The answer is not OpenVPN's."""


@dataclass(frozen=True)
class OpenvpnVersion:
    """``series`` is what templates choose by; ``unsafe`` is empty or says what is wrong and what to do."""

    version: str
    series: str
    unsafe: str


def judge(*, banner: str, package: str) -> OpenvpnVersion:
    """Judge an openvpn by the first line of ``openvpn --version`` and the package's version (empty: no package).

    Raises:
        VersionError: ``banner`` is not what openvpn prints.
    """
    found = _BANNER.match(banner)
    if not found:
        raise VersionError(f"'openvpn --version' answered {banner[:80]!r}, which names no version")
    major, minor, patch = int(found[1]), int(found[2]), int(found[3] or 0)
    version = f"{major}.{minor}.{patch}"
    return OpenvpnVersion(
        version=version,
        series=f"{major}.{minor}",
        unsafe=_unsafe(number=(major, minor, patch), package=package),
    )


def _unsafe(*, number: tuple[int, int, int], package: str) -> str:
    major, minor, patch = number
    if (major, minor) < min(UPSTREAM_FLOORS):
        return f"OpenVPN {major}.{minor} has no connection cookies (force-cookie); install 2.6.21, 2.7.5 or later"
    if patch >= UPSTREAM_FLOORS.get((major, minor), 0):
        return ""
    debian = _PACKAGE.match(package)
    floor = DEBIAN_FLOORS.get(int(debian["release"])) if debian else None
    if debian and floor:
        found = ((int(debian["major"]), int(debian["minor"]), int(debian["patch"])), int(debian["revision"]))
        if found >= floor:
            return ""
        first = ".".join(str(part) for part in floor[0])
        return (
            f"openvpn {package} lacks security fixes; Debian {debian['release']} has them from "
            f"{first}-...+deb{debian['release']}u{floor[1]} on: upgrade the package"
        )
    return f"OpenVPN {major}.{minor}.{patch} lacks security fixes that 2.6.21 and 2.7.5 have; install one or later"
