# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of ours that run on a gateway and answer with one line of JSON; nothing has to be installed there for them.

The gateway's python3 gets the source on standard input, so an answer never comes from an old copy.
"""

from __future__ import annotations

import json
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import (
    Answer,
    Session,
    SshError,
    Timeouts,
    exchange,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.targets import gateway_target

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Gateway, Plan

Said = dict[str, t.Any]

_PACKAGE = "ansible_collections.spokewright.fleet.plugins.module_utils"

# A gateway that hangs must not hold up what the other one says: a gate counts its looks in seconds.
# It looks again by itself, so a failed login is not repeated within one look.
LOOK = Timeouts(connect=4, banner=6, auth=6, command=8, deadline=12, retries=0)

_SOURCE = """
import json, sys, types
def add(name, source):
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(source, name, "exec"), module.__dict__)
    if "." in name:
        parent, _dot, last = name.rpartition(".")
        setattr(sys.modules[parent], last, module)
    return module
for depth in range(1, {package!r}.count(".") + 2):
    add(".".join({package!r}.split(".")[:depth]), "")
for name, source in {sources!r}:
    module = add({package!r} + "." + name, source)
print(json.dumps(module.{function}(**json.loads({arguments!r}))))
"""
# Reads the program and leaves the rest of standard input to it.
_READER = "import sys; exec(sys.stdin.buffer.read(int(sys.argv[1])))"


@dataclass(frozen=True, kw_only=True)
class Program:
    """Modules of module_utils in the order of their imports; a function of the last one is called.

    ``command`` is what reads the source: a Python, and what it is started in.
    """

    modules: tuple[str, ...]
    function: str = "look"
    # Keys may be among them.
    arguments: Mapping[str, t.Any] = field(default_factory=dict, repr=False)
    command: str = "python3 -"

    def source(self) -> bytes:
        """What the gateway's python3 runs."""
        root = Path(__file__).resolve().parent.parent / "module_utils"
        sources = [(name, (root / f"{name}.py").read_text(encoding="utf-8")) for name in self.modules]
        return _SOURCE.format(
            package=_PACKAGE, sources=sources, function=self.function, arguments=json.dumps(dict(self.arguments))
        ).encode()


def ask_gateways(*, plan: Plan, programs: Mapping[str, Program], timeouts: Timeouts = LOOK) -> dict[str, Said | str]:
    """Ask gateways by name, all at once. One that cannot be asked is part of the answer: why, as text."""
    asked = [gateway for gateway in plan.gateways if gateway.name in programs]
    with ThreadPoolExecutor(max_workers=max(1, len(asked))) as pool:
        answers = pool.map(
            lambda one: ask(plan=plan, gateway=one, program=programs[one.name], timeouts=timeouts), asked
        )
        return dict(zip((one.name for one in asked), answers, strict=True))


def ask(*, plan: Plan, gateway: Gateway, program: Program, timeouts: Timeouts = LOOK) -> Said | str:
    """Ask one gateway."""
    try:
        answer = exchange(
            target=gateway_target(plan=plan, gateway=gateway),
            command=program.command,
            stdin=program.source(),
            timeouts=timeouts,
        )
    except SshError as exc:
        return str(exc)
    return _said(name=gateway.name, answer=answer)


def talk(
    *, plan: Plan, gateway: Gateway, program: Program, timeouts: Timeouts, reply: Callable[[bytes], bytes | None]
) -> Said | str:
    """Run a program that reads more of standard input: `reply` is given each line until it returns what to send."""
    source = program.source()
    try:
        with Session(target=gateway_target(plan=plan, gateway=gateway), timeouts=timeouts) as session:
            answer = session.converse(command=f"python3 -c '{_READER}' {len(source)}", stdin=source, wanted=reply)
    except SshError as exc:
        return str(exc)
    return _said(name=gateway.name, answer=answer)


def _said(*, name: str, answer: Answer) -> Said | str:
    if answer.exit_status != 0:
        lines = answer.stderr.decode(errors="replace").strip().splitlines()
        return f"the look at {name} failed: {lines[-1] if lines else f'exit status {answer.exit_status}'}"
    lines = answer.stdout.decode(errors="replace").strip().splitlines()
    try:
        said = t.cast("Said", json.loads(lines[-1] if lines else ""))
    except ValueError:
        return f"the look at {name} was answered with {lines[-1][:80] if lines else 'nothing'!r}"
    # When the answer was here by our own clock: the gateway's is in the answer.
    return {**said, "received": time.time()}
