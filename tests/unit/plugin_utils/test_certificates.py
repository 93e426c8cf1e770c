# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet CA, as openssl sees what it issues."""

from __future__ import annotations

import datetime as dt
import subprocess
from typing import TYPE_CHECKING, Literal

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates as c

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime.now(tz=dt.UTC).replace(microsecond=0)
CA = c.make_ca(fleet="lab", key_type="p256", now=NOW)


def openssl(*words: str) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("key_type", ["p256", "ed25519"])
def test_openssl_verifies_each_purpose_and_only_that(tmp_path: Path, key_type: Literal["p256", "ed25519"]) -> None:
    ca = c.make_ca(fleet="lab", key_type=key_type, now=NOW)
    gateway = c.issue_gateway(ca=ca, name="gw1", key_type=key_type, now=NOW)
    site = c.issue_site(ca=ca, site="site-0001", key_type=key_type, now=NOW)
    for name, text in {"ca": ca.certificate, "gw1": gateway.certificate, "site": site.certificate}.items():
        (tmp_path / name).write_text(text)
    trust = ("-x509_strict", "-CAfile", str(tmp_path / "ca"))
    assert "OK" in openssl("verify", *trust, "-purpose", "sslserver", str(tmp_path / "gw1"))
    assert "OK" in openssl("verify", *trust, "-purpose", "sslclient", str(tmp_path / "site"))
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", *trust, "-purpose", "sslserver", str(tmp_path / "site"))
    c.check(ca=ca, issued=site, name="site-0001")


def test_names_serials_and_times() -> None:
    site = c.issue_site(ca=CA, site="site-0001", key_type="p256", now=NOW)
    assert c.common_name(certificate=site.certificate) == "site-0001"
    assert c.serial(certificate=site.certificate) != c.serial(certificate=CA.certificate)
    assert c.expires(certificate=site.certificate) == NOW + dt.timedelta(days=c.LEAF_DAYS)
    assert "BEGIN" not in repr(site)


def test_a_leaf_never_outlives_its_ca() -> None:
    late = c.expires(certificate=CA.certificate) - dt.timedelta(days=10)
    site = c.issue_site(ca=CA, site="site-0001", key_type="p256", now=late)
    assert c.expires(certificate=site.certificate) == c.expires(certificate=CA.certificate)


def test_a_clock_is_good_on_the_whole_days_of_the_certificate_and_of_one_ca() -> None:
    day = dt.timedelta(days=1)
    # A CA that ended yesterday, and the one that follows it: the site must not be kept from the new one.
    ended = c.make_ca(fleet="lab", key_type="p256", now=NOW - dt.timedelta(days=c.CA_DAYS) - day)
    site = c.issue_site(ca=CA, site="site-0001", key_type="p256", now=NOW)
    leaf = ((NOW - c.BACKDATE).date() + day, (NOW + dt.timedelta(days=c.LEAF_DAYS)).date() - day)
    for authorities in (CA.certificate, ended.certificate + CA.certificate, CA.certificate + ended.certificate):
        assert c.good_days(certificate=site.certificate, authorities=authorities) == leaf
    # Before its CA nothing is good, and after it neither.
    new = c.make_ca(fleet="lab", key_type="p256", now=NOW + 9 * day)
    assert c.good_days(certificate=site.certificate, authorities=new.certificate)[0] == (NOW + 9 * day).date() - day
    with_old = c.good_days(certificate=site.certificate, authorities=ended.certificate)
    assert with_old == (leaf[0], (NOW - day).date() - day)


def test_a_remote_whose_clock_is_a_day_slow_accepts_a_new_certificate() -> None:
    text = c.issue_gateway(ca=CA, name="gw1", key_type="p256", now=NOW).certificate
    assert c._certificate(text).not_valid_before_utc <= NOW - dt.timedelta(days=1)


