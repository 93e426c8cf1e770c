# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime as dt
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_material import (
    MaterialError,
    MaterialFiles,
    read_material,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

if TYPE_CHECKING:
    from pathlib import Path


def make_store(path: Path) -> MaterialFiles:
    KeyStore(path=path).ensure(fleet="lab", key_type="p256", gateways=["gw1", "gw2"], sites=["site-0001"])
    return MaterialFiles(
        ca_file=path / "ca.pem",
        cert_file=path / "gateways/gw1/cert.pem",
        key_file=path / "gateways/gw1/key.pem",
        tls_crypt_v2_key_file=path / "server-tls-crypt-v2.pem",
        crl_file=path / "crl.pem",
    )


@pytest.fixture
def files(tmp_path: Path) -> MaterialFiles:
    return make_store(tmp_path / "store")


def test_what_the_key_store_makes_is_good_and_has_one_name(files: MaterialFiles) -> None:
    first, second = read_material(files=files), read_material(files=files)
    assert first == second
    assert first.certificate_days > 30
    assert first.crl_days > 30


def test_the_name_changes_with_the_keys_but_not_with_the_crl(files: MaterialFiles, tmp_path: Path) -> None:
    name = read_material(files=files).digest
    other = replace(
        files,
        cert_file=files.cert_file.parents[1] / "gw2/cert.pem",
        key_file=files.key_file.parents[1] / "gw2/key.pem",
    )
    assert read_material(files=other).digest != name
    longer = tmp_path / "crl.pem"
    longer.write_bytes(files.crl_file.read_bytes() + b"\n")
    assert read_material(files=replace(files, crl_file=longer)).digest == name


def broken(files: MaterialFiles, tmp_path: Path, case: str) -> MaterialFiles:
    bad = tmp_path / "bad"
    bad.write_text("garbage\n", encoding="ascii")
    site = files.ca_file.parent / "sites/site-0001/1"
    foreign = make_store(tmp_path / "foreign")
    return {
        "missing": replace(files, key_file=tmp_path / "none"),
        "garbage certificate": replace(files, cert_file=bad),
        "garbage key": replace(files, key_file=bad),
        "garbage server key": replace(files, tls_crypt_v2_key_file=bad),
        "a site's key as server key": replace(files, tls_crypt_v2_key_file=site / "psk.pem"),
        "garbage CRL": replace(files, crl_file=bad),
        "foreign CRL": replace(files, crl_file=foreign.crl_file),
        "foreign CA": replace(files, ca_file=foreign.ca_file),
        "another gateway's key": replace(files, key_file=files.key_file.parents[1] / "gw2/key.pem"),
        "a site's certificate": replace(files, cert_file=site / "cert.pem", key_file=site / "key.pem"),
    }[case]


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("missing", "No such file or directory. A gateway's keys are made on the controller"),
        ("garbage certificate", "no certificate in PEM form"),
        ("garbage key", "no unencrypted private key in PEM form"),
        ("garbage server key", "no OpenVPN tls-crypt-v2 server key of 128 bytes"),
        ("a site's key as server key", "no OpenVPN tls-crypt-v2 server key of 128 bytes"),
        ("garbage CRL", "no CRL in PEM form; with it a gateway would refuse every site"),
        ("foreign CRL", "not signed by the CA in"),
        ("foreign CA", "not issued by the CA in"),
        ("another gateway's key", "this private key does not belong to the certificate"),
        ("a site's certificate", "no server's certificate"),
    ],
)
def test_what_would_refuse_sites_or_not_start_is_found_on_the_controller(
    files: MaterialFiles, tmp_path: Path, case: str, text: str
) -> None:
    with pytest.raises(MaterialError, match=text):
        read_material(files=broken(files, tmp_path, case))


def test_a_crl_that_ran_out_is_refused(files: MaterialFiles) -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=365 * 40)
    with pytest.raises(MaterialError, match=r"ran out at .*with it no site would connect"):
        read_material(files=files, now=later)


def test_no_error_shows_a_key(files: MaterialFiles, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.write_bytes(files.key_file.read_bytes()[:-40] + os.urandom(20))
    with pytest.raises(MaterialError) as caught:
        read_material(files=replace(files, key_file=mixed))
    body = files.key_file.read_text(encoding="ascii").splitlines()[1]
    assert body not in str(caught.value)
