# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the `ssh` section of a plan: the login on every host, and the bastion on the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.spokewright.fleet.plugins.plugin_utils import names
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Bastion, Ssh
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import PlacedBastion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_key_field import HostKeyField
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.placed_reader import PlacedReader
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.yaml_source import Node

    PathOf = Callable[[Node | None], Path | None]

_CHANNELS_MAX = 1000


def read_ssh(*, reader: PlacedReader, node: Node | None, path_of: PathOf, host_key: HostKeyField) -> Ssh | None:
    """Return how hosts are logged in to, None when something about it is missing or bad."""
    entries = reader.section(node, required=("private_key_file",), optional=("user", "port", "bastion"))
    if entries is None:
        return None
    private_key_file = path_of(entries.get("private_key_file"))
    user = _user(reader, entries, otherwise="root")
    port = _integer(reader, entries, "port", high=65535, otherwise=22)
    reader.facts.ssh_user, reader.facts.ssh_port = user, port
    bastion: Bastion | None = None
    if "bastion" in entries:
        bastion = _bastion(
            reader=reader,
            node=entries["bastion"],
            path_of=path_of,
            host_key=host_key,
            # What is bad has its fault already; any value lets the bastion itself be judged.
            usual=(user or "root", private_key_file),
        )
        if bastion is None:
            return None
    if private_key_file is None or user is None or port is None:
        return None
    return Ssh(user=user, port=port, private_key_file=private_key_file, bastion=bastion)


def _user(reader: PlacedReader, entries: Mapping[str, Node], *, otherwise: str) -> str | None:
    if "user" not in entries:
        return otherwise
    remedy = "Write the name of a login on the hosts, as in root."
    return reader.matching(entries["user"], pattern=names.USER, what="user name", remedy=remedy)


def _integer(reader: PlacedReader, entries: Mapping[str, Node], key: str, *, high: int, otherwise: int) -> int | None:
    return reader.integer(entries[key], low=1, high=high) if key in entries else otherwise


def _bastion(
    *,
    reader: PlacedReader,
    node: Node,
    path_of: PathOf,
    host_key: HostKeyField,
    usual: tuple[str, Path | None],
) -> Bastion | None:
    optional = ("host_key", "port", "user", "private_key_file", "channels")
    entries = reader.section(node, required=("address",), optional=optional)
    if entries is None:
        return None
    address = reader.address(entries.get("address"))
    port = _integer(reader, entries, "port", high=65535, otherwise=22)
    user = _user(reader, entries, otherwise=usual[0])
    channels = _integer(reader, entries, "channels", high=_CHANNELS_MAX, otherwise=10)
    key = host_key.read(entries, whose="the bastion", node=node)
    private_key_file = path_of(entries["private_key_file"]) if "private_key_file" in entries else usual[1]
    if address is not None and port is not None:
        reader.facts.bastion = PlacedBastion(address, port, key or "", entries["address"])
    if address is None or port is None or user is None or channels is None or key is None or private_key_file is None:
        return None
    return Bastion(
        address=str(address),
        port=port,
        user=user,
        host_key=key,
        private_key_file=private_key_file,
        channels=channels,
    )
