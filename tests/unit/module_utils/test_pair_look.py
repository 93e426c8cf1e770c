# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gateway tells of its files, and how it reads keepalived's."""

from __future__ import annotations

from ansible_collections.spokewright.fleet.plugins.module_utils.arp_question import Question, answered_by, request
from ansible_collections.spokewright.fleet.plugins.module_utils.pair_look import members, neutral

KEEPALIVED = """
# inside
vrrp_instance IN {
    interface inside0
    virtual_router_id 10
    unicast_src_ip 10.200.0.2
    unicast_peer {
        10.200.0.3 min_ttl 255 max_ttl 255
    }
    virtual_ipaddress {
        10.200.0.1/32 dev inside0
    }
}

vrrp_instance HB {
    virtual_router_id 40
    virtual_ipaddress {
        169.254.40.1/32 dev lo scope host
    }
}
"""


def test_members_are_known_by_id_and_addresses() -> None:
    assert members(text=KEEPALIVED) == {"10": ["10.200.0.1/32"], "40": ["169.254.40.1/32"]}
    assert members(text="") == {}


def test_two_files_that_differ_by_plan_alone_become_one() -> None:
    one = {"10.200.0.2": "<own>", "10.200.0.3": "<peer>", "gw1": "<name>", "eth0": "<nic>"}
    other = {"10.200.0.3": "<own>", "10.200.0.2": "<peer>", "gw2": "<name>", "eth0.7": "<nic>"}
    first = (
        "# gw1\nrouter_id gw1\nsource 10.200.0.2 to 10.200.0.3/32 on eth0\n"
        "ca /x/material/0a1b/ca.crt\n\nCPUAffinity=1\n"
    )
    second = (
        "router_id gw2 # me\nsource 10.200.0.3 to 10.200.0.2/32 on eth0.7\nca /x/material/ff00/ca.crt\nCPUAffinity=2"
    )

    assert neutral(text=first, words=one) == neutral(text=second, words=other)
    assert neutral(text=first, words=one) != neutral(text=second.replace("to", "from"), words=other)


def test_a_longer_name_or_address_is_another() -> None:
    assert neutral(text="gw12 10.0.0.11 gw1", words={"gw1": "X", "10.0.0.1": "Y"}) == "gw12 10.0.0.11 X"


def test_an_arp_answer_is_told_from_everything_else() -> None:
    hardware = bytes.fromhex("020000000001")
    question = Question(interface="inside0", sender="10.200.0.3", address="10.200.0.1")
    asked = request(hardware=hardware, question=question)

    assert len(asked) == 42
    assert answered_by(frame=asked, address="10.200.0.1") == "", "a question is no answer"
    answer = asked[:20] + b"\x00\x02" + hardware + bytes([10, 200, 0, 1]) + asked[32:]
    assert answered_by(frame=answer, address="10.200.0.1") == "02:00:00:00:00:01"
    assert answered_by(frame=answer, address="10.200.0.9") == ""
    assert answered_by(frame=answer[:30], address="10.200.0.1") == ""
