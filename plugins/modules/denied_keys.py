#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the list of key ids that a gateway refuses."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: denied_keys
short_description: Keep the list of site keys that a gateway refuses
description:
  - Keeps a directory with one empty file per refused key id. The gateway's verify script tests for that file, so a
    change is in force with the next handshake and restarts nothing.
  - A session that runs already goes on, and does not come back once it has ended.
    M(spokewright.fleet.tunnel_reconnect) ends it when the site has left the plan.
version_added: 0.1.0
author: Spokewright maintainers (@spokewright)
options:
  directory:
    description: The directory that the verify script looks into. It must exist, or every key is refused.
    type: path
    default: /etc/openvpn/server/denied
  key_ids:
    description: Key ids to refuse, 16 hexadecimal digits in lower case each. All others are admitted.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: Says which key ids would be refused or admitted.
    support: full
  diff_mode:
    description: Shows the list before and after.
    support: full
  platform:
    description: Gateways run Linux.
    platforms: posix
    support: full
"""

EXAMPLES = r"""
- name: A stolen box's key is refused
  spokewright.fleet.denied_keys:
    key_ids: [0123456789abcdef]
"""

RETURN = r"""
denied:
  description: Key ids refused from now on.
  returned: success
  type: list
  elements: str
  sample: [0123456789abcdef]
admitted:
  description: Key ids no longer refused.
  returned: success
  type: list
  elements: str
  sample: []
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.exact_directory import apply, compare

KEY_ID = re.compile(r"[0-9a-f]{16}")
FILE_MODE = 0o644
DIRECTORY_MODE = 0o755

ARGUMENT_SPEC = {
    "directory": {"type": "path", "default": "/etc/openvpn/server/denied"},
    # A key id names a key and is no secret.
    "key_ids": {"type": "list", "elements": "str", "required": True, "no_log": False},
}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    directory, key_ids = Path(module.params["directory"]), module.params["key_ids"]
    wrong = [key_id for key_id in key_ids if not KEY_ID.fullmatch(key_id)]
    if wrong:
        module.fail_json(
            msg=f"key_ids: {', '.join(map(repr, wrong))}: a key id is 16 hexadecimal digits in lower case, as "
            "'tools/fleet key' shows it. Nothing was changed."
        )
    missing = not directory.is_dir()
    changes = compare(directory=directory, desired=dict.fromkeys(key_ids, ""), mode=FILE_MODE)
    before = sorted(path.name for path in directory.iterdir()) if not missing else []
    if not module.check_mode:
        try:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            apply(changes=changes, mode=FILE_MODE)
        except OSError as exc:
            module.fail_json(msg=f"{exc.filename}: {exc.strerror}. Run again when that is mended.")
    module.exit_json(
        changed=missing or bool(changes),
        denied=[change.path.name for change in changes if change.kind == "added"],
        admitted=[change.path.name for change in changes if change.kind == "removed"],
        diff={
            "before_header": str(directory),
            "after_header": str(directory),
            "before": "".join(f"{name}\n" for name in before),
            "after": "".join(f"{name}\n" for name in sorted(set(key_ids))),
        },
    )


if __name__ == "__main__":
    main()
