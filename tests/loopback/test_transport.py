# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The transports over real sshds on loopback: conversations, retries, the bastion, the old hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import paramiko
import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import host_keys, ssh_bastion
from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_transport as ssh
from ansible_collections.spokewright.fleet.plugins.plugin_utils.ansible_ssh import connection_variables
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult, fan_out
from ansible_collections.spokewright.fleet.plugins.plugin_utils.plan import Bastion
from delivery_support import Remote, free_port, keygen, relay, sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = ssh.Timeouts(connect=2, banner=2, auth=4, command=4, deadline=8)


@pytest.fixture(autouse=True)
def no_shared_connections() -> Iterator[None]:
    yield
    ssh.close_ways()


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with sshd(tmp_path / "remote") as found:
        yield found


def speaking(remote: Remote, client: ssh.Client) -> Remote:
    return dataclasses.replace(remote, target=dataclasses.replace(remote.target, client=client))


def log(remote: Remote) -> str:
    return (remote.home / "log").read_text()


def refusals(remote: Remote, *, at_least: int) -> int:
    """How many logins the sshd refused; it writes that down a moment later."""
    end = time.monotonic() + 5
    while (found := log(remote).count("Connection closed by authenticating user")) < at_least:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return found


def ask(target: ssh.Target, *, timeouts: ssh.Timeouts = QUICK, command: str = "echo hello") -> SiteResult:
    def work(site: str) -> SiteResult:
        answer = ssh.exchange(target=target, command=command, timeouts=timeouts)
        return SiteResult(site=site, ok=answer.exit_status == 0, message=answer.stdout.decode())

    return fan_out(sites=[target.name], work=work)[target.name]


def ask_all(
    targets: list[ssh.Target],
    *,
    workers: int = 32,
    command: str = "echo hello",
    timeouts: ssh.Timeouts | None = None,
    on_progress: Callable[..., None] | None = None,
) -> dict[str, SiteResult]:
    by_name = {target.name: target for target in targets}

    def work(site: str) -> SiteResult:
        answer = ssh.exchange(target=by_name[site], command=command, timeouts=timeouts)
        return SiteResult(site=site, ok=answer.exit_status == 0, message=answer.stdout.decode())

    return fan_out(sites=list(by_name), work=work, workers=workers, on_progress=on_progress)


def named(target: ssh.Target, count: int, name: str = "site") -> list[ssh.Target]:
    """The same sshd under many names."""
    return [dataclasses.replace(target, name=f"{name}-{number:04d}") for number in range(count)]


# --- conversations -------------------------------------------------------------------------------------------------

CLIENTS: list[ssh.Client] = ["paramiko", "openssh"]
ASK = "read greeting; echo \"heard $greeting\"; echo noise; echo WANT; printf 'half a line' ; exec cat"


def converse(target: ssh.Target, answer: bytes | None) -> tuple[ssh.Answer, list[bytes]]:
    heard: list[bytes] = []

    def wanted(line: bytes) -> bytes | None:
        heard.append(line)
        return answer if line == b"WANT" else None

    with ssh.open_session(target=target, timeouts=QUICK) as session:
        return session.converse(command=ASK, stdin=b"hello\n", wanted=wanted), heard


