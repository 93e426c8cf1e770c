# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thousand keys of every shape in front of one real openvpn server, and openvpn's keys in front of us.

Each key knocks as a client does. The server opens the sealed key, answers under the key it found inside, gets its
cookie back, hands the metadata to its verify script and begins TLS. What it could not open gets no answer at all.
"""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import os
import random
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates
from ansible_collections.spokewright.fleet.plugins.plugin_utils import tls_crypt_v2 as v2
from openvpn_wire import (
    CONTROL_V1,
    HARD_RESET_SERVER_V2,
    RESEND_WKC,
    TLS_SERVER_HELLO,
    Caller,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="an openvpn server opens a tun device, which needs root"),
    pytest.mark.timeout(120),
]

KEYS = 1000
CLIENTS = 100
OPENVPN_KEYS = 40


@dataclass
class Server:
    """A running openvpn server, and what its verify script was told."""

    port: int
    key: v2.ServerKey
    heard: Path
    log: Path
    addresses: Iterator[str]
    accepted: set[str] = field(default_factory=set)

    def caller(self, text: str) -> Caller:
        """A client with this key and an address nobody had before."""
        return Caller(key=text, port=self.port, address=next(self.addresses))

    def last_heard(self) -> tuple[int, bytes]:
        """Type and bytes of the metadata the script saw last."""
        kind, _, encoded = self.heard.read_text().splitlines()[-1].partition(" ")
        return int(kind), base64.b64decode(encoded)

    def accept(self, text: str) -> tuple[int, bytes]:
        """Go with a key as far as TLS; return the metadata the server found in it."""
        with self.caller(text) as caller:
            caller.knock()
            cookie = caller.hear(seconds=5)
            assert (cookie.opcode, cookie.acknowledges, cookie.payload) == (
                HARD_RESET_SERVER_V2,
                caller.session,
                RESEND_WKC,
            )
            caller.begin_tls(server_session=cookie.session)
            hello = caller.hear(seconds=5)
            assert (hello.opcode, hello.session) == (CONTROL_V1, cookie.session)
            assert hello.payload.startswith(TLS_SERVER_HELLO)
        self.accepted.add(v2.fingerprint(text=text))
        return self.last_heard()

    def refuses(self, text: str) -> bool:
        """Whether a key gets no answer, though the server is there and answers the next good one."""
        with self.caller(text) as stranger, self.caller(sealed(self.key, b"good")) as friend:
            stranger.knock()
            friend.knock()
            # The server takes packets in their order: when the friend is answered the stranger has had its turn.
            friend.hear(seconds=5)
            try:
                stranger.hear(seconds=0.02)
            except TimeoutError:
                return True
            return False


def sealed(server: v2.ServerKey, payload: bytes, *, kind: int = v2.TYPE_USER) -> str:
    return v2.wrap(server=server, secret=os.urandom(v2.KEY_BYTES), payload=payload, metadata_type=kind)


def sealed_beyond_the_limit(server: v2.ServerKey, payload: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setattr(v2, "PAYLOAD_MAX", 2000)
        return sealed(server, payload)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    here = tmp_path_factory.mktemp("server")
    now = dt.datetime.now(tz=dt.UTC)
    ca = certificates.make_ca(fleet="shapes", key_type="p256", now=now)
    own = certificates.issue_gateway(ca=ca, name="gw1", key_type="p256", now=now)
    key = v2.ServerKey.generate()
    for name, text in {
        "ca.pem": ca.certificate,
        "gw.pem": own.certificate,
        "gw.key": own.private_key,
        "v2.key": key.to_pem(),
    }.items():
        (here / name).write_text(text)
        (here / name).chmod(0o600)
    heard, log, script = here / "heard", here / "server.log", here / "verify.sh"
    script.write_text(
        f'#!/bin/sh\nprintf "%s %s\\n" "$metadata_type" "$(/usr/bin/base64 -w0 "$metadata_file")" >>{heard}\n'
    )
    script.chmod(0o700)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = f"""--mode server --tls-server --dh none --dev swkeys{os.getpid()} --dev-type tun --topology subnet
        --ifconfig-noexec --local 127.0.0.1 --port {port} --proto udp4
        --ca {here}/ca.pem --cert {here}/gw.pem --key {here}/gw.key --persist-key
        --tls-crypt-v2 {here}/v2.key force-cookie --tls-crypt-v2-verify {script} --script-security 2
        --connect-freq-initial 100000 10 --max-clients 4000 --hand-window 30 --keepalive 10 60 --verb 3"""
    with log.open("wb") as sink:
        process = subprocess.Popen(["openvpn", *words.split()], stdout=sink, stderr=sink)
    try:
        wait_until(log, "UDPv4 link local", process)
        # A server takes one client per address and port, and ports come round: so an address per key.
        addresses = (f"127.{a}.{b}.{c}" for a, b, c in itertools.product(range(16, 32), range(256), range(1, 255)))
        yield Server(port=port, key=key, heard=heard, log=log, addresses=addresses)
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_until(log: Path, text: str, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        said = log.read_text(errors="replace")
        if text in said:
            return said
        time.sleep(0.01)
    pytest.fail(f"no {text!r} in:\n{log.read_text(errors='replace')}")


# --- shapes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What is sealed into a key."""

    kind: int
    payload: bytes


