# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a site for each order, and how its answer is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery as d
from ansible_collections.spokewright.fleet.plugins.plugin_utils.bundle import Bundle
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer, Target

TARGET = Target(
    name="site-0001", address="198.18.1.1", port=22, user="root", host_key="x y", private_key_file=Path("/nowhere")
)
DAMAGED = [{"generation": 4, "digest": "", "intact": False}]
BUNDLE = Bundle(site="site-0001", epoch=1, digest="d" * 64, archive=b"archive", manifest="")


def shown(**changes: Any) -> dict[str, Any]:
    held = {"generation": 4, "digest": "d" * 64, "intact": True}
    state: dict[str, Any] = {
        "agent": 1,
        "ok": True,
        "changed": False,
        "generations": [held],
        "current": 4,
        "confirmed": 4,
        "pending": 0,
        "service": "active",
        "enabled": True,
        "links": True,
        "openvpn": "2.6.14",
    }
    return {**state, **changes}


def play(verb: str, state: dict[str, Any], *, dry_run: bool = False) -> tuple[Any, list[tuple[str, ...]]]:
    asked: list[tuple[str, ...]] = []

    def ask(*words: str, stdin: bytes = b"") -> dict[str, Any]:
        asked.append((*words, f"{len(stdin)} bytes"))
        if words[0] == "show":
            return state
        return {"agent": 1, "ok": True, "changed": True, "digest": "d" * 64, "generation": 4, "verb": words[0]}

    order = d.Order(target=TARGET, verb=verb, bundle=BUNDLE, deadman_seconds=90, dry_run=dry_run)
    return d._dispatch(order=order, ask=ask), asked


@pytest.mark.parametrize(
    ("verb", "state", "asked", "changed"),
    [
        ("stage", shown(generations=[]), ("stage", "d" * 64, "7 bytes"), True),
        ("stage", shown(), None, False),
        ("stage", shown(generations=DAMAGED), ("stage", "d" * 64, "7 bytes"), True),
        ("activate", shown(), None, False),
        ("activate", shown(current=3), ("activate", "4", "90", "0 bytes"), True),
        ("activate", shown(confirmed=3, pending=4), ("activate", "4", "90", "0 bytes"), True),
        ("activate", shown(service="inactive"), ("activate", "4", "90", "0 bytes"), True),
        ("activate", shown(enabled=False), ("activate", "4", "90", "0 bytes"), True),
        ("activate", shown(links=False), ("activate", "4", "90", "0 bytes"), True),
        ("confirm", shown(confirmed=3), ("confirm", "4", "0 bytes"), True),
        ("revert", shown(), ("revert", "4", "0 bytes"), True),
        ("revert", shown(current=3, confirmed=3, pending=4), ("revert", "4", "0 bytes"), True),
        ("show", shown(), None, False),
    ],
)
def test_only_what_is_needed_is_asked(
    verb: str, state: dict[str, Any], asked: tuple[str, ...] | None, *, changed: bool
) -> None:
    result, words = play(verb, state)
    assert (result.ok, result.changed) == (True, changed)
    assert words == [("show", "0 bytes"), *([asked] if asked else [])]
    dry, words = play(verb, state, dry_run=True)
    assert (dry.ok, dry.changed) == (True, changed)
    assert words == [("show", "0 bytes")]


@pytest.mark.parametrize("verb", ["activate", "confirm"])
def test_what_is_not_there_cannot_be_activated(verb: str) -> None:
    result, _ = play(verb, shown(generations=[]))
    assert (result.ok, result.reason) == (False, "not-staged")
    assert play(verb, shown(generations=[]), dry_run=True)[0].changed is True


def test_the_current_one_is_meant_when_two_generations_are_alike() -> None:
    twins = [{"generation": n, "digest": "d" * 64, "intact": True} for n in (2, 5)]
    assert d.generation_of(shown=shown(generations=twins, current=2), digest="d" * 64) == 2
    assert d.generation_of(shown=shown(generations=twins, current=9), digest="d" * 64) == 5


@pytest.mark.parametrize(
    ("out", "says"),
    [
        (b"", "0 receipts came back, exit status 127, it said 'sh: not found'"),
        (b"SPOKEWRIGHT-RECEIPT {]\n", "its receipt is no JSON"),
        (b'SPOKEWRIGHT-RECEIPT {"agent":99}\n', "of another version of the agent"),
        (b'SPOKEWRIGHT-RECEIPT {"agent":1}\nSPOKEWRIGHT-RECEIPT {"agent":1}\n', "2 receipts came back"),
    ],
)
def test_an_answer_that_is_no_receipt_is_told_as_such(out: bytes, says: str) -> None:
    with pytest.raises(d.ReceiptError, match=says):
        d.read_receipt(site="site-0001", answer=Answer(exit_status=127, stdout=out, stderr=b"sh: not found", seconds=0))


def test_bytes_that_are_no_text_do_not_break_a_receipt() -> None:
    line = b'\xff\xfe hello\nSPOKEWRIGHT-RECEIPT {"agent":1,"message":"\xff"}\n'
    assert d.read_receipt(site="x", answer=Answer(exit_status=0, stdout=line, stderr=b"", seconds=0))["agent"] == 1


def test_another_user_than_root_goes_through_sudo_without_a_prompt() -> None:
    assert d.command(user="ops", words=("show",)).startswith("sudo -n sh -c ")
