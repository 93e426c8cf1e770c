# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verb on one site, in one of the processes of a run. A site that is frozen keeps no brother waiting."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import fan_out
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_records import KeyStoreLockedError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_run import seen_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.site_run import SiteRun

# A brother writes a few lines and lets go; whoever holds the lock for longer is no brother that is well.
PATIENCE: Final = 60.0
PAUSE: Final = 0.02


def carry_out_alone(*, run: SiteRun, store: KeyStore, site: str, owner: int) -> SiteResult:
    """Carry the run's verb out on one site and enter in the key store what it then holds.

    The lock is held to enter the run and to enter the result, and not while the site is talked to. In between, the
    record that the run is at work keeps other runs out.

    Raises:
        KeyStoreLockedError: another run is at work.
    """
    changes = run.verb != "show" and not run.dry_run
    what = f"{run.verb} on {site}"
    if changes:
        with in_turn(store=store, what=what, owner=owner):
            pass
    result = fan_out(sites=[site], work=run.one, workers=1, limit=run.timeouts.deadline)[site]
    seen = seen_by(verb=run.verb, result=result) if changes else []
    if seen:
        with in_turn(store=store, what=what, owner=owner):
            store.mark(seen=seen)
    return result


@contextlib.contextmanager
def in_turn(*, store: KeyStore, what: str, owner: int, patience: float = PATIENCE) -> Iterator[None]:
    """Take the key store's lock, and wait for it while a process of the same run has it.

    Raises:
        KeyStoreLockedError: another run has it.
    """
    end = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.operation(what, owner=owner))
                break
            except KeyStoreLockedError as exc:
                # A holder that has not written its name yet may be a brother.
                brother = f"(pid {owner})" in str(exc) or "(pid " not in str(exc)
                if not brother or time.monotonic() > end:
                    raise
            time.sleep(PAUSE)
        yield
