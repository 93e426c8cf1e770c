# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: the same bytes every time, and what a site's configuration must say."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as b
from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret
from delivery_support import site_of
from key_support import new_store

if TYPE_CHECKING:
    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import SiteKey

OTHER = tls_crypt_v2.ServerKey(raw=b"2" * 128)
GOLDEN = Path(__file__).parent / "golden" / "client.conf"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    store = new_store(tmp_path_factory.mktemp("keys"))
    store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=["site-0001"])
    return store.site_key(site="site-0001")


def test_a_bundle_is_the_same_bytes_every_time(key: SiteKey) -> None:
    one, two = b.build(site=site_of(), key=key), b.build(site=site_of(), key=key)
    assert one.archive == two.archive
    assert one.digest == two.digest


def test_a_site_is_told_on_which_days_its_certificates_hold(key: SiteKey) -> None:
    with tarfile.open(fileobj=io.BytesIO(b.build(site=site_of(), key=key).archive)) as archive:
        file = archive.extractfile("facts")
        assert file is not None
        told = json.loads(file.read())["valid"]
    assert told == [day.isoformat() for day in certificates.good_days(certificate=key.certificate, authorities=key.ca)]


def test_the_digest_follows_every_file(key: SiteKey) -> None:
    one = b.build(site=site_of(), key=key)
    two = b.build(site=site_of(remotes=[("internet", "198.19.128.1", 1195)]), key=key)
    assert one.digest != two.digest


def test_the_archive_is_sorted_timeless_and_closed(key: SiteKey) -> None:
    bundle = b.build(site=site_of(), key=key)
    with tarfile.open(fileobj=io.BytesIO(bundle.archive)) as archive:
        entries = archive.getmembers()
        manifest = archive.extractfile("MANIFEST")
        assert manifest is not None
        text = manifest.read().decode()
        for line in text.splitlines():
            digest, name = line.split("  ")
            held = archive.extractfile(name)
            assert held is not None
            assert hashlib.sha256(held.read()).hexdigest() == digest
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert set(names) == {
        "MANIFEST",
        "agent.sh",
        "ca.crt",
        "client.conf",
        "facts",
        "init.sh",
        "openrc.sh",
        "psk.key",
        "site.crt",
        "site.key",
        "spokewright-guard.service",
        "unit.conf",
    }
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, 0, "")}
    assert {entry.name for entry in entries if entry.mode != 0o600} == {"init.sh", "openrc.sh"}
    assert {entry.mode for entry in entries} == {0o600, 0o700}
    assert hashlib.sha256(text.encode()).hexdigest() == bundle.digest


def test_while_the_server_key_is_rotated_it_carries_both_psks_and_a_way_in_by_each(key: SiteKey) -> None:
    two = dataclasses.replace(key, other_psk=Secret(tls_crypt_v2.wrap(server=OTHER, secret=b"s" * 256, payload=b"p")))
    remotes = [("frame_relay", "198.19.0.1", 1194), ("internet", "198.19.128.1", 1194)]
    bundle, one = b.build(site=site_of(remotes=remotes), key=two), b.build(site=site_of(remotes=remotes), key=key)
    assert len(bundle.carries.split()) == 2
    assert bundle.psk_fingerprint in bundle.carries.split()
    assert one.carries == ""
    with tarfile.open(fileobj=io.BytesIO(bundle.archive)) as archive:
        found = {name: archive.extractfile(name) for name in ("client.conf", "psk.key", "other-psk.key")}
        texts = {name: file.read().decode() for name, file in found.items() if file is not None}
    assert two.other_psk is not None
    assert (texts["psk.key"], texts["other-psk.key"]) == (key.psk.reveal(), two.other_psk.reveal())
    assert re.findall(r"^(?:remote|tls-crypt-v2|server-poll-timeout) .*", texts["client.conf"], re.MULTILINE) == [
        line
        for address in ("198.19.0.1", "198.19.128.1")
        for name in ("psk.key", "other-psk.key")
        for line in (
            f"remote {address} 1194 udp4",
            f"tls-crypt-v2 /etc/spokewright/current/{name}",
            "server-poll-timeout 2",
        )
    ]


