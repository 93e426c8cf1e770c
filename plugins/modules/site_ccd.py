#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep exactly the ccd files of all sites of a gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: site_ccd
short_description: Keep the ccd files of all sites of a gateway
description:
  - Writes one file per site into the C(ccd) directory of its tunnel instance and removes every file that belongs to
    no site, in one task for the whole fleet.
  - Each file is replaced atomically and strangers are removed last, so that a daemon with C(ccd-exclusive) never
    refuses a site while the directory is being written.
  - Two sites with one address, overlapping LANs and addresses outside the tunnel network are refused before anything
    is written. OpenVPN checks none of it.
  - OpenVPN reads a ccd file when a client connects. Use M(spokewright.fleet.tunnel_reconnect) afterwards.
version_added: 0.1.0
author: Spokewright maintainers (@spokewright)
options:
  root:
    description: Directory that holds one directory per instance, with O(instances)/ccd in it.
    type: path
    default: /etc/openvpn/server
  instances:
    description: Names of the tunnel instances of this gateway.
    type: list
    elements: str
    required: true
  network:
    description: The tunnel network, as V(ADDRESS/LENGTH).
    type: str
    required: true
  sites:
    description: The sites that connect to this gateway.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: The site's id, which is the common name of its certificate.
        type: str
        required: true
      tunnel_address:
        description: The site's fixed tunnel address.
        type: str
        required: true
      instance:
        description: The tunnel instance the site connects to.
        type: str
        required: true
      lans:
        description: LAN prefixes behind the site.
        type: list
        elements: str
        required: true
attributes:
  check_mode:
    description: Says which files would change.
    support: full
  diff_mode:
    description: Shows each file that changes.
    support: full
  platform:
    description: Gateways run Linux.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: Sites have their fixed addresses
  spokewright.fleet.site_ccd:
    instances: [tun0]
    network: 10.101.0.0/16
    sites:
      - id: site-0001
        tunnel_address: 10.101.0.16
        instance: tun0
        lans: [10.202.1.0/24]
"""

RETURN = r"""
sites:
  description: Per instance, the sites whose file was added, changed or removed.
  returned: success
  type: dict
  sample:
    tun0: [site-0001]
"""

import ipaddress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.exact_directory import FileChange, apply, compare
from ansible_collections.spokewright.fleet.plugins.module_utils.site_config import (
    SiteConfigError,
    ccd_files,
    read_sites,
)

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755

ARGUMENT_SPEC = {
    "root": {"type": "path", "default": "/etc/openvpn/server"},
    "instances": {"type": "list", "elements": "str", "required": True},
    "network": {"type": "str", "required": True},
    "sites": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "id": {"type": "str", "required": True},
            "tunnel_address": {"type": "str", "required": True},
            "instance": {"type": "str", "required": True},
            "lans": {"type": "list", "elements": "str", "required": True},
        },
    },
}


def _diff(change: FileChange) -> dict[str, str]:
    path = str(change.path)
    return {"before_header": path, "after_header": path, "before": change.before or "", "after": change.after or ""}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    options = module.params
    root = Path(options["root"])
    try:
        entries = read_sites(sites=options["sites"], instances=options["instances"], network=options["network"])
    except (SiteConfigError, ValueError) as exc:
        module.fail_json(msg=f"The sites cannot be served as planned, nothing was changed:\n{exc}")
    netmask = str(ipaddress.IPv4Network(options["network"]).netmask)
    files = ccd_files(entries=entries, instances=options["instances"], netmask=netmask)
    changes: list[FileChange] = []
    touched: dict[str, list[str]] = {}
    for instance, desired in sorted(files.items()):
        directory = root / instance / "ccd"
        differing = compare(directory=directory, desired=desired, mode=FILE_MODE)
        changes += differing
        if differing:
            touched[instance] = [change.path.name for change in differing]
        if not module.check_mode:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    if not module.check_mode:
        try:
            apply(changes=changes, mode=FILE_MODE)
        except OSError as exc:
            module.fail_json(msg=f"{exc.filename}: {exc.strerror}. Files written so far are whole; run again.")
    module.exit_json(changed=bool(changes), sites=touched, diff=[_diff(change) for change in changes])


if __name__ == "__main__":
    main()
