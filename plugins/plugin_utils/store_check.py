# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a key store is whole: every file there, closed to others, opened and proven."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ansible_collections.spokewright.fleet.plugins.plugin_utils import rekey_record
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_view import CRL_WATCH_DAYS, crl_days_left

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

# What opening a key costs is OpenSSL's work, which lets other threads run.
WORKERS: Final = min(8, os.cpu_count() or 1)
ENDED: Final = "destroyed"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """`fatal`: nothing in the store is of use. `others`: one line for each thing that is wrong with a part of it."""

    fatal: list[str]
    others: list[str]
    sites: int = 0
    keys: int = 0
    crl_days_left: int | None = None

    @property
    def problems(self) -> list[str]:
        """All of them."""
        return [*self.fatal, *self.others]


def check_store(*, store: KeyStore, on_progress: Callable[[int, int], None] | None = None) -> Findings:
    """Look at everything in the store. Takes no lock: what is made meanwhile may or may not be looked at."""
    if not store.path.is_dir():
        return Findings(fatal=[f"there is no key store at {store.path}."], others=[])
    fatal = _fatal(store)
    others = [*_open_to_others(store.path), *_books(store), *_between_two_keys(store.path)]
    days = None
    try:
        days = crl_days_left(store=store)
    except (FleetError, OSError) as exc:
        others.append(str(exc))
    else:
        others += _crl_problems(store=store, days=days)
    if fatal:
        return Findings(fatal=fatal, others=others, crl_days_left=days)
    # What is wrong with an index is among the books' problems already.
    index = {site: found for site in store.sites() if (found := _known(store, site)) is not None}
    sites = sorted({*store.sites(), *_names(store.path / "sites")})
    keys, broken = _check_sites(store=store, sites=sites, index=index, on_progress=on_progress)
    return Findings(
        fatal=[], others=[*others, *_gateways(store), *broken], sites=len(sites), keys=keys, crl_days_left=days
    )


def check_site(*, store: KeyStore, site: str, index: Mapping[int, Mapping[str, Any]]) -> tuple[int, list[str]]:
    """How many of a site's keys are whole, and a line for each that is not."""
    whole, problems = 0, []
    there = set(store.epochs(site=site))
    expected = {epoch for epoch, entry in index.items() if entry.get("state") != ENDED}
    for epoch in sorted(there | expected):
        if epoch not in there:
            problems.append(
                f"{store.path}/sites/{site}/{epoch}.vault is missing, but the index knows this key. Restore it from "
                "the backup of the key store."
            )
            continue
        try:
            found = store.site_key(site=site, epoch=epoch).public()
        except FleetError as exc:
            problems.append(str(exc))
            continue
        entry = index.get(epoch)
        if entry is None:
            problems.append(
                f"{store.path}/sites/{site}/{epoch}.vault has no entry in the index. The next run that makes keys "
                "adds it."
            )
            continue
        wrong = sorted(name for name, value in found.items() if entry.get(name) != value)
        if wrong:
            problems.append(
                f"{store.path}/index/{site}.json: epoch {epoch}: another {', '.join(wrong)} than the key itself. The "
                "key decides: take index/ and sites/ from one and the same backup."
            )
            continue
        whole += 1
    return whole, problems


def _check_site(*, store: KeyStore, site: str, index: Mapping[int, Mapping[str, Any]]) -> tuple[int, list[str]]:
    try:
        return check_site(store=store, site=site, index=index)
    except OSError as exc:
        return 0, [f"{exc.filename or store.path / 'sites' / site}: {exc.strerror or exc}"]


def _books(store: KeyStore) -> list[str]:
    try:
        return store.verify()
    except (FleetError, OSError) as exc:
        return [str(exc)]


def _known(store: KeyStore, site: str) -> dict[int, dict[str, Any]] | None:
    try:
        return store.index(sites=[site]).get(site, {})
    except FleetError:
        return None


def _check_sites(
    *,
    store: KeyStore,
    sites: list[str],
    index: Mapping[str, Mapping[int, Mapping[str, Any]]],
    on_progress: Callable[[int, int], None] | None,
) -> tuple[int, list[str]]:
    keys, broken = 0, []
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        found = pool.map(lambda site: _check_site(store=store, site=site, index=index.get(site, {})), sites)
        for done, (whole, problems) in enumerate(found, start=1):
            keys += whole
            broken += problems
            if on_progress is not None:
                on_progress(done, len(sites))
    return keys, broken


def _fatal(store: KeyStore) -> list[str]:
    """The own key, and what every other key hangs on."""
    problems = []
    for prove in (store.reader.ca_identity, store.reader.server):
        try:
            prove()
        except FleetError as exc:
            problems.append(str(exc))
    # One wrong key of the store is one problem.
    return problems[:1] if store.storage.holds_secrets else []


def _between_two_keys(directory: Path) -> list[str]:
    found = rekey_record.read(directory)
    if found is None:
        return []
    todo = f"Run `tools/fleet keystore rekey` to finish it; until then both {found.old} and {found.new} are needed."
    return [f"{directory} is being given another key since {found.since}. {todo}"]


def _gateways(store: KeyStore) -> list[str]:
    problems = []
    for name in sorted({Path(name).stem for name in _names(store.path / "gateways")}):
        try:
            store.gateway_key(name=name)
        except FleetError as exc:
            problems.append(str(exc))
    return problems


def _crl_problems(*, store: KeyStore, days: int | None) -> list[str]:
    if days is None:
        return [f"{store.path} has no revocation list. The next run that makes keys makes one."]
    if days < CRL_WATCH_DAYS:
        due = f"the revocation list in {store.path} lives for {days} more days; then no site gets in."
        return [f"{due} Run playbooks/site.yml, which renews it and brings it to the gateways."]
    return []


def _open_to_others(directory: Path) -> Iterator[str]:
    for path in (directory, *sorted(directory.rglob("*"))):
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and mode & 0o077:
            right = "0700" if stat.S_ISDIR(mode) else "0600"
            yield f"{path} has mode {stat.S_IMODE(mode):04o}: others could read or change it. Run: chmod {right} {path}"


def _names(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return []