def test_the_archive_is_what_tarfile_writes(key: SiteKey) -> None:
    archive = b.build(site=site_of(), key=key).archive
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as ours,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as theirs,
    ):
        for entry in ours.getmembers():
            theirs.addfile(entry, ours.extractfile(entry))
    # It fills up the last record with zeros.
    assert buffer.getvalue().rstrip(b"\0") == archive.rstrip(b"\0")
    assert archive.endswith(bytes(1024))
    assert len(archive) % 512 == 0


def test_the_agent_in_a_bundle_is_the_agent_without_its_comments(tmp_path: Path) -> None:
    copy = b.render_public(site=site_of())["agent.sh"]
    assert copy.startswith("#!/bin/sh\n# Copyright")
    assert b.AGENT in copy
    assert sum(line.startswith("#") for line in copy.splitlines()) == 5
    (tmp_path / "agent.sh").write_text(copy)
    for shell in ("dash", "bash", "busybox ash"):
        environment = {"SPOKEWRIGHT_ROOT": str(tmp_path)}
        shown = subprocess.run(
            [*shell.split(), str(tmp_path / "agent.sh"), "show"], env=environment, capture_output=True, check=True
        )
        assert b'"verb":"show","ok":true' in shown.stdout


def test_each_program_begins_with_what_runs_it() -> None:
    files = b.render_public(site=site_of())

    first = {name: files[name].partition("\n")[0] for name in b.PROGRAMS}
    assert first == {"init.sh": "#!/bin/sh", "openrc.sh": "#!/sbin/openrc-run"}


def test_the_configuration_is_the_golden_one() -> None:
    assert b.render_config(site=site_of()) == GOLDEN.read_text()


def test_what_may_be_shown_holds_no_key(key: SiteKey) -> None:
    shown = "".join(b.render_public(site=site_of()).values()) + repr(b.build(site=site_of(), key=key))
    for secret in (key.psk.reveal(), key.private_key.reveal()):
        assert not any(line in shown for line in secret.splitlines()[1:-1])


def test_the_unit_comes_back_whatever_the_exit_status() -> None:
    unit = b.render_public(site=site_of())["unit.conf"]
    assert "\nRestart=always\n" in unit
    assert unit.index("[Unit]") < unit.index("StartLimitIntervalSec=0") < unit.index("[Service]")


def test_a_start_of_the_client_waits_for_the_guard_and_starts_no_process_of_its_own_for_it() -> None:
    shown = b.render_public(site=site_of())
    assert f"\nWants={b.GUARD}\nAfter={b.GUARD}\n" in shown["unit.conf"]
    assert "Exec" not in shown["unit.conf"]
    assert f"\nExecStart=/bin/sh {b.DIRECTORY}/agent.sh guard\n" in shown[b.GUARD]
    # The file that the agent writes before anything else of an activation.
    assert f"\nConditionPathExists={Path(b.DIRECTORY).parent}/state/pending\n" in shown[b.GUARD]
    assert f"\nGU={b.GUARD}\n" in b.agent_text()


def test_the_key_of_another_site_never_gets_in(key: SiteKey) -> None:
    with pytest.raises(b.BundleError, match="key of site-0001 was about to go into the bundle of site-0002"):
        b.build(site=site_of(site="site-0002"), key=key)


def test_a_template_variable_without_value_is_an_error_that_names_the_site() -> None:
    site = site_of()
    del site.timers.hand_window
    with pytest.raises(b.BundleError, match=r"client.conf.j2 cannot be rendered for site-0001.*hand_window"):
        b.render_config(site=site)


def test_a_site_is_told_the_mtu_only_where_it_is_not_the_usual_one() -> None:
    usual = b.render_config(site=site_of())
    small = b.render_config(site=site_of(mtu=1480)).splitlines()
    tiny = b.render_config(site=site_of(mtu=1000)).splitlines()

    assert usual == b.render_config(site=site_of(mtu=9216))
    assert [line for line in small if line not in usual.splitlines()] == [
        "# What fits the smallest transport; the gateways' tun devices have the same.",
        "tun-mtu 1424",
        "mssfix 1400 mtu",
    ]
    assert {"tun-mtu 944", "mssfix 1000 mtu", "max-packet-size 1000"} <= set(tiny)
