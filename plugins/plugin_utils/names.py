# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which names hosts and groups may carry, and why not others."""

from __future__ import annotations

import re

# An id becomes a certificate's CN, a ccd file name, a host name and an Ansible host name at once.
LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
LABEL_RULE = "Use lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends."
GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
GROUP_RULE = "Use letters, digits and underscores, not starting with a digit."
INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
INTERFACE_RULE = "An interface name has at most 15 letters, digits, dots, hyphens and underscores."
TRANSPORT = re.compile(r"[a-z][a-z0-9_]{0,31}")
TRANSPORT_RULE = "Use lower-case letters, digits and underscores, starting with a letter, at most 32."
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
CLONED_RULE = "Remove /etc/ssh/ssh_host_* on one of them, run `ssh-keygen -A` anew there and collect again."

# No interface of a gateway: what the kernel has for itself, and directories of /proc/sys/net/ipv4/conf.
NO_INTERFACE = frozenset({"all", "default", "lo"})
# Networks of a gateway that are no transport have these names beside the transports'.
NO_TRANSPORT = frozenset({"inside", "oob"})
RESERVED_HOSTS = frozenset({"all", "ungrouped", "localhost"})
RESERVED_GROUPS = frozenset({"all", "ungrouped", "gateways", "sites", "localhost"})
INSTANCE_GROUP_PREFIX = "instance_"


def reserved_group(name: str) -> bool:
    """Say whether the inventory makes a group of this name itself."""
    return name in RESERVED_GROUPS or name.startswith(INSTANCE_GROUP_PREFIX)
