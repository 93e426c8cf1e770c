# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs of the site agent, spoken over SSH: show, stage, activate, confirm, revert."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.bundle import Bundle, agent_text
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Session, Target, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet, Site
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Answer

    Ask = Callable[..., dict[str, Any]]

MARK: Final = "SPOKEWRIGHT-RECEIPT "
AGENT_VERSION: Final = 1


class ReceiptError(FleetError):
    """The site answered something that is no receipt."""

    reason = "no-receipt"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one site is to do."""

    target: Target
    verb: str
    bundle: Bundle | None = None
    deadman_seconds: int = 120
    dry_run: bool = False


def target_for(*, fleet: Fleet, site: Site) -> Target:
    """Where and how a site is reached out of band."""
    return Target(
        name=site.id,
        address=str(site.oob_address),
        port=site.oob_port,
        user=site.oob_user,
        host_key=site.host_key,
        private_key_file=fleet.plan.ssh.private_key_file,
    )


def carry_out(*, order: Order, timeouts: Timeouts | None = None) -> SiteResult:
    """Carry out one order over one connection.

    `stage` and `activate` look first, so that a site which is as it should be is not sent a key again.
    """
    with Session(target=order.target, timeouts=timeouts) as session:

        def ask(verb: str, *arguments: str, stdin: bytes = b"") -> dict[str, Any]:
            answer = session.run(command=command(user=order.target.user, words=(verb, *arguments)), stdin=stdin)
            return read_receipt(site=order.target.name, answer=answer)

        return _dispatch(order=order, ask=ask)


def command(*, user: str, words: tuple[str, ...]) -> str:
    """The SSH command: the agent's text and its arguments. Neither is secret; secrets travel on standard input."""
    line = f"sh -c {_agent_command()} spokewright {shlex.join(words)}"
    return line if user == "root" else f"sudo -n {line}"


@lru_cache(maxsize=1)
def _agent_command() -> str:
    # dropbear takes commands of up to 9000 bytes, so comments and indentation stay at home.
    lines = (line.strip() for line in agent_text().splitlines())
    return shlex.quote("\n".join(line for line in lines if line and not line.startswith("#")))


def read_receipt(*, site: str, answer: Answer) -> dict[str, Any]:
    """The receipt among whatever banners and profiles print."""
    text = answer.stdout.decode("utf-8", "replace")
    found = [line.removeprefix(MARK) for line in text.splitlines() if line.startswith(MARK)]
    if len(found) != 1:
        heard = (answer.stderr.decode("utf-8", "replace").strip() or text.strip())[:200]
        raise ReceiptError(
            f"{site}: {len(found)} receipts came back, exit status {answer.exit_status}"
            f"{f', it said {heard!r}' if heard else ''}. Does its login shell run commands?"
        )
    try:
        receipt = json.loads(found[0], strict=False)
    except ValueError as exc:
        raise ReceiptError(f"{site}: its receipt is no JSON ({exc}).") from exc
    if not isinstance(receipt, dict) or receipt.get("agent") != AGENT_VERSION:
        raise ReceiptError(f"{site}: its receipt is of another version of the agent.")
    return receipt


def _dispatch(*, order: Order, ask: Ask) -> SiteResult:
    shown = ask("show")
    if order.verb == "show" or not shown["ok"]:
        return _result(site=order.target.name, receipt=shown)
    if order.verb == "revert":
        return _revert(order=order, shown=shown, ask=ask)
    if order.bundle is None:
        raise FleetError(f"{order.target.name}: there is no bundle to {order.verb}.")
    held = generation_of(shown=shown, digest=order.bundle.digest)
    if order.verb == "stage":
        return _stage(order=order, bundle=order.bundle, shown=shown, held=held, ask=ask)
    if held is None:
        return _not_staged(order=order, bundle=order.bundle, shown=shown)
    if order.verb == "activate":
        return _activate(order=order, bundle=order.bundle, shown=shown, held=held, ask=ask)
    return _confirm(order=order, shown=shown, held=held, ask=ask)


