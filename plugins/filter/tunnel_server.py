# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the role tunnel_server."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from dataclasses import asdict
from pathlib import Path

from ansible.errors import AnsibleFilterError

from ansible_collections.spokewright.fleet.plugins.plugin_utils.certificates import fingerprint, split
from ansible_collections.spokewright.fleet.plugins.plugin_utils.openvpn_version import VersionError, judge

SMALLEST_LIMIT = 100


def tunnel_server_authority(installed: str, ca_file: str) -> dict[str, t.Any]:
    """Compare the CA certificates a gateway runs with, given as PEM text, with the controller's.

    None on the gateway, before a first run, is no other one. Several, after a run that broke off, are no other one when
    the controller's is among them: it came there with consent. So is it while one CA follows another.
    """
    found = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", installed, re.DOTALL)
    there = sorted({fingerprint(certificate=one) for one in found})
    path = Path(ca_file)
    text = path.read_text(encoding="ascii") if path.exists() else ""
    ours = [fingerprint(certificate=one) for one in split(text=text)]
    return {
        "same": not there or not set(ours).isdisjoint(there),
        "installed": ", ".join(there),
        "ours": ", ".join(ours) or "none, it holds no CA yet",
    }


def tunnel_server_openvpn(banner: str, package: str = "") -> dict[str, str]:
    """Judge an openvpn by its banner and its package's version."""
    try:
        return asdict(judge(banner=banner, package=package.strip()))
    except VersionError as exc:
        raise AnsibleFilterError(str(exc)) from exc


def tunnel_server_routes(networks: t.Iterable[str]) -> list[str]:
    """Prefixes as OpenVPN's ``route`` wants them: ``ADDRESS NETMASK``, each once, in the order given."""
    try:
        found = [ipaddress.IPv4Network(network) for network in networks]
    except ValueError as exc:
        raise AnsibleFilterError(f"{exc}: write prefixes as ADDRESS/LENGTH, without host bits") from exc
    return [f"{network.network_address} {network.netmask}" for network in dict.fromkeys(found)]


def tunnel_server_limits(capacity: int, max_clients: int = 0, connect_freq_initial: int = 0) -> dict[str, int]:
    """Limits of one daemon that is to serve ``capacity`` sites, unless somebody has set them: 0 is for nobody has.

    They follow from the capacity and not from today's number of sites: they stand in the daemon's configuration, and
    one more site must not restart it. Four per site: a site that lost its gateway comes with two attempts from new
    ports within one handshake window while its old session is still counted, and one is spare.
    """
    limit = max(SMALLEST_LIMIT, 4 * int(capacity))
    return {
        "max_clients": int(max_clients) or limit,
        "connect_freq_initial": int(connect_freq_initial) or limit,
    }


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """Names of the filters."""
        return {
            "tunnel_server_authority": tunnel_server_authority,
            "tunnel_server_limits": tunnel_server_limits,
            "tunnel_server_openvpn": tunnel_server_openvpn,
            "tunnel_server_routes": tunnel_server_routes,
        }