@pytest.mark.parametrize("client", CLIENTS)
def test_a_command_that_asks_is_sent_what_it_wants_once(remote: Remote, client: ssh.Client) -> None:
    remote = speaking(remote, client)
    payload = b"x" * 300_000
    answer, heard = converse(remote.target, payload)
    assert answer.exit_status == 0
    assert answer.stdout == b"heard hello\nnoise\nWANT\nhalf a line" + payload
    assert heard == [b"heard hello", b"noise", b"WANT"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_command_that_need_not_be_sent_anything_sees_the_end(remote: Remote, client: ssh.Client) -> None:
    remote = speaking(remote, client)
    answer, _heard = converse(remote.target, b"")
    assert (answer.exit_status, answer.stdout) == (0, b"heard hello\nnoise\nWANT\nhalf a line")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_command_that_never_asks_ends_at_its_own_end(remote: Remote, client: ssh.Client) -> None:
    remote = speaking(remote, client)
    with ssh.open_session(target=remote.target, timeouts=QUICK) as session:
        answer = session.converse(command="echo no; exit 7", stdin=b"unread" * 1000, wanted=lambda _line: None)
    assert (answer.exit_status, answer.stdout) == (7, b"no\n")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("stop_after", [4000, 6000, 40_000])
def test_a_link_that_freezes_in_a_conversation_ends_by_the_deadline(
    remote: Remote, stop_after: int, client: ssh.Client
) -> None:
    remote = speaking(remote, client)
    with relay(remote.target.port, stop_after=stop_after) as port:
        began = time.monotonic()
        with pytest.raises(ssh.SshTimeoutError):
            converse(dataclasses.replace(remote.target, port=port), b"x" * 300_000)
    assert time.monotonic() - began < QUICK.deadline + 2


def test_a_wait_of_paramiko_that_has_no_end_of_its_own_ends(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the link freezes just before the host says that it takes the command."""

    def wait(channel: paramiko.Channel, _command: str) -> None:
        channel._event_pending()  # type: ignore[attr-defined]
        channel._wait_for_event()  # type: ignore[attr-defined]

    monkeypatch.setattr(paramiko.Channel, "exec_command", wait)
    began = time.monotonic()
    result = ask(remote.target, timeouts=dataclasses.replace(QUICK, command=1))
    assert (result.ok, result.reason) == (False, "timeout")
    assert time.monotonic() - began < 4


# --- retries -------------------------------------------------------------------------------------------------------


def test_more_logins_at_once_than_the_host_takes_succeed_in_the_end(tmp_path: Path) -> None:
    with sshd(tmp_path / "remote", more="MaxStartups 2:100:2\n") as remote:
        results = ask_all(named(remote.target, 8), workers=8)
        assert [one.message for one in results.values() if not one.ok] == []
        assert "drop connection" in log(remote) or "MaxStartups" in log(remote)


def test_a_host_that_comes_back_in_a_moment_is_no_failure(remote: Remote) -> None:
    """The first two logins are cut off before the greeting, the third one gets through."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _number in range(2):
            listener.accept()[0].close()
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", remote.target.port))
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    target = dataclasses.replace(remote.target, port=listener.getsockname()[1])
    assert ask(target).ok
    listener.close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(4096):
            sink.sendall(chunk)


def test_a_command_that_was_cut_off_is_not_run_again(remote: Remote) -> None:
    mark = remote.home / "runs"
    result = ask(remote.target, command=f"echo run >> {mark}; kill -9 $PPID; sleep 1")
    assert (result.ok, result.reason) == (False, "closed")
    assert "ended in the middle" in result.message
    assert mark.read_text() == "run\n"


def test_a_refused_login_and_a_changed_key_are_tried_once(remote: Remote) -> None:
    changed = dataclasses.replace(remote.target, host_key=keygen(remote.home / "other"))
    assert ask(changed).reason == "host-key-changed"
    (remote.home / "authorized").write_text("")
    assert ask(remote.target).reason == "auth-refused"
    assert refusals(remote, at_least=1) == 1


def test_a_wrong_login_key_is_refused_a_few_times_and_then_nobody_is_asked(tmp_path: Path) -> None:
    with sshd(tmp_path / "remote", more="MaxStartups 100\n") as remote:
        (remote.home / "authorized").write_text("")
        results = ask_all(named(remote.target, 60))
        reasons = [one.reason for one in results.values()]
        tried = reasons.count("auth-refused")
        assert 5 <= tried <= 5 + 8
        assert reasons.count("not-tried") == 60 - tried
        assert refusals(remote, at_least=tried) == tried


# --- bastion -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Behind:
    """A bastion's sshd, and a site's sshd that takes logins from the bastion's address only."""

    bastion: Remote
    site: Remote
    way: Bastion

    @property
    def target(self) -> ssh.Target:
        return dataclasses.replace(self.site.target, bastion=self.way)


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    with sshd(tmp_path / "bastion") as bastion, sshd(tmp_path / "site") as site:
        target = bastion.target
        way = Bastion(
            address=target.address,
            port=target.port,
            user=target.user,
            host_key=target.host_key,
            private_key_file=target.private_key_file,
            channels=4,
        )
        yield Behind(bastion=bastion, site=site, way=way)


def logins(remote: Remote) -> int:
    return log(remote).count("Accepted publickey")


def test_a_site_is_reached_through_the_bastion(behind: Behind) -> None:
    answer = ssh.exchange(target=behind.target, command="echo $SSH_CONNECTION", timeouts=QUICK)
    assert answer.exit_status == 0
    client_port = int(answer.stdout.split()[1])
    assert logins(behind.bastion) == 1
    assert logins(behind.site) == 1
    # The controller has no connection to the site: the port the site saw was opened by the bastion.
    assert f"port {client_port}" in log(behind.site)
    assert f"port {client_port}" not in log(behind.bastion)
    assert f"port {behind.site.target.port}" not in log(behind.site).split("Accepted")[1].splitlines()[0]


def test_many_sites_share_one_connection_and_never_more_channels_than_it_bears(behind: Behind) -> None:
    file = behind.site.home / "at-work"
    way = dataclasses.replace(behind.way, channels=2)
    targets = [dataclasses.replace(one, bastion=way) for one in named(behind.target, 10)]
    results = ask_all(targets, command=f"echo + >>{file}; sleep 0.5; echo - >>{file}; echo hello")
    assert [one.message for one in results.values() if not one.ok] == []
    assert logins(behind.bastion) == 1
    assert logins(behind.site) == 10
    at_once = list(itertools.accumulate(1 if line == "+" else -1 for line in file.read_text().split()))
    assert max(at_once) == 2


def test_waiting_for_a_channel_counts_against_the_sites_time(behind: Behind) -> None:
    target = dataclasses.replace(behind.target, bastion=dataclasses.replace(behind.way, channels=1))
    with ssh.open_session(target=target):
        began = time.monotonic()
        late = ask(dataclasses.replace(target, name="late"), timeouts=dataclasses.replace(QUICK, deadline=2))
    assert (late.ok, late.reason) == (False, "timeout")
    assert "did not get one of 1 channels through the bastion 127.0.0.1:" in late.message
    assert time.monotonic() - began < 4
    assert ask(target).ok


def test_a_bastion_with_another_key_gets_nothing(behind: Behind) -> None:
    other = keygen(behind.bastion.home / "other")
    target = dataclasses.replace(behind.target, bastion=dataclasses.replace(behind.way, host_key=other))
    result = ask(target)
    assert (result.ok, result.reason) == (False, "bastion-key-changed")
    assert result.message.startswith(
        f"site-0001: no way through the bastion: 127.0.0.1:{behind.way.port} shows host key"
    )
    assert host_keys.fingerprint_of(text=other) in result.message
    assert host_keys.fingerprint_of(text=behind.way.host_key) in result.message
    assert "Accepted" not in log(behind.bastion)
    assert "Accepted" not in log(behind.site)


def test_a_bastion_that_refuses_us_is_asked_once_for_all_sites(behind: Behind) -> None:
    (behind.bastion.home / "authorized").write_text("")
    results = ask_all(named(behind.target, 40))
    assert {one.reason for one in results.values()} == {"bastion-refused"}
    assert "no way through the bastion: 127.0.0.1:" in results["site-0039"].message
    assert "refuses user root with the key" in results["site-0039"].message
    assert refusals(behind.bastion, at_least=1) == 1


def test_a_bastion_that_does_not_forward_says_so(tmp_path: Path, behind: Behind) -> None:
    with sshd(tmp_path / "strict", more="AllowTcpForwarding no\n") as strict:
        target = strict.target
        way = dataclasses.replace(
            behind.way, port=target.port, host_key=target.host_key, private_key_file=target.private_key_file
        )
        result = ask(dataclasses.replace(behind.target, bastion=way))
    assert (result.ok, result.reason) == (False, "bastion-refused")
    assert "does not forward to 127.0.0.1:" in result.message
    assert "AllowTcpForwarding and PermitOpen" in result.message


@pytest.mark.parametrize("client", CLIENTS)
def test_a_login_that_may_forward_and_nothing_else_is_enough(
    tmp_path: Path, behind: Behind, client: ssh.Client
) -> None:
    """What the how-to tells to write into the bastion's sshd_config."""
    more = "AllowTcpForwarding local\nPermitTTY no\nForceCommand /bin/false\n"
    with sshd(tmp_path / "narrow", more=f"{more}PermitOpen *:{behind.site.target.port}\n") as narrow:
        target = narrow.target
        way = dataclasses.replace(
            behind.way, port=target.port, host_key=target.host_key, private_key_file=target.private_key_file
        )
        allowed = dataclasses.replace(behind.target, bastion=way, client=client)
        assert ask(allowed).ok
        other = ask(dataclasses.replace(allowed, port=free_port()))
    assert other.reason == "bastion-refused"


def test_a_bastion_that_is_off_is_one_verdict_for_all(behind: Behind) -> None:
    way = dataclasses.replace(behind.way, port=free_port())
    began = time.monotonic()
    results = ask_all([dataclasses.replace(one, bastion=way) for one in named(behind.target, 40)])
    assert time.monotonic() - began < 8
    assert {one.reason for one in results.values()} == {"bastion-unreachable"}
    assert f"no way through the bastion: 127.0.0.1:{way.port} cannot be reached" in results["site-0007"].message


def test_a_site_that_is_off_behind_the_bastion_is_not_the_bastions_fault(behind: Behind) -> None:
    result = ask(dataclasses.replace(behind.target, port=free_port()))
    assert (result.ok, result.reason) == (False, "unreachable")
    assert f"cannot be reached from the bastion 127.0.0.1:{behind.way.port}" in result.message


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found] + [below for child in found for below in children(int(child))]


def test_a_bastion_that_dies_in_the_middle_is_connected_anew(behind: Behind) -> None:
    with ssh.open_session(target=behind.target, timeouts=QUICK) as session:
        assert session.run(command="true").exit_status == 0
        for child in children(behind.bastion.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        with pytest.raises(ssh.ClosedError, match="ended in the middle"):
            session.run(command="true")
    assert ask(behind.target).ok
    assert logins(behind.bastion) == 2


def test_a_bastion_dying_under_many_sites_costs_only_those_at_work(behind: Behind) -> None:
    killed = threading.Event()

    def kill(_progress: object) -> None:
        if not killed.is_set():
            killed.set()
            for child in children(behind.bastion.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    results = ask_all(named(behind.target, 24), command="sleep 0.05; echo hello", on_progress=kill)
    lost = [one for one in results.values() if not one.ok]
    assert len(lost) <= 4
    assert {one.reason for one in lost} <= {"closed"}
    assert logins(behind.bastion) == 2


def test_a_bastion_with_few_startups_serves_all(tmp_path: Path, behind: Behind) -> None:
    with sshd(tmp_path / "narrow", more="MaxStartups 2:100:2\n") as narrow:
        target = narrow.target
        way = dataclasses.replace(
            behind.way, port=target.port, host_key=target.host_key, private_key_file=target.private_key_file
        )
        results = ask_all([dataclasses.replace(one, bastion=way) for one in named(behind.target, 16)])
        assert [one.message for one in results.values() if not one.ok] == []


def test_a_frozen_bastion_holds_nobody_beyond_their_time(behind: Behind) -> None:
    assert ask(behind.target).ok
    frozen = children(behind.bastion.pid)
    for child in frozen:
        os.kill(child, signal.SIGSTOP)
    try:
        began = time.monotonic()
        results = ask_all(named(behind.target, 6), timeouts=QUICK)
        assert time.monotonic() - began < 3 * QUICK.deadline
        assert not any(one.ok for one in results.values())
    finally:
        for child in frozen:
            os.kill(child, signal.SIGCONT)


def test_one_bad_site_behind_the_bastion_delays_nobody(behind: Behind) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        bad = dataclasses.replace(behind.target, name="bad", port=mute.getsockname()[1])
        arrived: list[str] = []
        ask_all([bad, *named(behind.target, 12)], timeouts=QUICK, on_progress=lambda one: arrived.append(one.last.site))
    assert arrived[-1] == "bad"


def test_a_forked_process_makes_its_own_connection_and_leaves_its_parents_alone(behind: Behind) -> None:
    """Ansible forks for each task."""
    assert ask(behind.target).ok
    child = os.fork()
    if child == 0:
        ok = False
        with contextlib.suppress(BaseException):
            ok = ask(behind.target).ok
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ask(behind.target).ok
    assert logins(behind.bastion) == 2


def test_nothing_is_left_of_a_way_that_was_closed(behind: Behind) -> None:
    assert ask(behind.target).ok
    ssh.close_ways()
    assert ssh_bastion._WAYS == {}


# --- old hosts, and the OpenSSH client -----------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Remote]:
    """A host as they were made in 2010: SHA-1 wherever one looks."""
    pinned = keygen(tmp_path / "rsa", "rsa")
    more = (
        f"HostKey {tmp_path}/rsa\nKexAlgorithms diffie-hellman-group14-sha1\nHostKeyAlgorithms ssh-rsa\n"
        "Ciphers aes128-cbc\nMACs hmac-sha1\nPubkeyAcceptedAlgorithms +ssh-rsa\n"
    )
    with sshd(tmp_path / "old", more=more) as found:
        keygen(found.home / "mine", "rsa")
        (found.home / "authorized").write_text((found.home / "mine.pub").read_text())
        target = dataclasses.replace(found.target, host_key=pinned, private_key_file=found.home / "mine")
        yield dataclasses.replace(found, target=target)


@pytest.mark.skipif(int(paramiko.__version__.split(".")[0]) < 5, reason="this paramiko still speaks SHA-1")
def test_an_old_host_is_told_from_a_changed_one_and_the_message_names_the_way_out(old: Remote) -> None:
    result = ask(old.target)
    assert (result.ok, result.reason) == (False, "old-algorithms")
    assert "offers only old algorithms" in result.message
    assert "diffie-hellman-group14-sha1" in result.message
    assert "Write oob_client=openssh into its options in the registry" in result.message


@pytest.mark.skipif(int(paramiko.__version__.split(".")[0]) < 5, reason="this paramiko still speaks SHA-1")
def test_a_host_that_signs_with_sha1_only_is_old_and_not_changed(tmp_path: Path) -> None:
    pinned = keygen(tmp_path / "rsa", "rsa")
    with sshd(tmp_path / "old", more=f"HostKey {tmp_path}/rsa\nHostKeyAlgorithms ssh-rsa\n") as found:
        result = ask(dataclasses.replace(found.target, host_key=pinned))
    assert (result.ok, result.reason) == (False, "old-algorithms")
    assert "(host key: ssh-rsa)" in result.message


def test_the_openssh_client_talks_to_an_old_host(old: Remote) -> None:
    answer, _heard = converse(dataclasses.replace(old.target, client="openssh"), b"bundle")
    assert answer.exit_status == 0
    assert answer.stdout.endswith(b"bundle")


def test_the_openssh_client_talks_to_an_old_host_behind_a_bastion(old: Remote, behind: Behind) -> None:
    target = dataclasses.replace(old.target, client="openssh", bastion=behind.way)
    answer, _heard = converse(target, b"bundle")
    assert answer.stdout.endswith(b"bundle")
    assert logins(behind.bastion) == 1


def test_the_openssh_client_fails_with_the_reasons_every_transport_has(remote: Remote, tmp_path: Path) -> None:
    target = dataclasses.replace(remote.target, client="openssh")
    other, rsa = keygen(tmp_path / "other"), keygen(tmp_path / "rsa", "rsa")

    changed = ask(dataclasses.replace(target, host_key=other))
    assert changed.reason == "host-key-changed"
    assert host_keys.fingerprint_of(text=other) in changed.message
    assert host_keys.fingerprint_of(text=target.host_key) in changed.message
    lost = ask(dataclasses.replace(target, host_key=rsa))
    assert lost.reason == "host-key-changed"
    assert "has no ssh-rsa host key any more" in lost.message
    assert ask(dataclasses.replace(target, host_key="")).reason == "host-key-unknown"
    assert ask(dataclasses.replace(target, private_key_file=tmp_path / "none")).reason == "no-login-key"
    assert "Accepted" not in log(remote)

    away = ask(dataclasses.replace(target, port=free_port()))
    assert away.reason == "unreachable"
    assert "No sshd listens there" in away.message
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = ask(dataclasses.replace(target, port=mute.getsockname()[1]))
    assert silent.reason == "timeout", silent
    assert ask(target, command="sleep 60").reason == "timeout"
    cut = ask(target, command=f"echo run >> {remote.home}/runs; kill -9 $PPID; sleep 1")
    assert cut.reason == "closed"
    assert (remote.home / "runs").read_text() == "run\n"
    assert ask(target, command="yes").reason == "closed"

    (remote.home / "authorized").write_text("")
    refused = ask(target)
    assert refused.reason == "auth-refused"
    assert f"refuses user root with the key {target.private_key_file}" in refused.message


def test_an_exit_status_of_255_is_the_commands_own(remote: Remote) -> None:
    answer = ssh.exchange(target=dataclasses.replace(remote.target, client="openssh"), command="echo out; exit 255")
    assert (answer.exit_status, answer.stdout) == (255, b"out\n")


def test_the_openssh_client_names_what_is_wrong_with_the_bastion(behind: Behind, tmp_path: Path) -> None:
    target = dataclasses.replace(behind.target, client="openssh")

    def over(**changes: object) -> SiteResult:
        return ask(dataclasses.replace(target, bastion=dataclasses.replace(behind.way, **changes)))  # type: ignore[arg-type]

    changed = over(host_key=keygen(tmp_path / "other"))
    assert changed.reason == "bastion-key-changed"
    assert f"no way through the bastion: 127.0.0.1:{behind.way.port} shows host key SHA256:" in changed.message
    assert over(port=free_port()).reason == "bastion-unreachable"
    assert over(private_key_file=behind.site.home / "login").reason == "bastion-refused"
    off = ask(dataclasses.replace(target, port=free_port()))
    assert off.reason == "unreachable"
    assert f"cannot be reached from the bastion 127.0.0.1:{behind.way.port}" in off.message
    with sshd(tmp_path / "strict", more="AllowTcpForwarding no\n") as strict:
        closed = over(
            port=strict.target.port,
            host_key=strict.target.host_key,
            private_key_file=strict.target.private_key_file,
        )
    assert closed.reason == "bastion-refused"
    assert "does not forward to 127.0.0.1:" in closed.message


def test_nothing_of_the_openssh_client_is_left(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    target = dataclasses.replace(remote.target, client="openssh")
    assert ask(target, command="sleep 60").reason == "timeout"
    assert ask(target).ok
    assert list((tmp_path / "temporary").iterdir()) == []
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(remote.target.port).encode() in one and one.startswith(b"ssh\0") for one in commands)


# --- host keys -----------------------------------------------------------------------------------------------------


def test_host_keys_are_collected_through_the_bastion(behind: Behind) -> None:
    new = dataclasses.replace(behind.target, host_key="")
    found = host_keys.collect(targets=[new])["site-0001"]
    assert (found.state, found.shown) == ("new", behind.target.host_key)
    assert "Accepted" not in log(behind.site)
    unpinned = dataclasses.replace(new, bastion=dataclasses.replace(behind.way, host_key=""))
    first = host_keys.collect(targets=[unpinned])["site-0001"]
    assert first.state == "unreachable"
    assert "no way through the bastion: no host key is pinned" in first.message


def test_the_host_key_of_an_old_host_is_collected_with_the_openssh_client(old: Remote, behind: Behind) -> None:
    target = dataclasses.replace(old.target, client="openssh", host_key="", bastion=behind.way)
    away = dataclasses.replace(target, name="away", port=free_port(), bastion=None)
    # Newer kinds come first, and this host has an old one only.
    (old.home / "authorized").write_text("")
    found = host_keys.collect(targets=[target, away, dataclasses.replace(old.target, name="pinned", client="openssh")])
    assert (found["site-0001"].state, found["site-0001"].shown) == ("new", old.target.host_key)
    assert found["pinned"].state == "same"
    assert found["away"].state == "unreachable"
    assert "No sshd listens there" in found["away"].message


# --- Ansible's own ssh ---------------------------------------------------------------------------------------------


def ansible_ssh(target: ssh.Target) -> subprocess.CompletedProcess[str]:
    variables = connection_variables(target=target)
    words = shlex.split(variables["ansible_ssh_common_args"])
    login = ["-i", variables["ansible_ssh_private_key_file"], "-l", variables["ansible_user"]]
    where = ["-p", str(variables["ansible_port"]), variables["ansible_host"]]
    return subprocess.run(
        ["ssh", "-F", "none", "-o", "BatchMode=yes", *words, *login, *where, "echo $SSH_CONNECTION"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_ansibles_ssh_goes_through_the_bastion_with_both_pins(behind: Behind, tmp_path: Path) -> None:
    done = ansible_ssh(behind.target)
    assert done.returncode == 0, done.stderr
    assert logins(behind.bastion) == 1
    for changed in (
        dataclasses.replace(behind.target, host_key=keygen(tmp_path / "a")),
        dataclasses.replace(behind.target, bastion=dataclasses.replace(behind.way, host_key=keygen(tmp_path / "b"))),
    ):
        refused = ansible_ssh(changed)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
    assert logins(behind.site) == 1


def test_ansibles_ssh_reaches_an_old_host(old: Remote, behind: Behind) -> None:
    done = ansible_ssh(dataclasses.replace(old.target, client="openssh", bastion=behind.way))
    assert done.returncode == 0, done.stderr
