# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scanner of the secrecy test finds a key in whatever form it got out, and nothing where none is."""

from __future__ import annotations

import base64
import json
import random
import textwrap
from typing import TYPE_CHECKING, Literal

import pytest

from key_scanner import Scanner, forms, scanner_of, secrets_of
from key_support import new_store

if TYPE_CHECKING:
    from pathlib import Path

NOISE = random.Random(7)  # noqa: S311 - noise, no key
SECRET = NOISE.randbytes(256)
SCANNER = Scanner()
SCANNER.learn(name="it", secret=SECRET)
WINDOW = SECRET[101:133]


def wrapped(data: bytes, width: int) -> bytes:
    return "\n".join(textwrap.wrap(base64.b64encode(data).decode(), width)).encode()


@pytest.mark.parametrize("before", range(0, 24, 5))
@pytest.mark.parametrize(
    "form",
    [
        WINDOW,
        WINDOW.hex().encode(),
        WINDOW.hex().upper().encode(),
        repr(WINDOW).encode(),
        json.dumps(WINDOW.decode("latin-1")).encode(),
        *(base64.b64encode(NOISE.randbytes(shift) + WINDOW) for shift in range(3)),
        base64.urlsafe_b64encode(WINDOW),
        wrapped(SECRET, 64),
        wrapped(b"x" + SECRET, 76),
        json.dumps({"psk": wrapped(SECRET[:96], 64).decode()}).encode(),
        base64.b64encode(SECRET)[64:128],
    ],
    ids=[
        "raw",
        "hex",
        "HEX",
        "repr",
        "json",
        "shift 0",
        "shift 1",
        "shift 2",
        "urlsafe",
        "64",
        "76",
        "in json",
        "line",
    ],
)
def test_a_piece_is_found_in_every_form_and_place(form: bytes, before: int) -> None:
    assert SCANNER.find(NOISE.randbytes(before) + form + NOISE.randbytes(40)) == {"it"}


def test_every_window_of_every_form_is_found() -> None:
    for at in range(len(SECRET) - 32 + 1):
        for form in forms(SECRET[at : at + 32]):
            assert SCANNER.find(b"." * (at % 8) + form), at


def test_nothing_is_found_where_nothing_is() -> None:
    text = base64.b64encode(NOISE.randbytes(300_000)) + NOISE.randbytes(300_000)

    assert SCANNER.find(text + text.hex().encode()) == set()


@pytest.mark.parametrize("key_type", ["p256", "ed25519"])
def test_a_store_gives_away_its_secrets_to_the_scanner_and_nothing_public_is_among_them(
    tmp_path: Path, key_type: Literal["p256", "ed25519"]
) -> None:
    store = new_store(tmp_path)
    store.ensure(fleet="lab", key_type=key_type, gateways=["gw1"], sites=["site-0001", "site-0002"])
    scanner = scanner_of(store)
    key, gateway = store.site_key(site="site-0001"), store.gateway_key(name="gw1")

    assert set(scanner.pieces.values()) == {
        "the store's own key",
        "ca.key.vault",
        "server-tls-crypt-v2.vault",
        "gw1",
        "site-0001/1 key",
        "site-0001/1 psk",
        "site-0002/1 key",
        "site-0002/1 psk",
    }
    assert scanner.find(key.private_key.reveal().encode()) == {"site-0001/1 key"}
    # Any line of a PSK, and the line of a private key that holds most of it.
    for line in key.psk.reveal().splitlines()[1:-2]:
        assert scanner.find(line.encode()) == {"site-0001/1 psk"}
    assert scanner.find(gateway.server_key.reveal().encode()) == {"server-tls-crypt-v2.vault"}
    public = [path for path in store.path.rglob("*") if path.is_file()]
    assert len(public) > 12
    assert [path for path in public if scanner.find(path.read_bytes())] == []
    certificate = base64.b64decode("".join(key.certificate.splitlines()[1:-1]))
    assert scanner.find(certificate + key.certificate.encode() + key.ca.encode() + gateway.crl.encode()) == set()
    assert [len(one) for one in secrets_of(key.private_key.reveal())] == [32]
