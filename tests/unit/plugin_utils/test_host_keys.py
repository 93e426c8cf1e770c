# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Host keys: what is said about a shown key, and that writing them touches one column only."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import host_keys as hk
from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError
from ansible_collections.spokewright.fleet.plugins.plugin_utils.host_key_text import host_key_fault
from delivery_support import HOST_KEY

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDbEFjooL06dn6iIxzM7Qyu7L2W2XpKFc8dDF42TEbYl"


@pytest.mark.parametrize(
    ("pinned", "shown", "state"),
    [
        ("", HOST_KEY, "new"),
        (HOST_KEY, HOST_KEY, "same"),
        (f"{HOST_KEY} root@site", HOST_KEY, "same"),
        (HOST_KEY, OTHER, "changed"),
        (HOST_KEY, "", "unreachable"),
    ],
)
def test_what_is_said_about_a_shown_key(pinned: str, shown: str, state: str) -> None:
    assert hk.compare(site="site-0001", pinned=pinned, shown=shown).state == state


def test_a_changed_key_names_both_fingerprints() -> None:
    said = hk.compare(site="site-0001", pinned=HOST_KEY, shown=OTHER).message
    assert hk.fingerprint_of(text=HOST_KEY) in said
    assert hk.fingerprint_of(text=OTHER) in said


def test_a_fingerprint_is_what_ssh_keygen_prints() -> None:
    assert hk.fingerprint_of(text=HOST_KEY).startswith("SHA256:")
    assert len(hk.fingerprint_of(text=HOST_KEY)) == 50
    assert hk.fingerprint_of(text="") == ""


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("last", [b"", b"\r\n", b"\n\n"])
def test_only_the_one_field_changes(tmp_path: Path, mark: bytes, ending: bytes, last: bytes) -> None:
    registry = tmp_path / "sites.csv"
    lines = [
        b"id,group,oob_address,host_key,lan,options",
        b'site-0001,canary,198.18.1.1,,"10.202.1.0/24 10.202.9.0/24",',
        b'"site-0002", north ,198.18.1.2,"' + OTHER.encode() + b'",10.202.2.0/24,"oob_port=22, x"',
        b"",
        b"site-0003,south,198.18.1.3,,10.202.3.0/24,",
    ]
    registry.write_bytes(mark + ending.join(lines) + last)
    assert hk.write_keys(registry=registry, keys={"site-0001": HOST_KEY, "site-0002": OTHER}) == ["site-0001"]
    lines[1] = b"site-0001,canary,198.18.1.1," + HOST_KEY.encode() + b',"10.202.1.0/24 10.202.9.0/24",'
    assert registry.read_bytes() == mark + ending.join(lines) + last


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_a_host_key_in_the_last_column_keeps_its_line_end(tmp_path: Path, ending: str) -> None:
    registry = tmp_path / "sites.csv"
    registry.write_bytes(f"id,host_key{ending}site-0001,{ending}site-0002,{OTHER}{ending}".encode())
    hk.write_keys(registry=registry, keys={"site-0001": HOST_KEY})
    assert registry.read_bytes() == f"id,host_key{ending}site-0001,{HOST_KEY}{ending}site-0002,{OTHER}{ending}".encode()


def test_comments_stay_as_they_are(tmp_path: Path) -> None:
    registry = tmp_path / "sites.csv"
    text = "# our sites, ours only\r\n  # id,host_key\rid,host_key\n# site-0001,\nsite-0001,KEY\r\n"
    registry.write_bytes(text.replace("KEY", "").encode())
    assert hk.write_keys(registry=registry, keys={"site-0001": HOST_KEY}) == ["site-0001"]
    assert registry.read_bytes() == text.replace("KEY", HOST_KEY).encode()


def blob(*fields: bytes) -> str:
    return base64.b64encode(b"".join(len(field).to_bytes(4, "big") + field for field in fields)).decode()


RSA, P256, P384 = b"ssh-rsa", b"ecdsa-sha2-nistp256", b"ecdsa-sha2-nistp384"


@pytest.mark.parametrize(
    "fields",
    [
        (b"ssh-ed25519", b"k" * 32),
        (RSA, b"\1\0\1", b"n" * 257),
        (P256, b"nistp256", b"\4" + b"p" * 64),
        (P384, b"nistp384", b"\4" + b"p" * 96),
        (b"ecdsa-sha2-nistp521", b"nistp521", b"\4" + b"p" * 132),
    ],
)
def test_a_whole_key_of_each_kind_is_taken(fields: tuple[bytes, ...]) -> None:
    assert host_key_fault(text=f"{fields[0].decode()} {blob(*fields)}") is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((b"ssh-ed25519", b"k" * 31, b""), "it is not as long as an ed25519 key"),
        ((b"ssh-ed25519", b"k" * 28, b""), "it is not as long as an ed25519 key"),
        ((RSA, b"\1\0\1"), "it is not as long as an rsa key"),
        ((RSA, b"\1\0\1", b""), "it is not as long as an rsa key"),
        ((RSA, b"\1\0\1", b"n" * 257, b"more"), "it is not as long as an rsa key"),
        ((P256, b"nistp256"), "it is not as long as an ecdsa key"),
        ((P256, b"nistp256", b"\4" + b"p" * 96), "it is not as long as an ecdsa key"),
        ((P256, b"nistp384", b"\4" + b"p" * 64), "holds something else"),
    ],
)
def test_a_key_with_fields_that_do_not_fit_is_damaged(fields: tuple[bytes, ...], says: str) -> None:
    assert says in str(host_key_fault(text=f"{fields[0].decode()} {blob(*fields)}"))


@pytest.mark.parametrize("end", [b"\0", b"\0\0\0\1"])
def test_a_key_with_bytes_behind_its_end_is_damaged(end: bytes) -> None:
    good = base64.b64decode(blob(RSA, b"\1\0\1", b"n" * 257))
    assert host_key_fault(text=f"ssh-rsa {base64.b64encode(good + end).decode()}") is not None
    assert host_key_fault(text=f"ssh-rsa {base64.b64encode(good[:-1]).decode()}") is not None


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    registry = tmp_path / "sites.csv"
    registry.write_text(f"id,host_key\nsite-0001,{HOST_KEY}\n")
    before = registry.stat().st_mtime_ns
    assert hk.write_keys(registry=registry, keys={"site-0001": HOST_KEY}) == []
    assert registry.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("text", "keys", "says"),
    [
        ("id,host_key\nsite-0001,\n", {"site-0002": HOST_KEY}, "has no line for site-0002. Nothing was written"),
        ("id,host_key\nsite-0001,\n", {"site-0001": "rubbish"}, "site-0001: the host key has no two words"),
        ("id,name\nsite-0001,\n", {"site-0001": HOST_KEY}, "does not name the columns id and host_key"),
        ("", {"site-0001": HOST_KEY}, "does not name the columns"),
    ],
)
def test_a_registry_that_cannot_take_them_is_untouched(
    tmp_path: Path, text: str, keys: dict[str, str], says: str
) -> None:
    registry = tmp_path / "sites.csv"
    registry.write_text(text)
    with pytest.raises(FleetError, match=says):
        hk.write_keys(registry=registry, keys=keys)
    assert registry.read_text() == text
