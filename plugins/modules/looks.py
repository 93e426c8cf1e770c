#!/usr/bin/python
# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run several commands that only look."""

from __future__ import annotations

DOCUMENTATION = r"""
module: looks
short_description: Run several commands that only look, in one task
version_added: 0.1.0
author:
  - Spokewright maintainers (@spokewright)
description:
  - Runs commands on the host, one after another, without a shell, and returns what each said. One connection and one
    interpreter for all of them.
  - It is for commands that change nothing. So it never reports a change, and it runs in check mode as well.
options:
  commands:
    description: The commands by the names under which their answers are returned, each a list of its words.
    type: dict
    required: true
  may_fail:
    description:
      - The commands whose exit status is part of the answer. Any other one that fails fails the task.
      - A program that is not there counts as exit status 127, one that has not ended after a minute as 124.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: It changes nothing and does the same in check mode.
    support: full
  diff_mode:
    description: It changes nothing, so there is nothing to show.
    support: none
"""

EXAMPLES = r"""
- name: Look which interfaces there are, and whether keepalived runs
  spokewright.fleet.looks:
    commands:
      links: [ip, -json, link, show]
      keepalived: [systemctl, is-active, --quiet, keepalived.service]
    may_fail: [keepalived]
  register: host

- name: Say it
  ansible.builtin.debug:
    msg: "{{ host.looks.links.stdout | from_json | map(attribute='ifname') }} {{ host.looks.keepalived.rc == 0 }}"
"""

RETURN = r"""
looks:
  description: What each command said, by its name.
  returned: always
  type: dict
  sample: {keepalived: {rc: 3, stdout: "", stdout_lines: [], stderr: ""}}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.spokewright.fleet.plugins.module_utils import look_around


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "commands": {"type": "dict", "required": True},
            "may_fail": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    commands, may_fail = module.params["commands"], module.params["may_fail"]
    wrong = sorted(name for name, words in commands.items() if not isinstance(words, list) or not words)
    strangers = sorted(set(may_fail) - set(commands))
    if wrong:
        module.fail_json(msg=f"commands: {', '.join(wrong)}: each command is a list of its words, and has at least one")
    if strangers:
        module.fail_json(msg=f"may_fail names {', '.join(strangers)}, which no command is called")
    said = {name: look_around.run(command=[str(word) for word in words]) for name, words in commands.items()}
    failed = look_around.failures(said=said, may_fail=may_fail)
    if failed:
        module.fail_json(msg="; ".join(failed), looks=said)
    module.exit_json(changed=False, looks=said)


if __name__ == "__main__":
    main()
