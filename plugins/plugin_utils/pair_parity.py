# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two gateways would do the same: programs, configurations, keys, sites, clocks, side by side."""

from __future__ import annotations

import datetime as dt
import typing as t
from dataclasses import dataclass

from cryptography import x509

from ansible_collections.spokewright.fleet.plugins.plugin_utils.pair_problem import CONTENT, NOTICE, Problem, Weight

if t.TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Said

CLOCK_SECONDS: t.Final = 2.0
FEW_DAYS: t.Final = 30
MISSING: t.Final = "-"
REPAIR: t.Final = "playbooks/gateways.yml makes them alike"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One thing on both gateways, in words."""

    what: str
    values: dict[str, str]
    weight: Weight
    remedy: str = REPAIR

    @property
    def same(self) -> bool:
        """Both have the same."""
        return len(set(self.values.values())) == 1


def compare(said: t.Mapping[str, Said]) -> list[Compared]:
    """Everything that must be the same on both, in the order in which a person asks for it."""
    found = [
        _of(said, what=name, weight=NOTICE, remedy="bring both to one version", value=_software(name))
        for name in _names(said, "software")
    ]
    found += [_of(said, what=name, weight=CONTENT, value=_config(name)) for name in _names(said, "configs")]
    return [
        *found,
        _of(said, what="CA certificate", weight=CONTENT, value=lambda one: one["keys"]["ca"]),
        _of(said, what="tls-crypt-v2 key", weight=CONTENT, value=lambda one: one["keys"]["tls-crypt-v2"]),
        _of(said, what="sites", weight=CONTENT, value=lambda one: _directory(one["ccd"])),
        _of(said, what="refused keys", weight=CONTENT, value=lambda one: _directory(one["denied"])),
        _of(said, what="revocation list", weight=CONTENT, value=lambda one: _crl_number(one["crl"])),
    ]


def _names(said: t.Mapping[str, Said], part: str) -> list[str]:
    return list(dict.fromkeys(name for answer in said.values() for name in answer[part]))


def _software(name: str) -> t.Callable[[Said], str]:
    return lambda answer: str(answer["software"].get(name, ""))


def _config(name: str) -> t.Callable[[Said], str]:
    return lambda answer: str(answer["configs"].get(name, ""))


def _directory(found: t.Mapping[str, t.Any]) -> str:
    return f"{found['count']}, {found['digest']}"


def _of(
    said: t.Mapping[str, Said], *, what: str, weight: Weight, value: t.Callable[[Said], str], remedy: str = REPAIR
) -> Compared:
    values = {name: value(answer) or MISSING for name, answer in said.items()}
    return Compared(what=what, values=values, weight=weight, remedy=remedy)


def clock_difference(said: t.Mapping[str, Said]) -> float:
    """How far the gateways' clocks are apart, in seconds; some tenths of a second of it are the way to them."""
    ahead = [float(answer["time"]) - float(answer["received"]) for answer in said.values()]
    return max(ahead) - min(ahead)


def days_left(*, crl: str, now: dt.datetime | None = None) -> int | None:
    """How long a revocation list is still taken; None when there is none to read."""
    try:
        until = x509.load_pem_x509_crl(crl.encode()).next_update_utc
    except ValueError:
        return None
    return None if until is None else (until - (now or dt.datetime.now(tz=dt.UTC))).days


def certificate_days(*, certificates: t.Sequence[str], now: dt.datetime | None = None) -> int | None:
    """How long the gateway's certificate is still taken, of several the shortest."""
    moment = now or dt.datetime.now(tz=dt.UTC)
    try:
        loaded = [x509.load_pem_x509_certificate(text.encode()) for text in certificates]
    except ValueError:
        return None
    return min(((one.not_valid_after_utc - moment).days for one in loaded), default=None)


def _crl_number(crl: str) -> str:
    try:
        loaded = x509.load_pem_x509_crl(crl.encode())
    except ValueError:
        return "not readable" if crl else ""
    return f"{len(loaded)} revoked, of {loaded.last_update_utc:%Y-%m-%d %H:%M:%S}"


def parity_problems(said: t.Mapping[str, Said]) -> list[Problem]:
    """What is not the same on both, and what is about to end."""
    names = " and ".join(said)
    found = [Problem(one.weight, f"{one.what}: {_values(one)}: {one.remedy}") for one in compare(said) if not one.same]
    apart = clock_difference(said)
    if apart > CLOCK_SECONDS:
        found.append(Problem(NOTICE, f"the clocks of {names} are {apart:.1f} s apart: look at their time service"))
    for name, answer in said.items():
        crl = days_left(crl=answer["crl"]) if answer["crl"] else None
        certificate = certificate_days(certificates=answer["keys"]["certificates"])
        found += _ending(name, "revocation list", crl, "playbooks/gateways.yml brings a new one")
        found += _ending(name, "certificate", certificate, "make a new one (docs/key-custody.md)")
    return found


def _ending(name: str, what: str, days: int | None, remedy: str) -> list[Problem]:
    if days is None or days >= FEW_DAYS:
        return []
    if days < 0:
        return [Problem(CONTENT, f"{name}: its {what} is out of date, so it refuses every site: {remedy}", name)]
    return [Problem(NOTICE, f"{name}: its {what} ends in {days} days: {remedy}", name)]


def _values(one: Compared) -> str:
    return ", ".join(f"{name} has {'none' if value == MISSING else value}" for name, value in one.values.items())
