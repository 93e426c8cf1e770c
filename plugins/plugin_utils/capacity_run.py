# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have gateways measured, each beside its production, and take in what they say."""

from __future__ import annotations

import datetime as dt
import typing as t
from dataclasses import dataclass

from ansible_collections.spokewright.fleet.plugins.plugin_utils.capacity import Measured
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_program import Program, Said, ask
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ssh_transport import Timeouts

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import Fleet

HANDSHAKES: t.Final = 50
MOST_HANDSHAKES: t.Final = 200
SECONDS: t.Final = 60
BUSIEST: t.Final = 0.7
# Everything below is over when this is: killed with all it has started, whatever it waits for.
LAUNCH: t.Final = (
    # 256 MB hold a daemon, one client, Python and what they write; a trial takes about 60.
    "systemd-run --scope --quiet --collect --property=MemoryMax=256M --property=MemorySwapMax=0 "
    f"--property=CPUWeight=1 --property=RuntimeMaxSec={SECONDS + 5} --property=TimeoutStopSec=2 "
    # Lower than everything else, in a network of nothing but a loopback device; all processes end with the first.
    "nice -n 19 unshare --net --mount --pid --fork --kill-child --mount-proc python3 -"
)
_MODULES: t.Final = ("management", "capacity_host", "capacity_traffic", "capacity_trial")
_TIMEOUTS: t.Final = Timeouts(connect=4, banner=6, auth=6, command=SECONDS + 10, deadline=SECONDS + 20, retries=0)
SITE: t.Final = "capacity-trial"
# The largest that the script that judges keys understands: whatever least epoch it asks for, this one is let in.
NEWEST_EPOCH: t.Final = 10**9 - 1


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one gateway: measured, or why not, and the limits its instances run with."""

    gateway: str
    measured: Measured | None
    why_not: str
    in_force: dict[str, dict[str, str]]


def measure(
    *,
    fleet: Fleet,
    gateways: Sequence[str] = (),
    handshakes: int = HANDSHAKES,
    busiest: float = BUSIEST,
    say: Callable[[str], None] = lambda _text: None,
) -> list[Trial]:
    """Measure gateways, one after another; none named: all.

    Raises:
        FleetError: a gateway that the plan does not have.
    """
    known = [gateway.name for gateway in fleet.plan.gateways]
    strange = [name for name in gateways if name not in known]
    if strange:
        raise FleetError(
            f"gateway {', '.join(strange)}: not in the plan {fleet.plan.file}, which has {', '.join(known)}."
        )
    found = []
    for gateway in fleet.plan.gateways:
        if gateways and gateway.name not in gateways:
            continue
        say(f"{gateway.name}: {handshakes} handshakes beside what it does, lowest priority, {SECONDS} s at most")
        program = Program(
            modules=_MODULES,
            arguments={
                "instances": [instance.name for instance in fleet.instances],
                "material": material(key_type=fleet.plan.tunnels.key_type),
                "handshakes": handshakes,
                "seconds": SECONDS,
                "busiest": busiest,
            },
            command=LAUNCH,
        )
        answer = ask(plan=fleet.plan, gateway=gateway, program=program, timeouts=_TIMEOUTS)
        found.append(taken(gateway=gateway.name, answer=answer, key_type=fleet.plan.tunnels.key_type))
    return found


def taken(*, gateway: str, answer: Said | str, key_type: str) -> Trial:
    """One gateway's answer."""
    if isinstance(answer, str):
        return Trial(gateway=gateway, measured=None, why_not=answer, in_force={})
    measured, refused = answer["measured"], answer["refused"]
    if measured is None:
        why = "; ".join(refused)
        return Trial(gateway=gateway, measured=None, why_not=f"not measured: {why}", in_force=answer["in_force"])
    date = dt.datetime.fromtimestamp(answer["time"], tz=dt.UTC).date().isoformat()
    return Trial(
        gateway=gateway,
        measured=Measured(gateway=gateway, date=date, key_type=key_type, **measured),
        why_not="",
        in_force=answer["in_force"],
    )


def material(*, key_type: t.Literal["p256", "ed25519"]) -> dict[str, str]:
    """Keys for one trial, as the fleet's are made and by nobody else known; they live as long as the trial."""
    # Whoever only asks "what if" does not wait for them, nor need them.
    from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2  # noqa: PLC0415

    now = dt.datetime.now(tz=dt.UTC)
    ca = certificates.make_ca(fleet=SITE, key_type=key_type, now=now)
    gateway = certificates.issue_gateway(ca=ca, name=SITE, key_type=key_type, now=now)
    site = certificates.issue_site(ca=ca, site=SITE, key_type=key_type, now=now)
    server = tls_crypt_v2.ServerKey.generate()
    metadata = tls_crypt_v2.Metadata(site=SITE, kid="0" * 16, epoch=NEWEST_EPOCH, issued=int(now.timestamp()))
    return {
        "ca.crt": ca.certificate,
        "crl.pem": certificates.make_crl(ca=ca, revoked=[], now=now),
        "server.crt": gateway.certificate,
        "server.key": gateway.private_key,
        "site.crt": site.certificate,
        "site.key": site.private_key,
        "server-psk.pem": server.to_pem(),
        "site-psk.pem": tls_crypt_v2.generate_client_key(server=server, metadata=metadata),
        "metadata": metadata.encode().decode("ascii"),
    }