def user(payload: bytes) -> Shape:
    return Shape(kind=v2.TYPE_USER, payload=payload)


def ours(*, site: str, kid: str, epoch: int, issued: int) -> Shape:
    return user(v2.Metadata(site=site, kid=kid, epoch=epoch, issued=issued).encode())


# Drawn by length first: left to itself a strategy prefers short names, small numbers and few bytes.
HEAD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SITES = st.integers(0, 63).flatmap(
    lambda rest: st.builds(str.__add__, st.sampled_from(HEAD), st.text(HEAD + "._-", min_size=rest, max_size=rest))
)
EPOCHS = st.integers(1, 10).flatmap(lambda digits: st.integers(10 ** (digits - 1), 10**digits - 1))
OURS = st.builds(
    ours,
    site=SITES,
    kid=st.integers(0, 2**64 - 1).map("{:016x}".format),
    epoch=EPOCHS,
    issued=st.integers(0, v2.ISSUED_MAX),
)
FREE = st.builds(
    lambda size, seed: user(random.Random(seed).randbytes(size)),  # noqa: S311 - a shape, no key
    st.integers(1, v2.PAYLOAD_MAX),
    st.integers(0, 2**32),
)
STAMPS = st.integers(0, 2**63 - 1).map(lambda at: Shape(kind=v2.TYPE_TIMESTAMP, payload=struct.pack("!Q", at)))
SHAPES = st.one_of(OURS, OURS, FREE, FREE, STAMPS)
KID = "0123456789abcdef"
OURS_START = base64.b64encode(b"v=1 site=").decode()


@settings(
    max_examples=KEYS,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    # The server is one for all shapes, on purpose.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(shape=ours(site="a", kid=KID, epoch=1, issued=0))
@example(shape=ours(site="Z" + "._-" * 21, kid=KID, epoch=v2.EPOCH_MAX, issued=v2.ISSUED_MAX))
@example(shape=user(b""))
@example(shape=user(b"\x00"))
@example(shape=user(b"\xff" * v2.PAYLOAD_MAX))
@example(shape=Shape(kind=v2.TYPE_TIMESTAMP, payload=bytes(8)))
@given(shape=SHAPES)
def test_openvpn_takes_a_key_of_any_shape_and_reads_what_was_sealed(server: Server, shape: Shape) -> None:
    text = sealed(server.key, shape.payload, kind=shape.kind)

    assert server.accept(text) == (shape.kind, shape.payload)

    opened = v2.unwrap(server=server.key, text=text)
    assert (opened.metadata_type, opened.payload) == (shape.kind, shape.payload)


def test_they_were_a_thousand_different_keys(server: Server) -> None:
    said = [line.partition(" ") for line in server.heard.read_text().splitlines()]
    sizes = {len(base64.b64decode(encoded)) for kind, _, encoded in said if kind == "0"}

    names = {base64.b64decode(encoded).split()[1] for _, _, encoded in said if encoded.startswith(OURS_START)}

    assert len(server.accepted) >= KEYS
    assert len({len(name) for name in names}) > 40
    assert {kind for kind, _, _ in said} == {"0", "1"}
    assert {0, 1, v2.PAYLOAD_MAX} <= sizes
    assert len(sizes) > 150
    assert server.log.read_text().count("TLS CRYPT V2 VERIFY SCRIPT OK") == len(said)


def test_a_changed_foreign_or_oversized_key_gets_no_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    good = bytearray(v2._unpem(name=v2.CLIENT_PEM, text=sealed(server.key, METADATA.encode())))
    # The two parts of the secret a client seals its packets with, then tag, sealed key, metadata and length.
    for at in (130, 200, v2.KEY_BYTES, v2.KEY_BYTES + 40, len(good) - 10, len(good) - 1):
        bad = bytearray(good)
        bad[at] ^= 1
        text = v2._pem(name=v2.CLIENT_PEM, raw=bytes(bad))
        with subtests.test(changed_byte=at):
            assert server.refuses(text)
            with pytest.raises((v2.TamperedKeyError, v2.TruncatedKeyError)):
                v2.unwrap(server=server.key, text=text)
    with subtests.test("cut"):
        assert server.refuses(v2._pem(name=v2.CLIENT_PEM, raw=bytes(good[:-5])))
    with subtests.test("foreign"):
        assert server.refuses(sealed(v2.ServerKey.generate(), METADATA.encode()))
    with subtests.test("oversized"):
        # One byte more than fits: we refuse to make it, and so does the server to open it.
        assert server.refuses(sealed_beyond_the_limit(server.key, bytes(v2.PAYLOAD_MAX + 1), monkeypatch))
        assert not server.refuses(sealed(server.key, bytes(v2.PAYLOAD_MAX)))


METADATA = v2.Metadata(site="site-0001", kid=KID, epoch=3, issued=1795445716)


def test_the_script_saying_no_means_no_answer_to_the_third_packet(server: Server) -> None:
    """So that an answer in the tests above cannot come from a server that does not look."""
    heard = server.heard
    kept = heard.with_name("kept")
    heard.rename(kept)
    heard.mkdir()  # the script cannot write there, and fails
    try:
        with server.caller(sealed(server.key, b"denied")) as caller:
            caller.knock()
            cookie = caller.hear(seconds=5)
            caller.begin_tls(server_session=cookie.session)
            with pytest.raises(TimeoutError):
                caller.hear(seconds=0.3)
    finally:
        heard.rmdir()
        kept.rename(heard)


def test_openvpn_as_a_client_loads_our_keys_and_hears_the_server_with_them(server: Server, tmp_path: Path) -> None:
    shapes = random.Random(3)  # noqa: S311 - shapes, no keys
    key, log = tmp_path / "client.key", tmp_path / "client.log"
    words = f"""--client --dev null --lport 40000 --remote 127.0.0.1 {server.port} udp4 --verb 4
        --ca {server.log.parent}/ca.pem --cert {server.log.parent}/gw.pem --key {server.log.parent}/gw.key
        --remote-cert-tls server --tls-crypt-v2 {key}"""
    for number in range(CLIENTS):
        size = (0, 1, v2.PAYLOAD_MAX)[number] if number < 3 else shapes.randint(2, v2.PAYLOAD_MAX)
        payload = shapes.randbytes(size)
        key.write_text(sealed(server.key, payload))
        key.chmod(0o600)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["openvpn", *words.split(), "--local", next(server.addresses)], stdout=sink, stderr=sink
            )
        try:
            said = wait_until(log, "TLS: Initial packet from", process)
        finally:
            process.terminate()
            process.wait(timeout=20)
        assert "tls-crypt-v2" not in "".join(line for line in said.splitlines() if "rror" in line or "WARN" in line)


