# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime as dt
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_material import (
    Material,
    MaterialError,
    check_days,
    check_material,
)
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import GatewayKey
from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret

STORE = Path("/srv/fleet/keystore")
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
SERVER = tls_crypt_v2.ServerKey.generate()


class Authority:
    """A fleet CA, and what it issues."""

    def __init__(self) -> None:
        self.ca = certificates.make_ca(fleet="lab", key_type="p256", now=NOW)

    def gateway(self, name: str = "gw1", *, crl_made: dt.datetime = NOW) -> GatewayKey:
        issued = certificates.issue_gateway(ca=self.ca, name=name, key_type="p256", now=NOW)
        return GatewayKey(
            name=name,
            ca=self.ca.certificate,
            crl=certificates.make_crl(ca=self.ca, revoked=(7, 8), now=crl_made),
            certificate=issued.certificate,
            private_key=Secret(issued.private_key),
            server_key=Secret(SERVER.to_pem()),
        )


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def key(authority: Authority) -> GatewayKey:
    return authority.gateway()


def check(key: GatewayKey, now: dt.datetime = NOW) -> Material:
    return check_material(key=key, store=STORE, now=now)


def test_what_is_made_for_a_gateway_is_good_and_has_one_name(key: GatewayKey) -> None:
    assert check(key) == check(key)
    assert check(key).certificate_days == certificates.LEAF_DAYS
    assert check(key).crl_days == certificates.CRL_DAYS
    assert check(key).crl_revoked == 2
    check_days(material=check(key), store=STORE, crl_minimum_days=14)


def test_the_name_is_that_of_the_former_release(key: GatewayKey) -> None:
    # With another name every daemon would restart with the first run of this one.
    parts = [key.ca, key.certificate, key.private_key.reveal(), key.server_key.reveal()]
    whole = hashlib.sha256(b"".join(hashlib.sha256(part.encode()).digest() for part in parts)).hexdigest()
    assert check(key).digest == whole[:16]
    assert [file.content.reveal() for file in check(key).keys] == parts


def test_the_name_changes_with_the_keys_but_not_with_the_crl(key: GatewayKey, authority: Authority) -> None:
    assert check(authority.gateway()).digest != check(key).digest
    assert check(replace(key, crl=key.crl + "\n")).digest == check(key).digest


def broken(key: GatewayKey, authority: Authority, case: str) -> GatewayKey:
    site = certificates.issue_site(ca=authority.ca, site="site-0001", key_type="p256", now=NOW)
    foreign = Authority().gateway()
    psk = tls_crypt_v2.generate_client_key(
        server=SERVER, metadata=tls_crypt_v2.Metadata(site="site-0001", kid="0" * 16, epoch=1, issued=1)
    )
    return {
        "garbage certificate": replace(key, certificate="garbage\n"),
        "garbage key": replace(key, private_key=Secret("garbage\n")),
        "garbage server key": replace(key, server_key=Secret("garbage\n")),
        "a site's key as server key": replace(key, server_key=Secret(psk)),
        "garbage CRL": replace(key, crl="garbage\n"),
        "foreign CRL": replace(key, crl=foreign.crl),
        "foreign CA": replace(key, ca=foreign.ca),
        "another gateway's key": replace(key, private_key=authority.gateway("gw2").private_key),
        "a site's certificate": replace(key, certificate=site.certificate, private_key=Secret(site.private_key)),
    }[case]


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("garbage certificate", r"gw1\.vault: no certificate in PEM form\. Restore it from the backup"),
        ("garbage key", r"gw1\.vault: no unencrypted private key in PEM form"),
        ("garbage server key", r"server-tls-crypt-v2\.vault: no OpenVPN tls-crypt-v2 server key of 128 bytes"),
        ("a site's key as server key", "no OpenVPN tls-crypt-v2 server key of 128 bytes"),
        ("garbage CRL", r"crl\.pem: no CRL in PEM form; with it a gateway would refuse every site"),
        ("foreign CRL", "not signed by the CA in"),
        ("foreign CA", "not issued by the CA in"),
        ("another gateway's key", "its private key does not belong to its certificate"),
        ("a site's certificate", "no server's certificate"),
    ],
)
def test_what_would_refuse_sites_or_not_start_is_found_on_the_controller(
    key: GatewayKey, authority: Authority, case: str, text: str
) -> None:
    with pytest.raises(MaterialError, match=text):
        check(broken(key, authority, case))


def test_what_ran_out_is_refused(authority: Authority) -> None:
    old = NOW - dt.timedelta(days=certificates.CRL_DAYS)
    with pytest.raises(
        MaterialError, match=r"crl\.pem: ran out at .*no site would connect\. playbooks/site\.yml makes"
    ):
        check(authority.gateway(crl_made=old - dt.timedelta(days=1)))
    with pytest.raises(MaterialError, match=r"gw1\.vault: ran out at .* move its \.vault and its \.pem out"):
        check(authority.gateway(), now=NOW + dt.timedelta(days=certificates.LEAF_DAYS + 1))


def test_what_is_about_to_run_out_is_refused_with_the_days_that_are_left(authority: Authority) -> None:
    made = NOW - dt.timedelta(days=certificates.CRL_DAYS - 10)
    material = check(authority.gateway(crl_made=made))
    with pytest.raises(MaterialError, match=r"crl\.pem: good for 10 more days, and 14 are asked for\. With a CRL"):
        check_days(material=material, store=STORE, crl_minimum_days=14)
    check_days(material=material, store=STORE, crl_minimum_days=10)
    with pytest.raises(MaterialError, match="certificate is good for less than a day"):
        check_days(material=replace(material, certificate_days=0), store=STORE, crl_minimum_days=10)


def test_no_error_shows_a_key(key: GatewayKey) -> None:
    text = key.private_key.reveal()
    with pytest.raises(MaterialError) as caught:
        check(replace(key, private_key=Secret(text[:-40] + os.urandom(20).hex())))
    assert caught.value.__cause__ is None
    assert text.splitlines()[1] not in str(caught.value)


def test_material_does_not_show_itself(key: GatewayKey) -> None:
    for secret in (key.private_key, key.server_key):
        assert secret.reveal().splitlines()[1] not in repr(check(key))