def _not_staged(*, order: Order, bundle: Bundle, shown: dict[str, Any]) -> SiteResult:
    site = order.target.name
    if order.dry_run:
        message = f"would {order.verb} bundle {bundle.digest[:12]} once it is staged"
        return SiteResult(site=site, ok=True, changed=True, message=message, receipt=shown)
    message = f"{site}: bundle {bundle.digest[:12]} is not on the site; stage it first."
    return SiteResult(site=site, ok=False, reason="not-staged", message=message, receipt=shown)


def generation_of(*, shown: dict[str, Any], digest: str) -> int | None:
    """The number of the whole generation with that digest; the current one when several have it."""
    numbers = [one["generation"] for one in shown["generations"] if one["intact"] and one["digest"] == digest]
    if shown["current"] in numbers:
        return int(shown["current"])
    return int(numbers[-1]) if numbers else None


def settled(*, shown: dict[str, Any], digest: str) -> bool:
    """Whether the site runs exactly this bundle, confirmed, now and after its next boot."""
    held = generation_of(shown=shown, digest=digest)
    return (
        held is not None
        and held == shown["current"] == shown["confirmed"]
        and shown["pending"] == 0
        and shown["service"] == "active"
        and shown["enabled"] is True
        and shown["links"] is True
    )


def _stage(*, order: Order, bundle: Bundle, shown: dict[str, Any], held: int | None, ask: Ask) -> SiteResult:
    site = order.target.name
    facts = {**shown, "digest": bundle.digest, "generation": held or 0}
    if held is not None:
        done = settled(shown=shown, digest=bundle.digest)
        todo = "" if done else ", not active, enabled and confirmed yet"
        message = f"generation {held} holds bundle {bundle.digest[:12]}{todo}"
        return SiteResult(site=site, ok=True, message=message, receipt=facts)
    size = len(bundle.archive)
    if order.dry_run:
        message = f"would send bundle {bundle.digest[:12]}, {size} bytes, key epoch {bundle.epoch}"
        return SiteResult(site=site, ok=True, changed=True, message=message, receipt=facts)
    receipt = ask("stage", bundle.digest, stdin=bundle.archive)
    if receipt["ok"] and receipt.get("digest") != bundle.digest:
        raise ReceiptError(f"{site}: read back digest {receipt.get('digest')}, sent {bundle.digest}.")
    return _result(site=site, receipt={**facts, **receipt})


def _activate(*, order: Order, bundle: Bundle, shown: dict[str, Any], held: int, ask: Ask) -> SiteResult:
    site = order.target.name
    if settled(shown=shown, digest=bundle.digest):
        facts = {**shown, "digest": bundle.digest, "generation": held}
        return SiteResult(site=site, ok=True, message=f"generation {held} runs and is confirmed", receipt=facts)
    if order.dry_run:
        message = f"would activate generation {held}, {order.deadman_seconds} s to be confirmed"
        return SiteResult(site=site, ok=True, changed=True, message=message, receipt=shown)
    return _result(site=site, receipt=ask("activate", str(held), str(order.deadman_seconds)))


def _confirm(*, order: Order, shown: dict[str, Any], held: int, ask: Ask) -> SiteResult:
    if order.dry_run:
        changed = shown["confirmed"] != held or shown["pending"] != 0
        return SiteResult(
            site=order.target.name, ok=True, changed=changed, message=f"would confirm generation {held}", receipt=shown
        )
    return _result(site=order.target.name, receipt=ask("confirm", str(held)))


def _revert(*, order: Order, shown: dict[str, Any], ask: Ask) -> SiteResult:
    # A generation on its way out is left to the end, even when another is current already.
    current = shown["pending"] or shown["current"]
    if order.dry_run:
        return SiteResult(
            site=order.target.name,
            ok=True,
            changed=True,
            message=f"would go back from generation {current}",
            receipt=shown,
        )
    return _result(site=order.target.name, receipt=ask("revert", str(current)))


def _result(*, site: str, receipt: dict[str, Any]) -> SiteResult:
    message = str(receipt.get("message", ""))
    return SiteResult(
        site=site,
        ok=bool(receipt.get("ok")),
        changed=bool(receipt.get("changed")),
        reason=str(receipt.get("reason", "")),
        message=f"{site}: {message}" if message and not receipt.get("ok") else message,
        receipt=receipt,
    )
