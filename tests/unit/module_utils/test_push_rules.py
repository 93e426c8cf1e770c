# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import socket
import typing as t

import pytest

from ansible_collections.spokewright.fleet.plugins.module_utils import push_rules as rules

WHOLE: dict[str, t.Any] = {
    "fifo": "/run/spokewright/notify.fifo",
    "inside": "10.200.0.1",
    "outside": ["198.19.0.1", "198.19.128.1"],
    "peers": [{"address": "198.19.0.3", "vrrp_id": 20}, {"address": "198.18.0.3", "vrrp_id": 40}],
    "advert": 0.1,
    "lease": {"file": "/run/spokewright/lease", "seconds": 2},
    "instances": ["tun0", "tun1"],
    "sockets": "/run/openvpn-server",
    "per_second": 200,
}


def test_the_configuration_is_read_and_all_seconds_follow_from_the_advert() -> None:
    config = rules.parse(text=json.dumps(WHOLE))

    assert config.peers == {("198.19.0.3", 20), ("198.18.0.3", 40)}
    assert config.lease == rules.Lease(file="/run/spokewright/lease", seconds=2)
    assert rules.parse(text=json.dumps(WHOLE | {"lease": None})).lease is None
    assert config.patience == pytest.approx(2.0)
    assert rules.parse(text=json.dumps(WHOLE | {"advert": 1})).patience == pytest.approx(20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be used"),
        ("[]", "cannot be used"),
        (json.dumps({name: value for name, value in WHOLE.items() if name != "inside"}), "'inside'"),
        (json.dumps(WHOLE | {"peers": [{"address": "198.19.0.3"}]}), "'vrrp_id'"),
        (json.dumps(WHOLE | {"per_second": 0}), "per_second is 0"),
        (json.dumps(WHOLE | {"advert": 0}), "advert is 0"),
    ],
)
def test_a_configuration_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(rules.PushConfigError, match=said):
        rules.parse(text=text)


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ('GROUP "GATEWAY" MASTER 0', "MASTER"),
        ('GROUP "GATEWAY" BACKUP 0', "BACKUP"),
        ('GROUP "GATEWAY" FAULT 0', "FAULT"),
        ('GROUP "GATEWAY" STOP 0', "STOP"),
        ('INSTANCE "IN" BACKUP 100', None),
        ('INSTANCE "IN" MASTER_RX_LOWER_PRI 100', None),
        ("GROUP", None),
        ("", None),
    ],
)
def test_only_the_groups_state_counts(line: str, state: str | None) -> None:
    assert rules.group_state(line=line) == state


def packet(*, source: str = "198.19.0.3", vrrp_id: int = 20, priority: int = 100, protocol: int = 112) -> bytes:
    header = bytearray(20)
    header[0], header[8], header[9] = 0x45, 255, protocol
    header[12:16] = socket.inet_aton(source)
    return bytes(header) + bytes([0x31, vrrp_id, priority, 1, 0, 10, 0, 0]) + socket.inet_aton("198.19.0.1")


PEERS = {("198.19.0.3", 20), ("198.18.0.3", 40)}


@pytest.mark.parametrize(
    ("heard", "owner"),
    [
        (packet(), True),
        (packet(source="198.18.0.3", vrrp_id=40), True),
        (packet(priority=0), False),
        (packet(source="198.19.7.7"), False),
        (packet(vrrp_id=40), False),
        (packet(protocol=17), False),
        (packet()[:24], False),
        (b"", False),
    ],
)
def test_only_the_peers_own_advert_says_that_it_has_the_addresses(heard: bytes, *, owner: bool) -> None:
    assert rules.is_owners_advert(packet=heard, peers=PEERS) is owner


def test_options_in_the_ip_header_do_not_confuse() -> None:
    plain = packet()
    assert rules.is_owners_advert(packet=bytes([0x46]) + plain[1:20] + bytes(4) + plain[20:], peers=PEERS)


@pytest.mark.parametrize(
    ("record", "ended"), [("100.0", False), ("98.0", False), ("97.9", True), ("", False), ("9x", False)]
)
def test_a_lease_ends_by_the_hosts_own_uptime(record: str, *, ended: bool) -> None:
    assert rules.lease_has_ended(record=record, uptime=100.0, seconds=2) is ended


def test_sessions_are_ended_at_the_pace_and_each_once() -> None:
    planned = rules.batches(clients=range(25), per_second=200)

    assert [len(clients) for _at, clients in planned] == [10, 10, 5]
    assert [at for at, _clients in planned] == pytest.approx([0, 0.05, 0.1])
    assert sorted(client for _at, clients in planned for client in clients) == list(range(25))


def test_a_slow_pace_is_one_at_a_time() -> None:
    assert rules.batches(clients=[7, 8, 9], per_second=2) == [(0.0, [7]), (0.5, [8]), (1.0, [9])]
    assert rules.batches(clients=[], per_second=2) == []
