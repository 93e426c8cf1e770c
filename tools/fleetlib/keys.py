# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `tools/fleet keys` and `tools/fleet key show|bundle|regenerate` do."""

from __future__ import annotations

import json
import os
import stat
import sys
import typing as t
from pathlib import Path

from ansible_collections.spokewright.fleet.plugins.plugin_utils.atomic_file import write_atomic
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fleet import load_fleet
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hand_bundle import hand_bundle
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStoreError, open_store
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_view import gone_sites, key_report
from ansible_collections.spokewright.fleet.plugins.plugin_utils.tables import keys_table
from fleetlib.asked import known_sites

if t.TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore, SiteKey


def add(verbs: t.Any, *, common: argparse.ArgumentParser, shape: argparse.ArgumentParser) -> t.Any:
    """`keys`, and `key` with the verbs of this file; returns where more verbs of `key` go."""
    keys = verbs.add_parser("keys", parents=[common, shape], help="which key each site has, by fingerprint")
    keys.add_argument("sites", nargs="*", metavar="SITE", help="only these sites (default: all of the registry)")
    keys.add_argument("--group", help="the sites of a group")
    keys.add_argument("--all", action="store_true", help="older epochs, and sites that left the registry, too")
    keys.set_defaults(run=show_keys)

    key = verbs.add_parser("key", help="one key, new keys, and their way to the sites")
    what = key.add_subparsers(dest="what", required=True, metavar="WHAT")

    show = what.add_parser("show", parents=[common, shape], help="a site's key: public facts, or with --reveal the key")
    show.add_argument("site", metavar="SITE")
    show.add_argument("--epoch", type=int, help="an older key (default: the newest)")
    show.add_argument("--reveal", action="store_true", help="print the private key and the PSK; goes into the ledger")
    show.set_defaults(run=show_key)

    bundle = what.add_parser("bundle", parents=[common], help="a file to carry by hand to a site that has no link")
    bundle.add_argument("site", metavar="SITE")
    bundle.add_argument("--epoch", type=int, help="an older key (default: the newest)")
    bundle.add_argument("-o", "--output", metavar="FILE", required=True, help="where to; it is closed to others")
    bundle.set_defaults(run=bundle_key)

    regenerate = what.add_parser(
        "regenerate",
        parents=[common, shape],
        help="make the next epoch for sites",
        description="Make new keys beside the present ones. Nothing is sent: deliver them afterwards.",
    )
    regenerate.add_argument("sites", nargs="+", metavar="SITE")
    regenerate.add_argument("--reason", required=True, metavar="TEXT", help="why; it goes into the ledger")
    regenerate.add_argument("--yes", action="store_true", help="do not ask")
    regenerate.set_defaults(run=regenerate_keys)
    return what


def show_keys(args: argparse.Namespace) -> bool:
    """List keys; true when every asked site has one and the revocation list lives."""
    fleet = load_fleet(plan_file=args.plan_file, require_host_keys=False)
    store = open_store(fleet.plan)
    # A key outlives its site's line in the registry, and a stolen site's key ids are asked for when that line is gone.
    gone = gone_sites(fleet=fleet, store=store)
    if args.sites or args.group:
        gone = [site for site in gone if site in args.sites]
        here = [site for site in args.sites if site not in gone]
        sites = known_sites(fleet=fleet, sites=here, group=args.group) + gone
    else:
        sites = [site.id for site in fleet.sites] + (gone if args.all else [])
    report = key_report(fleet=fleet, store=store, sites=sites, all_epochs=args.all, gone=gone)
    print(json.dumps(report, indent=2) if args.format == "json" else keys_table(report))
    return bool(report["well"])


def show_key(args: argparse.Namespace) -> bool:
    """Print a key's public facts; the key itself only when told to, and never without a line in the ledger.

    Raises:
        FleetError: others could read where the key would go.
    """
    store = open_store(load_fleet(plan_file=args.plan_file, require_host_keys=False).plan)
    if args.reveal:
        _refuse_open_output()
    key = store.site_key(site=args.site, epoch=args.epoch)
    facts = {"site": key.site, **key.public()}
    if not args.reveal:
        print(json.dumps(facts, indent=2) if args.format == "json" else _lines(facts))
        return True
    _note(store=store, event="revealed", key=key)
    secret = {
        "ca.crt": key.ca,
        "site.crt": key.certificate,
        "site.key": key.private_key.reveal(),
        "psk.key": key.psk.reveal(),
        **({"other-psk.key": key.other_psk.reveal()} if key.other_psk else {}),
    }
    if args.format == "json":
        print(json.dumps({**facts, "files": secret}, indent=2))
    else:
        print(_lines(facts), file=sys.stderr)
        print("".join(f"# {name}\n{text}" for name, text in secret.items()), end="")
    return True


