# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked of a site for each order, and how its answer is read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery as d
from ansible_collections.spokewright.fleet.plugins.plugin_utils.bundle import Bundle
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import Hold
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer, Target

TARGET = Target(
    name="site-0001", address="198.18.1.1", port=22, user="root", host_key="x y", private_key_file=Path("/nowhere")
)
DAMAGED = [{"generation": 4, "digest": "", "intact": False}]
BUNDLE = Bundle(
    site="site-0001", epoch=1, digest="d" * 64, archive=b"archive", manifest="", psk_fingerprint="SHA256:ab"
)


def shown(**changes: Any) -> dict[str, Any]:
    held = {"generation": 4, "digest": "d" * 64, "intact": True}
    state: dict[str, Any] = {
        "agent": 2,
        "reverted": 0,
        "previous": 0,
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


def play(verb: str, state: dict[str, Any], *, dry_run: bool = False, **more: Any) -> tuple[Any, list[str]]:
    asked: list[str] = []

    def ask(*words: str, bundle: bytes = b"") -> dict[str, Any]:
        asked.append(" ".join((*words, bundle.decode())).strip())
        return {**state, "verb": words[0]}

    order = d.Order(target=TARGET, verb=verb, bundle=BUNDLE, deadman_seconds=90, dry_run=dry_run)
    order = dataclasses.replace(order, **more)
    return d._dispatch(order=order, ask=ask), asked


D = "d" * 64
HOLD = Hold(seconds=7200, by="ann@desk", reason="a storm", now=1000)


def test_what_a_brake_would_do_is_only_asked_for() -> None:
    state = shown(held=0, holds=True)
    found, asked = play("hold", state, dry_run=True, hold=HOLD)
    assert (asked, found.ok, found.changed, found.message) == (["show"], True, True, "would be held for 2 h")
    found, asked = play("release", shown(held=90, held_by="ann"), dry_run=True)
    assert (asked, found.changed) == (["show"], True)
    found, _asked = play("hold", shown(pending=4, held=0, holds=True), dry_run=True, hold=HOLD)
    assert (found.ok, found.changed, found.reason) == (False, False, "on-probation")
    assert found.message.startswith("site-0001: generation 4 is on probation")


@pytest.mark.parametrize(
    ("verb", "more", "asked"),
    [
        ("show", {}, "show"),
        ("stage", {}, f"stage {D} archive"),
        ("stage", {"texts": True}, f"stage {D} texts archive"),
        ("activate", {}, f"activate {D} 90"),
        ("confirm", {}, f"confirm {D}"),
        ("revert", {}, "revert"),
        ("revert", {"generation": "4"}, "revert 4"),
        ("forget", {}, "forget old"),
        ("forget", {"generation": "3"}, "forget 3"),
        ("forget", {"generation": "epoch 2"}, "forget epoch 2"),
        ("hold", {"hold": HOLD}, "hold 7200 1000 ann@desk a storm"),
        ("release", {}, "release"),
    ],
)
def test_every_verb_is_one_exchange(verb: str, more: dict[str, Any], asked: str) -> None:
    changed = shown(changed=True, digest=D, generation=4)
    result, words = play(verb, changed, **more)
    assert (result.ok, result.changed, words) == (True, True, [asked])


OLD = {"generation": 2, "digest": "2" * 64, "intact": True, "facts": {"epoch": 1}}
OLDER = {"generation": 1, "digest": "1" * 64, "intact": True, "facts": {"epoch": 1}}
WOULD = "would send bundle dddddddddddd, 7 bytes, key epoch 1, PSK SHA256:ab"
THREE = shown(generations=[*shown()["generations"], OLD, OLDER], previous=2)
STAGED = shown(generations=THREE["generations"], current=2, confirmed=2)


@pytest.mark.parametrize(
    ("verb", "state", "more", "message"),
    [
        ("stage", shown(generations=[]), {}, WOULD),
        ("stage", shown(generations=DAMAGED), {}, WOULD),
        ("stage", shown(), {}, ""),
        ("activate", shown(), {}, ""),
        ("activate", shown(current=3), {}, "would activate generation 4, 90 s to be confirmed"),
        ("activate", shown(confirmed=3, pending=4), {}, ""),
        (
            "activate",
            shown(confirmed=3, pending=4, service="inactive"),
            {},
            "would activate generation 4, 90 s to be confirmed",
        ),
        ("activate", shown(service="inactive"), {}, "would activate generation 4, 90 s to be confirmed"),
        ("activate", shown(enabled=False), {}, "would activate generation 4, 90 s to be confirmed"),
        ("activate", shown(links=False), {}, "would activate generation 4, 90 s to be confirmed"),
        ("activate", shown(generations=[]), {}, "would activate bundle dddddddddddd once it is staged"),
        ("confirm", shown(confirmed=3), {}, "would confirm generation 4"),
        ("confirm", shown(current=3, confirmed=3), {}, "would confirm generation 4 once it runs"),
        ("confirm", shown(), {}, ""),
        ("revert", shown(), {}, "would go back from generation 4"),
        ("revert", shown(current=3, confirmed=3, pending=4), {}, "would go back from generation 4"),
        ("revert", shown(current=3, confirmed=3, reverted=4), {}, ""),
        ("revert", shown(), {"generation": "3"}, ""),
        ("forget", THREE, {}, "would forget generation 1"),
        ("forget", STAGED, {}, "would forget generation 1"),
        ("forget", STAGED, {"generation": "old"}, "would forget generation 1"),
        ("forget", STAGED, {"generation": "4"}, "would forget generation 4"),
        ("forget", shown(current=0, confirmed=0), {}, ""),
        ("forget", THREE, {"generation": "2"}, "would forget generation 2"),
        ("forget", THREE, {"generation": "1" * 64}, "would forget generation 1"),
        ("forget", THREE, {"generation": "9"}, ""),
        # Not even the way back is spared: no gateway lets its key in any more.
        ("forget", THREE, {"generation": "below 2"}, "would forget generation 2, 1"),
        ("forget", THREE, {"generation": "below 1"}, ""),
    ],
)
def test_a_dry_run_only_looks_and_says_what_would_be(
    verb: str, state: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    result, words = play(verb, state, dry_run=True, **more)
    assert (result.ok, result.changed, words) == (True, bool(message), ["show"])
    if message:
        assert result.message == message


@pytest.mark.parametrize(
    ("state", "generation", "why"),
    [
        (THREE, "4", "generation 4 is current"),
        (THREE, "d" * 64, "generation 4 is current"),
        (THREE, "epoch 1", "generation 2 is the way back; forget it by its number"),
        (shown(generations=THREE["generations"], current=1, confirmed=2), "2", "generation 2 is the confirmed one"),
        (
            shown(generations=THREE["generations"], current=1, confirmed=1, pending=2),
            "2",
            "generation 2 is on probation",
        ),
    ],
)
def test_a_dry_run_refuses_to_forget_what_the_run_would_refuse(
    state: dict[str, Any], generation: str, why: str
) -> None:
    result, words = play("forget", state, dry_run=True, generation=generation)
    assert (result.ok, result.changed, result.reason, words) == (False, False, "in-use", ["show"])
    assert result.message == f"site-0001: would not be forgotten: {why}"


@pytest.mark.parametrize("verb", ["activate", "revert"])
def test_a_dry_run_says_that_a_held_site_would_refuse(verb: str) -> None:
    state = shown(held=600, held_by="ann@desk", held_reason="storm")
    found, words = play(verb, state, dry_run=True)
    assert (found.ok, found.reason, words) == (False, "held", ["show"])
    assert found.message == "site-0001: held for another 10 min by ann@desk: storm; release it first"
    assert play("show", state)[0].message == "held for another 10 min by ann@desk: storm"
    assert play("stage", state, dry_run=True)[0].ok


def test_a_bundle_that_is_held_already_is_told_with_what_is_left_to_do() -> None:
    held, _ = play("stage", shown(digest=D, generation=4))
    assert (held.changed, held.message) == (False, "generation 4 holds bundle dddddddddddd")
    held, _ = play("stage", shown(digest=D, generation=4, confirmed=0))
    assert held.message.endswith(", not active, enabled and confirmed yet")


def test_a_held_site_with_nothing_to_change_is_settled_and_says_who_holds_it() -> None:
    state = shown(digest=D, generation=4, service="inactive", held=600, held_by="ann@desk", held_reason="storm")
    assert d.settled(shown=state, digest=D)
    assert not d.settled(shown={**state, "held": 0}, digest=D)
    assert not d.settled(shown={**state, "confirmed": 3}, digest=D)
    told, _ = play("stage", state)
    assert told.message == "generation 4 holds bundle dddddddddddd; held for another 10 min by ann@desk: storm"


def test_a_release_names_the_hold_that_was_seen() -> None:
    assert play("release", shown())[1] == ["release"]
    assert play("release", shown(), seen="7200-99")[1] == ["release 7200-99"]


def test_another_digest_than_was_sent_is_no_success() -> None:
    with pytest.raises(d.ReceiptError, match=f"read back digest other, sent {D}"):
        play("stage", shown(digest="other", changed=True))


def test_the_bundle_is_given_only_to_a_site_that_asks_for_it() -> None:
    assert d._reply(line=b"Welcome to SPOKEWRIGHT-WANT", bundle=b"secret") is None
    assert d._reply(line=b'SPOKEWRIGHT-SHOW {"generations":[]}', bundle=b"secret") is None
    assert d._reply(line=b'SPOKEWRIGHT-RECEIPT {"ok":true}\r', bundle=b"secret") == b""
    assert d._reply(line=b"SPOKEWRIGHT-WANT\r", bundle=b"secret") == b"secret"
    assert d._reply(line=b"SPOKEWRIGHT-MORE", bundle=b"secret") == d.rest_bytes()


def test_only_the_staging_of_a_bundle_does_with_a_part_of_the_agent() -> None:
    assert d.opening(words=("stage", D)) == b""
    for words in (("stage", D, "texts"), ("show",), ("activate", D, "60")):
        assert d.opening(words=words) == d.agent_bytes()


def test_what_was_done_since_outweighs_what_was_shown() -> None:
    out = (
        b'hello\r\nSPOKEWRIGHT-SHOW {"current":1,"init":"sysv"}\r\n\nSPOKEWRIGHT-RECEIPT {"agent":2,"current":2}\r\nbye'
    )
    receipt = d.read_receipt(site="x", answer=Answer(exit_status=0, stdout=out, stderr=b"", seconds=0))
    assert receipt == {"agent": 2, "current": 2, "init": "sysv"}


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
        (b'SPOKEWRIGHT-RECEIPT {"agent":2}\nSPOKEWRIGHT-RECEIPT {"agent":2}\n', "2 receipts came back"),
    ],
)
def test_an_answer_that_is_no_receipt_is_told_as_such(out: bytes, says: str) -> None:
    with pytest.raises(d.ReceiptError, match=says):
        d.read_receipt(site="site-0001", answer=Answer(exit_status=127, stdout=out, stderr=b"sh: not found", seconds=0))


def test_bytes_that_are_no_text_do_not_break_a_receipt() -> None:
    line = b'\xff\xfe hello\nSPOKEWRIGHT-RECEIPT {"agent":2,"message":"\xff"}\n'
    assert d.read_receipt(site="x", answer=Answer(exit_status=0, stdout=line, stderr=b"", seconds=0))["agent"] == 2


def test_another_user_than_root_goes_through_sudo_without_a_prompt() -> None:
    assert d.command(user="ops", words=("show",)).startswith("sudo -n sh -c ")
