#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install the files of a role, all or none."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: role_files
short_description: Install the files of a role, all or none
description:
  - Every file is written beside its place and tried by the command in its O(files[].validate). Only when none is
    refused does the first take its place. A broken template therefore changes nothing, whichever of the files it is.
  - Files and directories are replaced or made atomically, with owner and mode from the start. Directories above them
    are made, root's and C(0755).
  - One call for all files of a role instead of one for each is what keeps a run short.
version_added: 0.1.0
author: Spokewright maintainers (@spokewright)
options:
  files:
    description: The files, in the order in which they take their places.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Where it belongs., type: path, required: true}
      content: {description: Its text., type: str, required: true}
      mode: {description: Its mode., type: str, default: "0644"}
      owner: {description: Its owner., type: str, default: root}
      group: {description: Its group., type: str, default: root}
      validate:
        description: A command that refuses a wrong file with any exit status but 0. C(%s) is the file to try.
        type: str
        default: ""
  directories:
    description: Directories, made after the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: Where it belongs., type: path, required: true}
      mode: {description: Its mode., type: str, default: "0755"}
      files:
        description:
          - The text of each file, by name. The directory then holds exactly these; strangers are removed last.
          - The filter C(spokewright.fleet.gateway_program_files) makes them of a program of the collection.
        type: dict
attributes:
  check_mode:
    description: Says what would change. No file is tried, the programs that try them may not be there yet.
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
- name: The packet filter and the unit that loads it are there
  spokewright.fleet.role_files:
    files:
      - path: /etc/nftables.d/spokewright.nft
        content: "{{ lookup('ansible.builtin.template', 'spokewright.nft.j2') }}"
        validate: nft -c -f %s
      - path: /etc/systemd/system/spokewright-firewall.service
        content: "{{ lookup('ansible.builtin.template', 'spokewright-firewall.service.j2') }}"

- name: The health daemon's program is there
  spokewright.fleet.role_files:
    directories:
      - path: /usr/local/lib/spokewright/health
        files: "{{ 'health_daemon' | spokewright.fleet.gateway_program_files }}"
"""

RETURN = r"""
paths:
  description: Files and directories that were made, changed or removed.
  returned: success
  type: list
  elements: str
  sample: [/etc/nftables.d/spokewright.nft]
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils.exact_directory import FileChange, apply, compare
from ansible_collections.spokewright.fleet.plugins.module_utils.role_files import (
    Difference,
    Rights,
    RoleFile,
    RoleFilesError,
    differences,
    found_rights,
    install,
    make_directories,
    own,
)

EXACT_MODE = 0o644

ARGUMENT_SPEC = {
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0644"},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "validate": {"type": "str", "default": ""},
        },
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "mode": {"type": "str", "default": "0755"},
            "files": {"type": "dict"},
        },
    },
}


def _diff(header: str, before: str | None, after: str | None) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before or "", "after": after or ""}


def _file_diff(change: Difference) -> dict[str, str]:
    path, wanted = str(change.wanted.path), change.wanted
    if change.content == wanted.content:
        return _diff(path, f"{change.rights}\n", f"{wanted.rights}\n")
    return _diff(path, change.content, wanted.content)


def _role_files(wanted: t.Iterable[dict[str, t.Any]]) -> list[RoleFile]:
    return [
        RoleFile(
            path=Path(one["path"]),
            content=one["content"],
            rights=Rights(int(one["mode"], 8), one["owner"], one["group"]),
            validate=one["validate"],
        )
        for one in wanted
    ]


class Directories:
    """The directories that are wanted, and what differs there."""

    def __init__(self, wanted: t.Iterable[dict[str, t.Any]]) -> None:
        self.wanted = {Path(one["path"]): Rights(int(one["mode"], 8)) for one in wanted}
        # A link to a directory is the host's own arrangement.
        self.found = {path: found_rights(path=path.resolve()) for path in self.wanted}
        self.files: list[FileChange] = []
        for one in wanted:
            if one["files"] is not None:
                self.files += compare(directory=Path(one["path"]), desired=one["files"], mode=EXACT_MODE)

    def changed(self) -> list[Path]:
        """Those that are missing or have other rights."""
        return [path for path, rights in self.wanted.items() if self.found[path] != rights]

    def make(self) -> None:
        """Make them as wanted, with exactly the files that are wanted in them."""
        for path in self.changed():
            make_directories(path=path)
            own(target=path, rights=self.wanted[path])
        apply(changes=self.files, mode=EXACT_MODE)

    def diffs(self) -> list[dict[str, str]]:
        """One entry for each directory and each file in one."""
        rights = [
            _diff(str(path), f"{self.found[path]}\n" if self.found[path] else "", f"{self.wanted[path]}\n")
            for path in self.changed()
        ]
        return rights + [_diff(str(change.path), change.before, change.after) for change in self.files]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)

    def run(argv: t.Sequence[str]) -> tuple[int, str, str]:
        code, out, err = module.run_command(list(argv), handle_exceptions=True)
        return int(code), str(out), str(err)

    try:
        wanted, directories = _role_files(module.params["files"]), Directories(module.params["directories"])
    except ValueError as exc:
        module.fail_json(msg=f"mode: {exc}: write it as octal digits, like '0644'. Nothing was changed.")
    try:
        changes = differences(files=wanted)
        if not module.check_mode:
            install(changes=changes, run=run)
            directories.make()
    except RoleFilesError as exc:
        module.fail_json(msg=f"{exc}.")
    except OSError as exc:
        module.fail_json(msg=f"{exc.filename}: {exc.strerror}. Files written so far are whole; run again.")
    paths = [*directories.changed(), *(change.path for change in directories.files)]
    paths += [change.wanted.path for change in changes]
    module.exit_json(
        changed=bool(paths),
        paths=[str(path) for path in paths],
        diff=directories.diffs() + [_file_diff(change) for change in changes],
    )


if __name__ == "__main__":
    main()