def bundle_key(args: argparse.Namespace) -> bool:
    """Write a site's bundle into a file.

    Raises:
        FleetError: the file cannot be made there.
    """
    fleet = load_fleet(plan_file=args.plan_file, require_host_keys=False)
    (name,) = known_sites(fleet=fleet, sites=[args.site], group=None)
    site = next(one for one in fleet.sites if one.id == name)
    store = open_store(fleet.plan)
    key = store.site_key(site=name, epoch=args.epoch)
    target = Path(args.output)
    _refuse_target(target=target, store=store)
    bundle, archive = hand_bundle(site=site, key=key)
    _note(store=store, event="bundled", key=key)
    write_atomic(target, archive, 0o600)
    print(f"{target}: {len(archive)} bytes, key epoch {key.epoch}, digest {bundle.digest}")
    print(
        "It holds private keys: carry it by hand, remove it afterwards. The file INSTALL in it says how to install it."
    )
    return True


def regenerate_keys(args: argparse.Namespace) -> bool:
    """Make the next epoch for the named sites, after asking.

    Raises:
        FleetError: there is nobody to ask, or the reason is empty.
    """
    fleet = load_fleet(plan_file=args.plan_file, require_host_keys=False)
    sites = known_sites(fleet=fleet, sites=args.sites, group=None)
    if not args.reason.strip():
        raise FleetError("--reason: is empty. Say why the keys are made anew; the ledger keeps it.")
    store = open_store(fleet.plan)
    key_type = fleet.plan.tunnels.key_type
    planned = store.regenerate(sites=sites, key_type=key_type, reason=args.reason, dry_run=True)
    if not args.yes and not _agreed(planned):
        if args.format == "json":
            print(json.dumps({"epochs": {}, "reason": args.reason}, indent=2))
        print("nothing was made", file=sys.stderr)
        return False
    made = store.regenerate(sites=sites, key_type=key_type, reason=args.reason)
    if args.format == "json":
        print(json.dumps({"epochs": made, "reason": args.reason}, indent=2))
        return True
    print("\n".join(f"{site}: key epoch {epoch} made" for site, epoch in made.items()))
    print(f"The sites run on their former keys until the new ones are delivered: tools/fleet key stage {_some(sites)}")
    return True


def _agreed(planned: t.Mapping[str, int]) -> bool:
    if not sys.stdin.isatty():
        raise FleetError(f"new keys for {len(planned)} sites: nobody is there to be asked. Add --yes to make them.")
    for site, epoch in list(planned.items())[:10]:
        print(f"{site}: would get key epoch {epoch}", file=sys.stderr)
    if len(planned) > 10:
        print(f"and {len(planned) - 10} more", file=sys.stderr)
    print(
        "The present keys stay in the store, and the sites run on them until the new ones are delivered.\n"
        f"Make new keys for {len(planned)} sites? Type {len(planned)} to do it: ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    return sys.stdin.readline().strip() == str(len(planned))


def _refuse_target(*, target: Path, store: KeyStore) -> None:
    if target.is_dir():
        raise FleetError(f"{target}: is a directory. Name the file to write.")
    if target.exists() and not target.is_file():
        # A rename would put a file of keys in the place of, say, /dev/null.
        raise FleetError(f"{target}: is no file but a device or a pipe. Name the file to write.")
    if target.resolve().is_relative_to(store.path.resolve()):
        raise FleetError(
            f"{target}: lies in the key store, where nothing is unencrypted and which backups take as a whole. Name "
            "another place."
        )


def _refuse_open_output() -> None:
    """A terminal, a pipe and a closed file take a key; a file that others may read does not."""
    found = os.fstat(sys.stdout.fileno())
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        raise FleetError(
            f"standard output is a file with mode {stat.S_IMODE(found.st_mode):04o}: others could read the key. "
            "Nothing was written. Run `umask 077` first, and name a new file."
        )


def _note(*, store: KeyStore, event: str, key: SiteKey) -> None:
    try:
        store.note(event, site=key.site, epoch=key.epoch)
    except KeyStoreError as exc:
        # Whoever breaks the glass may have no other machine, and its disk is full.
        file = store.path / "sites" / key.site / f"{key.epoch}.vault"
        raise FleetError(
            f"{exc}\nNo key leaves the store without a line in the ledger, so none was given out. If it cannot wait: "
            f"ansible-vault view --vault-password-file {store.key.path} {file}"
        ) from exc


def _lines(facts: t.Mapping[str, t.Any]) -> str:
    width = max(len(name) for name in facts)
    return "\n".join(f"{name.replace('_', ' ').ljust(width)}  {value}" for name, value in facts.items())


def _some(sites: Sequence[str]) -> str:
    return " ".join(sites) if len(sites) <= 5 else f"{' '.join(sites[:5])} ..."
