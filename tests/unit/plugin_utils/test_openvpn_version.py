# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.openvpn_version import VersionError, judge


@pytest.mark.parametrize(
    ("banner", "package", "series", "unsafe"),
    [
        ("OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)]", "2.6.14-0+deb12u2", "2.6", ""),
        ("OpenVPN 2.6.14 x86_64-pc-linux-gnu", "2.6.14-1+deb13u3", "2.6", ""),
        ("OpenVPN 2.6.14 x86_64-pc-linux-gnu", "2.6.14-0+deb12u1", "2.6", "Debian 12 has them from 2.6.14-...+deb12u2"),
        ("OpenVPN 2.6.14 x86_64-pc-linux-gnu", "2.6.14-1+deb13u2", "2.6", "Debian 13 has them from 2.6.14-...+deb13u3"),
        ("OpenVPN 2.6.3 x86_64-pc-linux-gnu", "2.6.3-1+deb12u4", "2.6", "upgrade the package"),
        ("OpenVPN 2.6.14 x86_64-pc-linux-gnu", "", "2.6", "lacks security fixes that 2.6.21 and 2.7.5 have"),
        ("OpenVPN 2.6.14 x86_64-pc-linux-gnu", "2.6.14-1+rpm1", "2.6", "lacks security fixes that 2.6.21"),
        ("OpenVPN 2.6.21 x86_64-pc-linux-gnu", "", "2.6", ""),
        ("OpenVPN 2.7.4 x86_64-pc-linux-gnu", "", "2.7", "OpenVPN 2.7.4 lacks security fixes"),
        ("OpenVPN 2.7.6 [git:v2.7.6] x86_64", "", "2.7", ""),
        ("OpenVPN 2.8_git x86_64", "", "2.8", ""),
        ("OpenVPN 2.5.9 x86_64", "", "2.5", "OpenVPN 2.5 has no connection cookies"),
    ],
)
def test_known_holes_are_told_from_backported_fixes(banner: str, package: str, series: str, unsafe: str) -> None:
    found = judge(banner=banner, package=package)
    assert found.series == series
    assert unsafe in found.unsafe
    assert bool(unsafe) == bool(found.unsafe)


def test_an_answer_without_a_version_is_an_error() -> None:
    with pytest.raises(VersionError, match="answered 'sh: openvpn: not found', which names no version"):
        judge(banner="sh: openvpn: not found", package="")