# --- keys made by openvpn ------------------------------------------------------------------------------------------


def genkey(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openvpn", *words], check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server key made by openvpn."""
    path = tmp_path_factory.mktemp("theirs") / "server.key"
    assert genkey("--genkey", "tls-crypt-v2-server", path).returncode == 0
    return path


def test_keys_made_by_openvpn_are_opened_and_sealed_again_byte_for_byte(foreign: Path) -> None:
    server = v2.ServerKey.from_pem(foreign.read_text())
    shapes = random.Random(5)  # noqa: S311 - shapes, no keys
    sizes = [1, 2, 3, v2.PAYLOAD_MAX - 1, v2.PAYLOAD_MAX, *shapes.sample(range(4, v2.PAYLOAD_MAX), OPENVPN_KEYS - 5)]
    made = foreign.with_name("client.key")
    for size in sizes:
        payload = shapes.randbytes(size)
        done = genkey(
            "--tls-crypt-v2", foreign, "--genkey", "tls-crypt-v2-client", made, base64.b64encode(payload).decode()
        )
        assert done.returncode == 0, done.stdout
        opened = v2.unwrap(server=server, text=made.read_text())
        assert (opened.metadata_type, opened.payload) == (v2.TYPE_USER, payload)
        assert v2.wrap(server=server, secret=opened.secret, payload=payload) == made.read_text()
    assert server.to_pem() == foreign.read_text()


def test_a_key_of_openvpn_without_metadata_carries_its_time(foreign: Path) -> None:
    made, before = foreign.with_name("stamped.key"), int(time.time())
    assert genkey("--tls-crypt-v2", foreign, "--genkey", "tls-crypt-v2-client", made).returncode == 0
    opened = v2.unwrap(server=v2.ServerKey.from_pem(foreign.read_text()), text=made.read_text())

    assert opened.metadata_type == v2.TYPE_TIMESTAMP
    assert before <= struct.unpack("!Q", opened.payload)[0] <= time.time()


def test_openvpn_and_we_draw_the_same_line(foreign: Path) -> None:
    payload = bytes(v2.PAYLOAD_MAX + 1)
    made = foreign.with_name("oversized.key")
    done = genkey(
        "--tls-crypt-v2", foreign, "--genkey", "tls-crypt-v2-client", made, base64.b64encode(payload).decode()
    )

    assert done.returncode != 0
    assert "metadata too long" in done.stdout
    with pytest.raises(v2.OversizedKeyError):
        v2.wrap(server=v2.ServerKey.generate(), secret=bytes(v2.KEY_BYTES), payload=payload)


def test_a_key_openvpn_made_is_taken_by_the_server_as_ours_are(server: Server, tmp_path: Path) -> None:
    """The caller of these tests proves itself on a key that is none of ours."""
    (tmp_path / "server.key").write_text(server.key.to_pem())
    (tmp_path / "server.key").chmod(0o600)
    made = tmp_path / "client.key"
    payload = base64.b64encode(b"theirs").decode()
    done = genkey("--tls-crypt-v2", tmp_path / "server.key", "--genkey", "tls-crypt-v2-client", made, payload)
    assert done.returncode == 0

    assert server.accept(made.read_text()) == (v2.TYPE_USER, b"theirs")
