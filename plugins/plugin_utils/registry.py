# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read `sites.csv`: what operators keep about every site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.spokewright.fleet.plugins.plugin_utils import names
from ansible_collections.spokewright.fleet.plugins.plugin_utils.addresses import (
    Span,
    address_number,
    host_mask,
    parse_prefix,
    prefix_text,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.csv_source import CsvSource, Row
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem
from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import closest, listing
from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_key_text import host_key_fault

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Client
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan_facts import PlanFacts

COLUMNS = ("id", "group", "oob_address", "host_key", "lan", "options")
OPTIONS = ("oob_port", "oob_user", "oob_client", "oob_bastion", "transports")
CLIENTS: tuple[Client, ...] = ("paramiko", "openssh")
_LAST_PORT = 65535
_PORT_DIGITS = 5
_MULTICAST = 0xE0000000
_LOOPBACK = Span(0x7F000000, 0x7FFFFFFF)


class Lan(NamedTuple):
    """A site's LAN prefix and where it stands."""

    span: Span
    text: str
    site: str
    line: int


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One line of the registry whose fields are valid by themselves."""

    line: int
    id: str
    group: str
    oob_address: str
    oob_number: int
    oob_port: int
    oob_user: str
    oob_client: Client
    oob_bastion: bool
    host_key: str
    lans: tuple[Lan, ...]
    transports: tuple[str, ...]


class _Options(NamedTuple):
    port: int
    user: str
    transports: tuple[str, ...]
    client: Client
    bastion: bool


class RegistryReader:
    """Reads one registry and judges each row by itself; what rows owe each other is in `registry_rules`."""

    def __init__(
        self,
        *,
        file: str,
        facts: PlanFacts,
        problems: list[Problem],
        plan_argument: str,
        require_host_keys: bool,
    ) -> None:
        self._file = file
        self._facts = facts
        self._problems = problems
        self._plan_argument = plan_argument
        self._require_host_keys = require_host_keys
        self._ids: dict[str, tuple[str, int]] = {}
        self._line = 0

    def read(self, *, data: bytes) -> list[SiteRow]:
        """Return a row for every line; a field that is bad is noted and left empty in its row."""
        source = CsvSource(file=self._file, columns=COLUMNS, problems=self._problems)
        rows = source.rows(data=data)
        if rows is None:
            return []
        found = [self._site(row) for row in rows]
        if not rows and not self._problems:
            remedy = "Add a site, one a line; a fleet without sites would remove every tunnel."
            self._problems.append(Problem(self._file, 0, "", "", "the registry names no site.", remedy))
        return found

    def _fault(self, field: str, value: str, message: str, remedy: str) -> None:
        self._problems.append(Problem(self._file, self._line, field, value, message, remedy))

    def _site(self, row: Row) -> SiteRow:
        self._line = row.line
        site_id, group, oob_address, host_key, lan, options = row.values
        self._judge_id(site_id)
        self._judge_group(group)
        number = self._oob(oob_address)
        chosen = self._options(options)
        return SiteRow(
            line=row.line,
            id=site_id,
            group=group,
            oob_address=oob_address,
            oob_number=number,
            oob_port=chosen.port,
            oob_user=chosen.user,
            oob_client=chosen.client,
            oob_bastion=chosen.bastion,
            host_key=self._host_key(host_key, site_id),
            lans=self._lans(lan, site_id) if lan else (),
            transports=chosen.transports,
        )

    def _judge_id(self, site_id: str) -> None:
        if not site_id:
            self._fault("id", "", "the site has no id.", names.LABEL_RULE)
            return
        folded = site_id.casefold()
        first = self._ids.setdefault(folded, (site_id, self._line))
        if first[1] != self._line:
            if first[0] == site_id:
                message = f"'{site_id}' is also the id of the site in line {first[1]}."
            else:
                message = f"'{site_id}' differs only in case from '{first[0]}' in line {first[1]}."
            self._fault("id", site_id, message, "Give each site its own id, or remove one of the lines.")
        elif not names.LABEL.fullmatch(site_id):
            message = f"'{site_id}' is no host name and no certificate name."
            self._fault("id", site_id, message, names.LABEL_RULE)
        elif site_id in self._facts.gateway_names:
            self._fault("id", site_id, f"'{site_id}' is the name of a gateway.", "Choose another id.")
        elif site_id in names.RESERVED_HOSTS:
            self._fault("id", site_id, f"'{site_id}' is a name Ansible keeps for itself.", "Choose another id.")
        elif names.reserved_group(site_id) or (self._facts.groups is not None and site_id in self._facts.groups):
            self._fault("id", site_id, f"'{site_id}' is the name of a group too.", "Choose another id.")

    def _judge_group(self, group: str) -> None:
        known = self._facts.groups
        if not group:
            self._fault("group", "", "the site has no group.", "Name the site group it is rolled out with.")
        elif known is not None and group not in known:
            remedy = (
                closest(word=group, known=known) or f"Known: {listing(known)}; new groups go into groups of the plan."
            )
            self._fault("group", group, f"'{group}' is no group of the plan.", remedy)

    def _oob(self, text: str) -> int:
        """Return the address as a number, 0 when it is bad."""
        if not text:
            remedy = "Write the address the site answers SSH on, outside its tunnel."
            self._fault("oob_address", "", "the site has no out-of-band address.", remedy)
            return 0
        number = address_number(text)
        if number is None:
            remedy = "Write four numbers from 0 to 255 with dots, as in 192.0.2.1."
            self._fault("oob_address", text, f"'{text}' is no IPv4 address.", remedy)
            return 0
        if number >= _MULTICAST or number >> 24 == 0 or _LOOPBACK.first <= number <= _LOOPBACK.last:
            remedy = "Write the address the site answers SSH on, outside its tunnel."
            self._fault("oob_address", text, f"'{text}' is no address of a host.", remedy)
            return 0
        return number

    def _host_key(self, text: str, site_id: str) -> str:
        if not text:
            if self._require_host_keys:
                remedy = f"Collect it: tools/fleet hostkeys collect -i {self._plan_argument} --write"
                self._fault("host_key", "", f"site {site_id} has no host key.", remedy)
            return ""
        fault = host_key_fault(text=text)
        if fault is not None:
            self._fault(
                "host_key", text, f"the host key {fault}.", "Copy /etc/ssh/ssh_host_ed25519_key.pub of the site."
            )
        # A comment behind the key is nobody's business but the file's.
        return " ".join(text.split()[:2])

    def _lans(self, text: str, site_id: str) -> tuple[Lan, ...]:
        found: list[Lan] = []
        for word in text.split():
            parsed = parse_prefix(word)
            if parsed is None:
                remedy = "Write it as ADDRESS/LENGTH, as in 192.0.2.0/24; several are separated by spaces."
                self._fault("lan", word, f"'{word}' is no IPv4 prefix.", remedy)
                continue
            number, length = parsed
            mask = host_mask(length)
            if number & mask:
                remedy = f"The network is {prefix_text(number & ~mask, length)}."
                self._fault("lan", word, f"'{word}' has bits set behind its prefix length.", remedy)
                continue
            found.append(Lan(Span(number, number | mask), word, site_id, self._line))
        return tuple(found)

    def _options(self, text: str) -> _Options:
        facts = self._facts
        port, user, transports = facts.ssh_port or 22, facts.ssh_user or "root", facts.transport_names or ()
        client: Client = "paramiko"
        bastion = True
        seen: set[str] = set()
        for word in text.split():
            key, equals, value = word.partition("=")
            if not equals or not value:
                self._fault(
                    "options", word, f"'{word}' is no option.", "Write KEY=VALUE; several are separated by spaces."
                )
            elif key in seen:
                self._fault("options", word, f"'{key}' is given twice.", "Keep one of the two.")
            elif key == "transports":
                transports = self._transports(value)
            elif key == "oob_port":
                port = self._port(value)
            elif key == "oob_user":
                user = self._user(value)
            elif key == "oob_client":
                client = self._client(value)
            elif key == "oob_bastion":
                bastion = self._bastion(value)
            else:
                remedy = closest(word=key, known=OPTIONS) or f"Known: {listing(OPTIONS)}."
                self._fault("options", word, f"'{key}' is no option of a site.", remedy)
            seen.add(key)
        return _Options(port, user, transports, client, bastion)

    def _transports(self, value: str) -> tuple[str, ...]:
        known = self._facts.transport_names
        found: list[str] = []
        for name in value.split("+"):
            if known is not None and name not in known:
                remedy = closest(word=name, known=known) or f"Known: {listing(known)}; several are joined by +."
                self._fault("options", value, f"'{name}' is no transport of the plan.", remedy)
            elif name in found:
                self._fault(
                    "options",
                    value,
                    f"the transport '{name}' is named twice.",
                    "Name each once, in order of preference.",
                )
            else:
                found.append(name)
        return tuple(found)

    def _port(self, value: str) -> int:
        if len(value) <= _PORT_DIGITS and value.isascii() and value.isdigit() and 1 <= int(value) <= _LAST_PORT:
            return int(value)
        self._fault("options", value, f"oob_port '{value}' is no port.", f"Write a number from 1 to {_LAST_PORT}.")
        return 22

    def _user(self, value: str) -> str:
        if not names.USER.fullmatch(value):
            self._fault(
                "options", value, f"oob_user '{value}' is no user name.", "Write the name of a login on the site."
            )
        return value

    def _client(self, value: str) -> Client:
        for known in CLIENTS:
            if value == known:
                return known
        remedy = closest(word=value, known=CLIENTS) or f"Known: {listing(CLIENTS)}."
        self._fault("options", value, f"oob_client '{value}' is no SSH client we can use.", remedy)
        return "paramiko"

    def _bastion(self, value: str) -> bool:
        """Say whether the site is reached through the plan's bastion, if it has one."""
        if value != "none":
            message = f"oob_bastion '{value}' is not none, the only choice."
            remedy = "Write oob_bastion=none for a site that is reached directly, or nothing."
            self._fault("options", value, message, remedy)
        return value != "none"
