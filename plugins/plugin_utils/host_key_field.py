# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the pinned host key of a host that stands in the plan: a gateway, the bastion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_key_text import host_key_fault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import FieldReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node


@dataclass(frozen=True, slots=True)
class HostKeyField:
    """How the `host_key` fields of a plan are read."""

    reader: FieldReader
    plan_argument: str
    required: bool

    def read(self, entries: Mapping[str, Node], *, whose: str, node: Node) -> str | None:
        """Return the key without its comment, '' where it may be missing, None when it is missing or bad."""
        written = entries.get("host_key")
        if written is None or not written.text.strip():
            if not self.required:
                return ""
            remedy = f"`tools/fleet hostkeys collect -i {self.plan_argument}` prints its line; put it here by hand."
            self.reader.fault(written or node, f"{whose} has no host key.", remedy)
            return None
        text = " ".join(written.text.split()[:2])
        fault = host_key_fault(text=text)
        if fault is not None:
            self.reader.fault(written, f"the host key {fault}.", "Copy /etc/ssh/ssh_host_ed25519_key.pub of that host.")
            return None
        return text
