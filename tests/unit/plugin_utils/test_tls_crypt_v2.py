# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tls-crypt-v2 keys, held against the real openvpn binary both ways."""

from __future__ import annotations

import base64
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.spokewright.fleet.plugins.plugin_utils import tls_crypt_v2 as v2

if TYPE_CHECKING:
    from pathlib import Path

SERVER = v2.ServerKey.generate()
METADATA = v2.Metadata(site="site-0001", kid="0123456789abcdef", epoch=3, issued=1795445716)


def openvpn(*words: str) -> str:
    ran = subprocess.run(["openvpn", *words], check=False, capture_output=True, text=True, timeout=30)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def body(text: str) -> bytearray:
    return bytearray(v2._unpem(name=v2.CLIENT_PEM, text=text))


def pem(raw: bytes | bytearray) -> str:
    return v2._pem(name=v2.CLIENT_PEM, raw=bytes(raw))


def test_openvpn_takes_a_server_key_and_a_client_key_made_here(tmp_path: Path) -> None:
    server, client = tmp_path / "server.pem", tmp_path / "client.pem"
    server.write_text(SERVER.to_pem())
    client.write_text(v2.generate_client_key(server=SERVER, metadata=METADATA))
    # --genkey unwraps the key it has just written, and reads ours as the server key.
    openvpn("--tls-crypt-v2", str(server), "--genkey", "tls-crypt-v2-client", str(tmp_path / "theirs.pem"))
    started = subprocess.run(
        ["openvpn", "--client", "--dev", "null", "--remote", "127.0.0.1", "9", "--tls-crypt-v2", str(client)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Cannot read" not in started.stdout
    assert "tls-crypt-v2" not in started.stdout.replace(str(client), "").lower().replace("--tls-crypt-v2", "")


@pytest.mark.parametrize("payload", [b"", b"x", b"v=1 site=a", b"\x00\xff" * 100, b"m" * v2.PAYLOAD_MAX])
def test_a_key_made_by_openvpn_is_opened(tmp_path: Path, payload: bytes) -> None:
    server, client = tmp_path / "server.pem", tmp_path / "client.pem"
    openvpn("--genkey", "tls-crypt-v2-server", str(server))
    words = ["--tls-crypt-v2", str(server), "--genkey", "tls-crypt-v2-client", str(client)]
    openvpn(*words, *([base64.b64encode(payload).decode()] if payload else []))
    opened = v2.unwrap(server=v2.ServerKey.from_pem(server.read_text()), text=client.read_text())
    if payload:
        assert (opened.metadata_type, opened.payload) == (v2.TYPE_USER, payload)
    else:
        assert opened.metadata_type == v2.TYPE_TIMESTAMP
        assert len(opened.payload) == 8


@pytest.mark.parametrize("end", [b"=", b"!"])
def test_a_body_that_is_no_base64_is_not_quoted(end: bytes) -> None:
    secret = base64.b64encode(bytes(range(200))).decode()
    text = f"-----BEGIN {v2.CLIENT_PEM}-----\n{secret}{end.decode()}\n-----END {v2.CLIENT_PEM}-----\n"

    with pytest.raises(v2.MalformedKeyError, match="is no base64: the file was damaged") as caught:
        v2.unwrap(server=SERVER, text=text)

    assert secret[:8] not in str(caught.value)


def test_every_fault_has_its_own_error() -> None:
    faults = [
        v2.MalformedKeyError,
        v2.TruncatedKeyError,
        v2.OversizedKeyError,
        v2.ForeignKeyError,
        v2.TamperedKeyError,
        v2.WrongSiteError,
        v2.WrongEpochError,
    ]

    assert [(one, other) for one in faults for other in faults if one is not other and issubclass(one, other)] == []


def test_our_seal_is_openvpns_seal_byte_for_byte(tmp_path: Path) -> None:
    server, client = tmp_path / "server.pem", tmp_path / "client.pem"
    openvpn("--genkey", "tls-crypt-v2-server", str(server))
    payload = base64.b64encode(METADATA.encode()).decode()
    openvpn("--tls-crypt-v2", str(server), "--genkey", "tls-crypt-v2-client", str(client), payload)
    key = v2.ServerKey.from_pem(server.read_text())
    opened = v2.unwrap(server=key, text=client.read_text())
    assert v2.wrap(server=key, secret=opened.secret, payload=opened.payload) == client.read_text()


def test_the_shape_of_a_key_does_not_depend_on_who_made_it() -> None:
    text = v2.generate_client_key(server=SERVER, metadata=METADATA)
    assert text.startswith("-----BEGIN OpenVPN tls-crypt-v2 client key-----\n")
    assert max(len(line) for line in text.splitlines()[1:-1]) == 64
    assert v2.verify(server=SERVER, text=text, site="site-0001", epoch=3) == METADATA


@settings(max_examples=200, deadline=None)
@given(
    site=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    epoch=st.integers(1, v2.EPOCH_MAX),
    issued=st.integers(0, v2.ISSUED_MAX),
)
def test_every_metadata_survives_the_round_trip(site: str, epoch: int, issued: int) -> None:
    metadata = v2.Metadata(site=site, kid="00000000000000ff", epoch=epoch, issued=issued)
    text = v2.generate_client_key(server=SERVER, metadata=metadata)
    assert v2.verify(server=SERVER, text=text, site=site, epoch=epoch) == metadata


def test_a_posix_shell_can_split_the_metadata() -> None:
    line = METADATA.encode().decode()
    ran = subprocess.run(
        ["sh", "-c", 'read -r v site kid epoch issued && echo "$kid ${epoch#epoch=}"'],
        input=line + "\n",
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "kid=0123456789abcdef 3\n"


@pytest.mark.parametrize("at", [0, 100, 255, 256, 270, 290, 400, 545, 580])
def test_one_flipped_byte_is_found_wherever_it_is_and_called_tampering(at: int) -> None:
    raw = body(v2.generate_client_key(server=SERVER, metadata=METADATA))
    raw[at] ^= 1
    with pytest.raises(v2.TamperedKeyError, match=r"changed"):
        v2.unwrap(server=SERVER, text=pem(raw))


def test_a_key_of_another_fleet_is_foreign_not_tampered() -> None:
    text = v2.generate_client_key(server=v2.ServerKey.generate(), metadata=METADATA)
    with pytest.raises(v2.ForeignKeyError, match="sealed with another tls-crypt-v2 server key than this fleet's"):
        v2.unwrap(server=SERVER, text=text)


@pytest.mark.parametrize("keep", [0, 1, 255, 256, 400, 546, 547, 600])
def test_a_cut_body_is_truncated(keep: int) -> None:
    raw = body(v2.generate_client_key(server=SERVER, metadata=METADATA))
    with pytest.raises(v2.TruncatedKeyError, match="bytes"):
        v2.unwrap(server=SERVER, text=pem(raw[:keep]))


def test_a_cut_file_is_truncated() -> None:
    text = v2.generate_client_key(server=SERVER, metadata=METADATA)
    with pytest.raises(v2.TruncatedKeyError, match="the file was cut"):
        v2.unwrap(server=SERVER, text=text[:400])


def test_a_cut_server_key_is_truncated() -> None:
    with pytest.raises(v2.TruncatedKeyError, match="128 bytes, this one 100"):
        v2.ServerKey.from_pem(v2._pem(name=v2.SERVER_PEM, raw=b"x" * 100))


def test_too_much_metadata_is_oversized() -> None:
    with pytest.raises(v2.OversizedKeyError, match="734 bytes is too long: OpenVPN takes 733"):
        v2.wrap(server=SERVER, secret=bytes(256), payload=b"x" * 734)


def test_a_sealed_part_longer_than_openvpn_takes_is_oversized() -> None:
    raw = body(v2.generate_client_key(server=SERVER, metadata=METADATA))
    with pytest.raises(v2.OversizedKeyError, match="OpenVPN takes 1024"):
        v2.unwrap(server=SERVER, text=pem(raw + bytes(700)))


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", v2.MalformedKeyError, "this is no OpenVPN tls-crypt-v2 client key"),
        (SERVER.to_pem(), v2.MalformedKeyError, "this is no OpenVPN tls-crypt-v2 client key"),
        (
            f"-----BEGIN {v2.CLIENT_PEM}-----\n&&&&\n-----END {v2.CLIENT_PEM}-----\n",
            v2.MalformedKeyError,
            "is no base64",
        ),
    ],
)
def test_what_is_no_client_key_says_so(text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        v2.unwrap(server=SERVER, text=text)


def test_wrong_site_wrong_epoch_and_foreign_metadata_have_their_own_errors() -> None:
    text = v2.generate_client_key(server=SERVER, metadata=METADATA)
    with pytest.raises(v2.WrongSiteError, match="issued to site site-0001, not to site-0002"):
        v2.verify(server=SERVER, text=text, site="site-0002")
    with pytest.raises(v2.WrongEpochError, match="is of epoch 3, not 4"):
        v2.verify(server=SERVER, text=text, site="site-0001", epoch=4)
    stamped = v2.wrap(server=SERVER, secret=bytes(256), payload=bytes(8), metadata_type=v2.TYPE_TIMESTAMP)
    with pytest.raises(v2.MetadataError, match=r"type 1, not USER \(0\)"):
        v2.verify(server=SERVER, text=stamped, site="site-0001")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        b"v=2 site=a kid=0123456789abcdef epoch=1 issued=1",
        b"v=1 site=a kid=0123456789abcdef epoch=0 issued=1",
        b"v=1 site=a kid=0123456789ABCDEF epoch=1 issued=1",
        b"v=1 site=a kid=0123456789abcdef epoch=1 issued=1 more=1",
        b"v=1 site=a b kid=0123456789abcdef epoch=1 issued=1",
        b"v=1 kid=0123456789abcdef site=a epoch=1 issued=1",
    ],
)
def test_metadata_that_is_not_ours_is_refused(payload: bytes) -> None:
    with pytest.raises(v2.MetadataError, match="not of our form"):
        v2.Metadata.decode(payload)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"site": "two words"}, "site id 'two words' cannot stand"),
        ({"site": "x" * 65}, "at most 64"),
        ({"kid": "xyz"}, "not 16 lower-case hexadecimal"),
        ({"epoch": 0}, "epoch 0 cannot stand in key metadata. Use 1 to 9999999999"),
        ({"epoch": 10**10}, "epoch 10000000000 cannot stand"),
        ({"issued": -1}, "issue time -1 cannot stand"),
        ({"issued": 10**15}, "issue time 1000000000000000 cannot stand"),
    ],
)
def test_metadata_is_checked_before_it_is_sealed(changes: dict[str, object], says: str) -> None:
    values: dict[str, object] = {"site": "a", "kid": "0" * 16, "epoch": 1, "issued": 1, **changes}
    with pytest.raises(v2.MetadataError, match=says):
        v2.Metadata(**values).encode()  # type: ignore[arg-type]


def test_no_representation_shows_a_key() -> None:
    text = v2.generate_client_key(server=SERVER, metadata=METADATA)
    opened = v2.unwrap(server=SERVER, text=text)
    assert SERVER.raw.hex() not in repr(SERVER)
    assert repr(SERVER.raw) not in repr(SERVER)
    assert repr(opened.secret) not in repr(opened)


def test_a_fingerprint_names_a_key_and_is_stable() -> None:
    one = v2.generate_client_key(server=SERVER, metadata=METADATA)
    two = v2.generate_client_key(server=SERVER, metadata=METADATA)
    assert v2.fingerprint(text=one) == v2.fingerprint(text=one) != v2.fingerprint(text=two)
