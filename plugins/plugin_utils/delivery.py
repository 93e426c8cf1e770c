# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of the site agent, spoken over SSH in one exchange: show, stage, activate, confirm, revert, and so on."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.bundle import Bundle, agent_text, bare
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import Hold, foretell_hold, hold_of
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import (
    SshTimeoutError,
    Target,
    Timeouts,
    open_session,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer, OpenSshSession, Session

    # Words for the agent, and the bundle it is given if it wants it.
    Ask = Callable[..., dict[str, Any]]

VOICE: Final = b"SPOKEWRIGHT-"
MARK: Final = "SPOKEWRIGHT-RECEIPT "
SHOWN: Final = "SPOKEWRIGHT-SHOW "
WANT: Final = b"SPOKEWRIGHT-WANT"
MORE: Final = b"SPOKEWRIGHT-MORE"
AGENT_VERSION: Final = 2
# Where the agent's text may be cut in two.
SEAM: Final = "\n#-- "
# Around the agent's text, so that a part of it is never taken for the whole.
HEAD: Final = "#spokewright-agent"
TAIL: Final = "#spokewright-end"
READS: Final = "does something in the login on this site read standard input?"
CUT: Final = (
    '{"agent":2,"ok":false,"changed":false,"reason":"incomplete",'
    f'"message":"the agent did not arrive whole; {READS}"}}'
)


class ReceiptError(FleetError):
    """The site answered something that is no receipt."""

    reason = "no-receipt"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one site is to do.

    `generation` is for `revert` (a number) and `forget` (a number, a digest, "epoch E", "below E" or "old"), `hold` for
    `hold`, and `seen` for `release`: the hold that it ends, and no other. With `texts` the answer carries configuration
    and manifest of what is current, for a difference; a dry run always asks for them.
    """

    target: Target
    verb: str
    bundle: Bundle | None = None
    deadman_seconds: int = 120
    dry_run: bool = False
    generation: str = ""
    texts: bool = False
    hold: Hold | None = None
    seen: str = ""


def carry_out(*, order: Order, timeouts: Timeouts | None = None) -> SiteResult:
    """Carry out one order over one connection and in one exchange.

    The site says first what it holds. A bundle leaves the controller only when the site then asks for it.
    """
    with open_session(target=order.target, timeouts=timeouts) as session:

        def ask(*words: str, bundle: bytes = b"") -> dict[str, Any]:
            line = command(user=order.target.user, words=words)
            if not bundle:
                # Standard input ends behind the agent, so an agent of which a login took a part is missed at once.
                answer = session.run(command=line, stdin=opening(words=words))
            else:
                answer = _offer(session=session, line=line, stdin=opening(words=words), bundle=bundle)
            return read_receipt(site=order.target.name, answer=answer)

        return _dispatch(order=order, ask=ask)


def _offer(*, session: Session | OpenSshSession, line: str, stdin: bytes, bundle: bytes) -> Answer:
    spoke = False

    def reply(heard: bytes) -> bytes | None:
        nonlocal spoke
        spoke = spoke or heard.startswith(VOICE)
        return _reply(line=heard, bundle=bundle)

    try:
        return session.converse(command=line, stdin=stdin, wanted=reply)
    except SshTimeoutError as exc:
        if spoke:
            raise
        raise SshTimeoutError(f"{exc} The agent said nothing: {READS}") from exc


def _reply(*, line: bytes, bundle: bytes) -> bytes | None:
    line = line.strip()
    if line == WANT:
        return bundle
    if line == MORE:
        return rest_bytes()
    return b"" if line.startswith(MARK.encode()) else None


def command(*, user: str, words: tuple[str, ...]) -> str:
    """The SSH command. It holds no secret and stays below the 9000 bytes that dropbear takes.

    To stage a bundle on a site that does not have it is what a rollout does most, and reading the whole agent would
    cost the site as much as a tenth of the login. So its first part is the command itself then. For all else the
    command reads the agent from standard input. A `dd` that does not know fullblock fails before it has read a byte.
    """
    if _is_short(words):
        first, _rest = _parts()
        script = f'{first}\nasked={len(rest_bytes())}\nshift\nstage "$@"'
    else:
        size = len(agent_bytes())
        script = (
            f"a=$(dd bs={size} count=1 iflag=fullblock 2>/dev/null);"
            f'[ -n "$a" ]||a=$(dd bs=1 count={size} 2>/dev/null);'
            f"""case $a in "{HEAD}"*"{TAIL}") eval "$a";;*)printf '\\n%s%s\\n' "{MARK}" {shlex.quote(CUT)};;esac"""
        )
    line = f"sh -c {shlex.quote(script)} spokewright {shlex.join(words)}"
    return line if user == "root" else f"sudo -n {line}"


def opening(*, words: tuple[str, ...]) -> bytes:
    """What goes to standard input before anything else."""
    return b"" if _is_short(words) else agent_bytes()


def agent_bytes() -> bytes:
    """The agent as it travels."""
    return _framed("\n".join(_parts()))


def rest_bytes() -> bytes:
    """The second part of the agent, for a site that has its first."""
    return _framed(_parts()[1])


def _is_short(words: tuple[str, ...]) -> bool:
    # With "texts" the first part alone does not know enough.
    return words[0] == "stage" and len(words) == 2


def _framed(text: str) -> bytes:
    return f"{HEAD}\n{text}\n{TAIL}".encode("ascii")


@lru_cache(maxsize=1)
def _parts() -> tuple[str, str]:
    """The agent in two, without comments and indentation."""
    first, _seam, rest = agent_text().partition(SEAM)
    # The rest begins with what is left of the comment that marks the seam.
    return bare(first), bare(rest.partition("\n")[2])


def read_receipt(*, site: str, answer: Answer) -> dict[str, Any]:
    """The receipt, with what the site holds, among whatever banners and profiles print."""
    text = answer.stdout.decode("utf-8", "replace")
    lines = [line.strip() for line in text.split("\n")]
    found = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
    if len(found) != 1:
        heard = (answer.stderr.decode("utf-8", "replace").strip() or text.strip())[:200]
        raise ReceiptError(
            f"{site}: {len(found)} receipts came back, exit status {answer.exit_status}"
            f"{f', it said {heard!r}' if heard else ''}. Does its login shell run commands?"
        )
    receipt = _object(site=site, line=found[0])
    if receipt.get("agent") != AGENT_VERSION:
        raise ReceiptError(f"{site}: its receipt is of another version of the agent.")
    shown = [line.removeprefix(SHOWN) for line in lines if line.startswith(SHOWN)]
    # What was done since is in the receipt.
    return {**_object(site=site, line=shown[0]), **receipt} if shown else receipt


def _object(*, site: str, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, strict=False)
    except ValueError as exc:
        raise ReceiptError(f"{site}: its receipt is no JSON ({exc}).") from exc
    if not isinstance(found, dict):
        raise ReceiptError(f"{site}: its receipt is no JSON object.")
    return found


def generation_of(*, shown: dict[str, Any], digest: str) -> int | None:
    """The number of the whole generation with that digest; the current one when several have it."""
    numbers = [one["generation"] for one in shown["generations"] if one["intact"] and one["digest"] == digest]
    if shown["current"] in numbers:
        return int(shown["current"])
    return max(map(int, numbers), default=None)


def settled(*, shown: dict[str, Any], digest: str) -> bool:
    """Whether the site runs exactly this bundle, confirmed, now and after its next boot; a held one after its hold."""
    held = generation_of(shown=shown, digest=digest)
    return (
        held is not None
        and held == shown["current"] == shown["confirmed"]
        and shown["pending"] == 0
        and (shown.get("service") == "active" or bool(shown.get("held")))
        and shown.get("enabled") is True
        and shown.get("links") is True
    )


def _dispatch(*, order: Order, ask: Ask) -> SiteResult:
    site, verb = order.target.name, order.verb
    if verb in {"show", "hold", "release"}:
        return _brake(order=order, ask=ask) if verb != "show" else _result(site, _show(ask("show")))
    if verb in {"revert", "forget"}:
        words = (verb, *(order.generation.split() or (["old"] if verb == "forget" else [])))
        return _foretell_leaving(order=order, shown=ask("show")) if order.dry_run else _result(site, ask(*words))
    if order.bundle is None:
        raise FleetError(f"{site}: there is no bundle to {verb}.")
    if order.dry_run:
        return _foretell(order=order, bundle=order.bundle, shown=ask("show"))
    if verb == "stage":
        return _stage(order=order, bundle=order.bundle, ask=ask)
    seconds = (str(order.deadman_seconds),) if verb == "activate" else ()
    return _result(site, ask(verb, order.bundle.digest, *seconds))


def _stage(*, order: Order, bundle: Bundle, ask: Ask) -> SiteResult:
    site = order.target.name
    receipt = ask("stage", bundle.digest, *(("texts",) if order.texts else ()), bundle=bundle.archive)
    if receipt["ok"] and receipt.get("digest") != bundle.digest:
        raise ReceiptError(f"{site}: read back digest {receipt.get('digest')}, sent {bundle.digest}.")
    if receipt["ok"] and not receipt["changed"]:
        return _held(site=site, bundle=bundle, receipt=receipt)
    return _result(site, receipt)


def _held(*, site: str, bundle: Bundle, receipt: dict[str, Any]) -> SiteResult:
    todo = "" if settled(shown=receipt, digest=bundle.digest) else ", not active, enabled and confirmed yet"
    kept = f"; {said}" if (said := hold_of(receipt)) else ""
    message = f"generation {receipt['generation']} holds bundle {bundle.digest[:12]}{todo}{kept}"
    return SiteResult(site=site, ok=True, message=message, receipt=receipt)


def _foretell(*, order: Order, bundle: Bundle, shown: dict[str, Any]) -> SiteResult:
    """What a run would do. Only `show` is asked, which changes nothing."""
    site, short = order.target.name, bundle.digest[:12]
    if not shown["ok"]:
        return _result(site, shown)
    if stopped := _stopped(order=order, shown=shown):
        return stopped
    held = generation_of(shown=shown, digest=bundle.digest)
    facts = {**shown, "verb": order.verb, "digest": bundle.digest, "generation": held or 0}
    if order.verb == "stage":
        if held is not None:
            return _held(site=site, bundle=bundle, receipt=facts)
        changed = True
        key = f"key epoch {bundle.epoch}, PSK {bundle.psk_fingerprint}"
        message = f"would send bundle {short}, {len(bundle.archive)} bytes, {key}"
    elif held is None:
        changed, message = True, f"would {order.verb} bundle {short} once it is staged"
    elif order.verb == "activate":
        waits = held == shown["pending"]
        # On probation, too, nothing is restarted.
        changed = not settled(
            shown={**shown, **({"pending": 0, "confirmed": held} if waits else {})}, digest=bundle.digest
        )
        message = f"would activate generation {held}, {order.deadman_seconds} s to be confirmed"
        message = message if changed else f"generation {held} runs and {'waits to be' if waits else 'is'} confirmed"
    else:
        changed = shown["confirmed"] != held or shown["pending"] != 0
        message = f"would confirm generation {held}" if changed else f"generation {held} was confirmed before"
        message += " once it runs" if changed and shown["current"] != held else ""
    return SiteResult(site=site, ok=True, changed=changed, message=message, receipt=facts)


def _foretell_leaving(*, order: Order, shown: dict[str, Any]) -> SiteResult:
    site = order.target.name
    if not shown["ok"]:
        return _result(site, shown)
    if stopped := _stopped(order=order, shown=shown):
        return stopped
    receipt = {**shown, "verb": order.verb}
    kept = _kept(order=order, shown=shown)
    if kept:
        message = f"{site}: would not be forgotten: {'; '.join(kept)}"
        return SiteResult(site=site, ok=False, reason="in-use", message=message, receipt=receipt)
    gone = _going(order=order, shown=shown)
    word = "forget" if order.verb == "forget" else "go back from"
    numbers = ", ".join(str(number) for number in gone)
    message = f"would {word} generation {numbers}" if gone else f"nothing to {word}"
    return SiteResult(site=site, ok=True, changed=bool(gone), message=message, receipt=receipt)


def _show(shown: dict[str, Any]) -> dict[str, Any]:
    held = hold_of(shown)
    return {**shown, "message": held} if shown["ok"] and held else shown


def _stopped(*, order: Order, shown: dict[str, Any]) -> SiteResult | None:
    """The refusal of a site that is held, where the verb would start its client."""
    held = hold_of(shown)
    if not held or order.verb not in {"activate", "revert"}:
        return None
    said = f"{held}; release it first"
    return _result(order.target.name, {**shown, "verb": order.verb, "ok": False, "reason": "held", "message": said})


def _brake(*, order: Order, ask: Ask) -> SiteResult:
    site = order.target.name
    if not order.dry_run:
        return _result(site, ask(*(order.hold.words if order.hold else ("release", *filter(None, (order.seen,))))))
    shown = ask("show")
    if not shown["ok"]:
        return _result(site, shown)
    foretold = foretell_hold(hold=order.hold, shown=shown)
    return _result(site, {**shown, "verb": order.verb, "ok": not foretold["reason"], **foretold})


def _going(*, order: Order, shown: dict[str, Any]) -> list[int]:
    """The generations the agent would leave or remove; it has the last word."""
    asked = order.generation.split()
    if order.verb == "revert":
        if asked:
            return [int(asked[0])] if int(asked[0]) in {shown["current"], shown["pending"]} else []
        back = shown["reverted"] not in {0, shown["current"]}
        # A generation on its way out is left to the end, even when another is current already.
        return [one for one in (shown["pending"] or (0 if back else shown["current"]),) if one]
    needed = _needed(asked=asked, shown=shown)
    return [
        int(one["generation"])
        for one in shown["generations"]
        if one["generation"] not in needed and _is_asked(one=one, asked=asked, current=shown["current"])
    ]


def _kept(*, order: Order, shown: dict[str, Any]) -> list[str]:
    """What was named to be forgotten and is needed, with the reason the agent gives."""
    asked = order.generation.split()
    if order.verb != "forget" or asked in ([], ["old"]):
        return []
    needed = _needed(asked=asked, shown=shown)
    return [
        f"generation {one['generation']} is {needed[one['generation']]}"
        for one in shown["generations"]
        if one["generation"] in needed and _is_asked(one=one, asked=asked, current=shown["current"])
    ]


def _needed(*, asked: list[str], shown: dict[str, Any]) -> dict[int, str]:
    spared = [str(shown["previous"])] == asked or asked[:1] == ["below"]
    back = {} if spared else {shown["previous"]: "the way back; forget it by its number"}
    used = {shown["pending"]: "on probation", shown["confirmed"]: "the confirmed one", shown["current"]: "current"}
    return {**back, **used}


def _is_asked(*, one: dict[str, Any], asked: list[str], current: int) -> bool:
    if asked in ([], ["old"]):
        # What is newer than the current one waits for its activation.
        return bool(one["generation"] < current)
    if asked[0] == "epoch":
        return [str(one.get("facts", {}).get("epoch"))] == asked[1:]
    if asked[0] == "below":
        return int(one.get("facts", {}).get("epoch", asked[1])) < int(asked[1])
    return asked[0] in {str(one["generation"]), one["digest"]}


def _result(site: str, receipt: dict[str, Any]) -> SiteResult:
    message = str(receipt.get("message", ""))
    return SiteResult(
        site=site,
        ok=bool(receipt.get("ok")),
        changed=bool(receipt.get("changed")),
        reason=str(receipt.get("reason", "")),
        message=f"{site}: {message}" if message and not receipt.get("ok") else message,
        receipt=receipt,
    )