def test_the_revocation_list_is_long_lived_and_names_the_revoked(tmp_path: Path) -> None:
    (tmp_path / "crl").write_text(c.make_crl(ca=CA, revoked=[0xABCDEF, 0x12, 0x12], now=NOW))
    (tmp_path / "ca").write_text(CA.certificate)
    said = openssl("crl", "-in", str(tmp_path / "crl"), "-noout", "-text")
    assert "Serial Number: ABCDEF" in said
    assert said.count("Serial Number: 12\n") == 1
    assert str((NOW + dt.timedelta(days=c.CRL_DAYS)).year) in said.split("Next Update")[1].splitlines()[0]


def test_the_days_left_of_a_revocation_list_are_counted_and_tell_when_it_is_due() -> None:
    crl = c.make_crl(ca=CA, revoked=[], now=NOW)
    later = {days: NOW + dt.timedelta(days=days) for days in (0, c.CRL_DAYS - 365, c.CRL_DAYS - 364, c.CRL_DAYS + 2)}

    assert [c.crl_days_left(crl=crl, now=now) for now in later.values()] == [c.CRL_DAYS, 365, 364, -2]
    assert [c.crl_is_due(crl=crl, now=now) for now in later.values()] == [False, False, True, True]


def test_a_renewed_revocation_list_forgets_nobody_and_is_newer(tmp_path: Path) -> None:
    old = c.make_crl(ca=CA, revoked=[0x12, 0xABCDEF], now=NOW, number=7)
    new = c.renew_crl(ca=CA, crl=old, now=NOW + dt.timedelta(days=3300), revoked=[0x99])
    (tmp_path / "crl").write_text(new)
    (tmp_path / "ca").write_text(CA.certificate)
    # openssl says the verdict on standard error.
    said = subprocess.run(
        ["openssl", "crl", "-in", tmp_path / "crl", "-CAfile", tmp_path / "ca", "-noout", "-crlnumber"],
        check=True,
        capture_output=True,
        text=True,
    )

    assert c.crl_serials(crl=new) == {0x12, 0xABCDEF, 0x99}
    assert c.crl_number(crl=new) == 8
    assert c.crl_days_left(crl=new, now=NOW) == 3300 + c.CRL_DAYS
    assert "0x08" in said.stdout
    assert "verify OK" in said.stderr


@pytest.mark.parametrize("text", ["", "no list", CA.certificate])
def test_what_is_no_revocation_list_says_so(text: str) -> None:
    with pytest.raises(c.CertificateError, match="no PEM revocation list"):
        c.crl_days_left(crl=text, now=NOW)


def test_what_does_not_belong_together_is_named() -> None:
    site = c.issue_site(ca=CA, site="site-0001", key_type="p256", now=NOW)
    other = c.issue_site(ca=CA, site="site-0002", key_type="p256", now=NOW)
    stranger = c.make_ca(fleet="other", key_type="p256", now=NOW)
    with pytest.raises(c.CertificateError, match="not signed by this fleet's CA"):
        c.check(ca=stranger, issued=site, name="site-0001")
    with pytest.raises(c.CertificateError, match="kept for site-0003 carries the name site-0001"):
        c.check(ca=CA, issued=site, name="site-0003")
    mixed = c.Identity(certificate=site.certificate, private_key=other.private_key)
    with pytest.raises(c.CertificateError, match="private key kept for site-0001 does not belong"):
        c.check(ca=CA, issued=mixed, name="site-0001")


def test_a_damaged_private_key_is_not_quoted() -> None:
    broken = c.Identity(certificate=CA.certificate, private_key="-----BEGIN PRIVATE KEY-----\nU0VDUkVU\n")
    with pytest.raises(c.CertificateError) as caught:
        c.make_crl(ca=broken, revoked=[], now=NOW)
    assert "U0VDUkVU" not in str(caught.value)


def test_an_unknown_key_type_says_what_to_set() -> None:
    with pytest.raises(c.CertificateError, match=r"'rsa' is unknown. Set tunnels.key_type to p256 or ed25519"):
        c.make_ca(fleet="lab", key_type="rsa", now=NOW)  # type: ignore[arg-type]
