# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running the machine's own tools, with errors a person can act on."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def run(command: Sequence[str], *, stdin: str | None = None, check: bool = True) -> str:
    """Run a command and return what it printed."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        raise LabError(f"'{command[0]}' is not installed. `tools/lab up` names the package that brings it.") from exc
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()
        raise LabError(f"`{' '.join(command)}` failed with exit code {done.returncode}: {'; '.join(said[-5:])}")
    return done.stdout


def ip_batch(lines: Iterable[str], *, namespace: str | None = None, force: bool = False) -> None:
    """Run many `ip` commands in one process; with `force`, what is already so is passed over."""
    script = "".join(f"{line}\n" for line in lines)
    if not script:
        return
    command = ["ip", *(["-n", namespace] if namespace else []), *(["-force"] if force else []), "-batch", "-"]
    run(command, stdin=script, check=not force)
