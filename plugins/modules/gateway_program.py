#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep a program of ours on a gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: gateway_program
short_description: Keep a program of ours on a gateway
description:
  - A directory that holds exactly the given files. Each is replaced atomically, strangers are removed last.
  - The filter C(spokewright.fleet.gateway_program_files) makes them from one of the collection's modules.
    C(python3 -I DIRECTORY) runs them.
version_added: 0.1.0
author: Spokewright maintainers (@spokewright)
options:
  path:
    description: The directory. Directories above it are made.
    type: path
    required: true
  files:
    description: The text of each file, by name.
    type: dict
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
- name: The health daemon is there
  spokewright.fleet.gateway_program:
    path: /usr/local/lib/spokewright/health
    files: "{{ 'health_daemon' | spokewright.fleet.gateway_program_files }}"
"""

RETURN = r"""
files:
  description: Names of the files that were added, changed or removed.
  returned: success
  type: list
  elements: str
  sample: [health_daemon.py]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.exact_directory import FileChange, apply, compare

FILE_MODE = 0o644
DIRECTORY_MODE = 0o755

ARGUMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "files": {"type": "dict", "required": True},
}


def _diff(change: FileChange) -> dict[str, str]:
    path = str(change.path)
    return {"before_header": path, "after_header": path, "before": change.before or "", "after": change.after or ""}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    directory = Path(module.params["path"])
    changes = compare(directory=directory, desired=module.params["files"], mode=FILE_MODE)
    if changes and not module.check_mode:
        try:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            apply(changes=changes, mode=FILE_MODE)
        except OSError as exc:
            module.fail_json(msg=f"{exc.filename}: {exc.strerror}. Files written so far are whole; run again.")
    names = [change.path.name for change in changes]
    module.exit_json(changed=bool(changes), files=names, diff=[_diff(change) for change in changes])


if __name__ == "__main__":
    main()
