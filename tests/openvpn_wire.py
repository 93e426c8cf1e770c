# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first packets of an OpenVPN handshake, so that a key can be held against a real server in milliseconds.

It shares no code with the key engine it is to prove: the layout is that of OpenVPN's doc/tls-crypt-v2.txt.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HARD_RESET_CLIENT_V3 = 10
HARD_RESET_SERVER_V2 = 8
CONTROL_V1 = 4
CONTROL_WKC_V1 = 11
EARLY_NEGOTIATION = 0x0F000001
RESEND_WKC = b"\x00\x01\x00\x02\x00\x01"
TLS_SERVER_HELLO = b"\x16\x03\x03"
HEADER = 17
TAG = 32


def client_hello() -> bytes:
    """What a TLS client says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reads, writes = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(reads, writes).do_handshake()
    except ssl.SSLWantReadError:
        return writes.read()
    raise AssertionError("a handshake cannot end without a server")


@dataclass(frozen=True)
class Packet:
    """One answer of the server, opened with the client's key."""

    opcode: int
    session: bytes
    acknowledges: bytes
    payload: bytes


class Caller:
    """A client with one key and an address of its own, for a server takes one client per address and port."""

    def __init__(self, *, key: str, port: int, address: str) -> None:
        raw = base64.b64decode("".join(line for line in key.splitlines() if not line.startswith("-")))
        self.secret, self.sealed = raw[:256], raw[256:]
        self.session = os.urandom(8)
        self.sent = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.connect(("127.0.0.1", port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def knock(self) -> None:
        """P_CONTROL_HARD_RESET_CLIENT_V3."""
        self._send(opcode=HARD_RESET_CLIENT_V3, plain=b"\x00" + struct.pack("!I", 0))

    def begin_tls(self, *, server_session: bytes) -> None:
        """P_CONTROL_WKC_V1: the server's cookie back, the sealed key again and the first words of TLS."""
        acknowledged = b"\x01" + struct.pack("!I", 0) + server_session
        self._send(opcode=CONTROL_WKC_V1, plain=acknowledged + struct.pack("!I", 1) + client_hello())

    def hear(self, *, seconds: float) -> Packet:
        """The next answer, proven to come from a holder of this key; TimeoutError when there is none."""
        self.socket.settimeout(seconds)
        data = self.socket.recv(4096)
        header, tag, sealed = data[:HEADER], data[HEADER : HEADER + TAG], data[HEADER + TAG :]
        plain = _ctr(key=self.secret[0:32], tag=tag, data=sealed)
        wanted = hmac.new(self.secret[64:96], header + plain, hashlib.sha256).digest()
        assert hmac.compare_digest(wanted, tag), "the answer was not sealed with this client's key"
        count = plain[0]
        ids_end = 1 + 4 * count
        body = ids_end + (8 if count else 0)
        return Packet(
            opcode=header[0] >> 3,
            session=header[1:9],
            acknowledges=plain[ids_end:body],
            payload=plain[body + 4 :],
        )

    def _send(self, *, opcode: int, plain: bytes) -> None:
        header = bytes([opcode << 3]) + self.session
        header += struct.pack("!II", EARLY_NEGOTIATION + self.sent, int(time.time()))
        tag = hmac.new(self.secret[192:224], header + plain, hashlib.sha256).digest()
        self.sent += 1
        self.socket.send(header + tag + _ctr(key=self.secret[128:160], tag=tag, data=plain) + self.sealed)


def _ctr(*, key: bytes, tag: bytes, data: bytes) -> bytes:
    context = Cipher(algorithms.AES(key), modes.CTR(tag[:16])).encryptor()
    return context.update(data) + context.finalize()
