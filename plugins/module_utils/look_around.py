# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several commands that only look, run one after another. Standard library only: it also runs on managed hosts."""

from __future__ import annotations

import os
import subprocess
import typing as t

SECONDS = 60.0
NOT_THERE, TOO_LONG = 127, 124
"""As a shell and as timeout(1) say it."""


def run(*, command: t.Sequence[str], seconds: float = SECONDS) -> dict[str, t.Any]:
    """What one command said. A program that is not there, or does not end, is an answer as well."""
    try:
        done = subprocess.run(
            list(command),
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""},
        )
    except OSError as exc:
        return _said(NOT_THERE, "", str(exc))
    except subprocess.TimeoutExpired:
        return _said(TOO_LONG, "", "it did not end within %g seconds" % seconds)
    return _said(done.returncode, done.stdout, done.stderr)


def _said(status: int, out: str, err: str) -> dict[str, t.Any]:
    return {"rc": status, "stdout": out, "stdout_lines": out.splitlines(), "stderr": err}


def failures(*, said: t.Mapping[str, t.Mapping[str, t.Any]], may_fail: t.Collection[str]) -> list[str]:
    """One line for each command that failed and must not."""
    return [
        "%s ended with exit status %d: %s"
        % (name, one["rc"], (one["stderr"] or one["stdout"]).strip() or "it said nothing")
        for name, one in said.items()
        if one["rc"] and name not in may_fail
    ]
