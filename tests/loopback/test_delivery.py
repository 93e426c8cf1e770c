# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delivery over a real sshd on loopback: pins, refusals, frozen links, full disks, and what must never be seen."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ansible_collections.spokewright.fleet.plugins.plugin_utils import bundle as bundles
from ansible_collections.spokewright.fleet.plugins.plugin_utils import delivery, host_keys
from ansible_collections.spokewright.fleet.plugins.plugin_utils import ssh_transport as ssh
from ansible_collections.spokewright.fleet.plugins.plugin_utils.fan_out import SiteResult, fan_out
from ansible_collections.spokewright.fleet.plugins.plugin_utils.hold import Hold
from delivery_support import Remote, free_port, keygen, relay, site_of, sshd
from key_support import new_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import SiteKey

QUICK = ssh.Timeouts(connect=2, banner=2, auth=4, command=4, deadline=8)
PATIENT = ssh.Timeouts(connect=8, banner=8, auth=8, command=8, deadline=16)


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Remote]:
    with sshd(tmp_path / "remote") as found:
        yield found


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SiteKey:
    store = new_store(tmp_path_factory.mktemp("keys"))
    store.ensure(fleet="lab", key_type="p256", gateways=["gw1"], sites=["site-0001"])
    return store.site_key(site="site-0001")


def do(remote: Remote, verb: str, key: SiteKey, *, timeouts: ssh.Timeouts = QUICK, **more: Any) -> SiteResult:
    bundle = bundles.build(site=site_of(), key=key)
    order = delivery.Order(target=remote.target, verb=verb, bundle=bundle, **more)
    return fan_out(sites=["site-0001"], work=lambda _: delivery.carry_out(order=order, timeouts=timeouts))["site-0001"]


def test_a_bundle_arrives_is_activated_and_confirmed_and_then_nothing_changes(remote: Remote, key: SiteKey) -> None:
    dry = do(remote, "stage", key, dry_run=True)
    assert (dry.ok, dry.changed) == (True, True)
    assert "would send bundle" in dry.message
    assert not (remote.root / "etc/spokewright").exists()
    for verb in ("stage", "activate", "confirm"):
        result = do(remote, verb, key)
        assert (result.ok, result.changed) == (True, True), result
    held = remote.root / "etc/spokewright/current"
    assert (held / "psk.key").read_text() == key.psk.reveal()
    assert (held / "site.key").stat().st_mode & 0o777 == 0o600
    for verb in ("stage", "activate", "confirm"):
        result = do(remote, verb, key)
        assert (result.ok, result.changed) == (True, False), result
    assert do(remote, "stage", key, dry_run=True).changed is False


def test_a_hold_over_ssh_leaves_a_program_on_the_site_that_can_end_it(remote: Remote, key: SiteKey) -> None:
    for verb in ("stage", "activate", "confirm"):
        assert do(remote, verb, key).ok
    hold = Hold(seconds=600, by="ann@desk", reason="a storm")
    # The service manager of a loopback login says that the client runs whatever it is told.
    held = do(remote, "hold", key, hold=hold)
    assert (held.ok, held.changed, held.receipt["held_by"]) == (True, True, "ann@desk"), held
    assert do(remote, "show", key).receipt["held"] > 590
    assert do(remote, "activate", key).reason == "held"
    program = remote.root / "etc/spokewright/state/hold.sh"
    (remote.root / "etc/spokewright/state/hold").write_text("1 5 boot 1\nann\nover\n")
    tools = {"SPOKEWRIGHT_ROOT": str(remote.root), "SPOKEWRIGHT_PATH": f"{remote.home}/bin:/usr/bin:/bin"}
    ended = subprocess.run(
        ["sh", program, "holder"], env=tools, check=False, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not program.exists()
    released = do(remote, "release", key)
    assert (released.ok, released.changed, released.message) == (True, False, "not held")


AS_ASKED = 'exec sh -c "$SSH_ORIGINAL_COMMAND"'


def test_a_login_that_reads_standard_input_is_told_as_such(tmp_path: Path, key: SiteKey) -> None:
    with sshd(tmp_path / "remote", more=f"ForceCommand read x; {AS_ASKED}\n") as remote:
        began = time.monotonic()
        shown = do(remote, "show", key, timeouts=PATIENT)
        assert time.monotonic() - began < PATIENT.command
        assert shown.reason == "incomplete"
        assert "does something in the login on this site read standard input?" in shown.message
        staged = do(remote, "stage", key)
        assert staged.reason == "timeout"
        assert "The agent said nothing: does something in the login on this site read" in staged.message


def test_a_login_that_leaves_half_a_line_does_not_hide_what_the_agent_asks_for(tmp_path: Path, key: SiteKey) -> None:
    with sshd(tmp_path / "remote", more=f"ForceCommand printf 'half a line'; {AS_ASKED}\n") as remote:
        for verb in ("stage", "stage", "activate", "confirm", "stage"):
            result = do(remote, verb, key, timeouts=PATIENT)
            assert result.ok, result


def test_a_dry_run_names_the_key_by_its_fingerprint(remote: Remote, key: SiteKey) -> None:
    facts = f"key epoch 1, PSK {key.public()['psk_fingerprint']}"
    assert facts in do(remote, "stage", key, dry_run=True).message


def test_a_changed_host_key_gets_nothing_and_both_fingerprints_are_named(remote: Remote, key: SiteKey) -> None:
    other = keygen(remote.home / "other")
    target = dataclasses.replace(remote.target, host_key=other)
    result = do(dataclasses.replace(remote, target=target), "stage", key)
    assert (result.ok, result.reason) == (False, "host-key-changed")
    assert host_keys.fingerprint_of(text=other) in result.message
    assert host_keys.fingerprint_of(text=remote.target.host_key) in result.message
    assert "Nothing was sent" in result.message
    assert "Accepted" not in (remote.home / "log").read_text()


def test_a_pinned_key_of_a_kind_the_host_no_longer_has(remote: Remote, key: SiteKey) -> None:
    target = dataclasses.replace(remote.target, host_key=keygen(remote.home / "rsa", "rsa"))
    result = do(dataclasses.replace(remote, target=target), "stage", key)
    assert (result.ok, result.reason) == (False, "host-key-changed")
    assert "has no ssh-rsa host key any more" in result.message


@pytest.mark.parametrize("pinned", ["", "nonsense", "ssh-ed25519 &&&"])
def test_without_a_pin_nothing_is_sent(remote: Remote, key: SiteKey, pinned: str) -> None:
    target = dataclasses.replace(remote.target, host_key=pinned)
    result = do(dataclasses.replace(remote, target=target), "stage", key)
    assert (result.ok, result.reason) == (False, "host-key-unknown")
    assert "tools/fleet hostkeys collect" in result.message


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_login_key_and_host_key_work(tmp_path: Path, key: SiteKey, kind: str) -> None:
    extra = tmp_path / "extra"
    pinned = keygen(extra, kind)
    with sshd(tmp_path / "remote", more=f"HostKey {extra}\n") as remote:
        keygen(remote.home / "mine", kind)
        shutil.copy(remote.home / "mine.pub", remote.home / "authorized")
        target = dataclasses.replace(remote.target, host_key=pinned, private_key_file=remote.home / "mine")
        assert do(dataclasses.replace(remote, target=target), "show", key).ok


def test_a_refused_login_names_user_and_key_file(remote: Remote, key: SiteKey) -> None:
    (remote.home / "authorized").write_text("")
    result = do(remote, "stage", key)
    assert (result.ok, result.reason) == (False, "auth-refused")
    assert f"refuses user root with the key {remote.home / 'login'}" in result.message


@pytest.mark.parametrize("text", [None, "no key at all"])
def test_a_login_key_that_cannot_be_used_says_so_without_quoting_it(
    remote: Remote, key: SiteKey, text: str | None
) -> None:
    path = remote.home / "bad"
    if text is not None:
        path.write_text(text)
    target = dataclasses.replace(remote.target, private_key_file=path)
    result = do(dataclasses.replace(remote, target=target), "show", key)
    assert (result.ok, result.reason) == (False, "no-login-key")
    assert str(path) in result.message
    assert "no key at all" not in result.message


def test_nobody_listening_is_unreachable_at_once(remote: Remote, key: SiteKey) -> None:
    target = dataclasses.replace(remote.target, port=free_port())
    result = do(dataclasses.replace(remote, target=target), "show", key)
    assert (result.ok, result.reason) == (False, "unreachable")
    assert "No sshd listens there" in result.message
    assert result.seconds < 6


@pytest.mark.parametrize("stop_after", [0, 1000, 3000, 16000, 26000, 40000])
def test_a_link_that_freezes_ends_by_the_deadline_and_the_next_run_finishes(
    remote: Remote, key: SiteKey, stop_after: int
) -> None:
    with relay(remote.target.port, stop_after=stop_after) as port:
        frozen = dataclasses.replace(remote, target=dataclasses.replace(remote.target, port=port))
        began = time.monotonic()
        result = do(frozen, "stage", key)
        assert (result.ok, result.reason) == (False, "timeout"), result
        assert time.monotonic() - began < QUICK.deadline + 2
    shown = do(remote, "show", key).receipt
    assert all(one["intact"] for one in shown["generations"])
    assert do(remote, "stage", key, timeouts=ssh.Timeouts()).ok


def test_a_server_that_says_nothing_is_a_timeout(remote: Remote, key: SiteKey) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        target = dataclasses.replace(remote.target, port=mute.getsockname()[1])
        result = do(dataclasses.replace(remote, target=target), "show", key)
    assert (result.ok, result.reason) == (False, "timeout")
    assert "no SSH server greets us" in result.message


def test_a_full_disk_is_named_and_leaves_no_half(tmp_path: Path, key: SiteKey) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80k", "none", str(disk)], check=True)
    try:
        with sshd(tmp_path / "remote", root=disk) as remote:
            (disk / "filler").write_bytes(b"x" * 57344)
            result = do(remote, "stage", key)
            assert (result.ok, result.reason) == (False, "no-space"), result
            assert "no space left below" in result.message
            assert list((disk / "etc/spokewright/generations").iterdir()) == []
            (disk / "filler").unlink()
            assert do(remote, "stage", key).ok
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("command", "reason"),
    [("echo hello", "no-receipt"), ("exit 3", "no-receipt"), ("yes", "closed"), ("sleep 60", "timeout")],
)
def test_a_login_that_runs_something_else_is_no_receipt(
    tmp_path: Path, key: SiteKey, command: str, reason: str
) -> None:
    with sshd(tmp_path / "remote", more=f"ForceCommand {command}\n") as remote:
        result = do(remote, "show", key)
    assert (result.ok, result.reason) == (False, reason), result


def test_noise_of_a_login_shell_does_not_hide_the_receipt(tmp_path: Path, key: SiteKey) -> None:
    noisy = 'printf "Last login: never"; echo oops >&2; eval "$SSH_ORIGINAL_COMMAND"; echo bye'
    with sshd(tmp_path / "remote", more=f"ForceCommand {noisy}\n") as remote:
        assert do(remote, "stage", key).ok


def test_bad_sites_do_not_delay_the_good_ones(remote: Remote) -> None:
    order = delivery.Order(target=remote.target, verb="show")
    with socket.create_server(("127.0.0.1", 0), backlog=64) as mute:
        bad = dataclasses.replace(order, target=dataclasses.replace(remote.target, port=mute.getsockname()[1]))
        orders = {f"bad-{n}": bad for n in range(4)} | {f"good-{n}": order for n in range(12)}
        arrived: list[str] = []
        results = fan_out(
            sites=list(orders),
            work=lambda name: dataclasses.replace(delivery.carry_out(order=orders[name], timeouts=PATIENT), site=name),
            workers=8,
            on_progress=lambda progress: arrived.append(progress.last.site),
        )
    assert [name for name, one in results.items() if not one.ok] == ["bad-0", "bad-1", "bad-2", "bad-3"]
    assert all(name.startswith("good") for name in arrived[:12])


def test_host_keys_are_collected_without_a_login(remote: Remote) -> None:
    unknown = dataclasses.replace(remote.target, name="new", host_key="")
    other = dataclasses.replace(remote.target, name="changed", host_key=keygen(remote.home / "other"))
    away = dataclasses.replace(remote.target, name="away", port=free_port())
    found = host_keys.collect(targets=[remote.target, unknown, other, away])
    assert {name: one.state for name, one in found.items()} == {
        "site-0001": "same",
        "new": "new",
        "changed": "changed",
        "away": "unreachable",
    }
    assert found["new"].shown == remote.target.host_key
    assert "Accepted" not in (remote.home / "log").read_text()


def test_no_key_byte_is_in_argv_results_or_logs(
    remote: Remote, key: SiteKey, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[bytes] = []
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            for process in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    seen.append((process / "cmdline").read_bytes())
            time.sleep(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    results = [do(remote, verb, key) for verb in ("show", "stage", "activate", "confirm", "show")]
    results.append(do(dataclasses.replace(remote, target=dataclasses.replace(remote.target, port=1)), "stage", key))
    watching.set()
    watcher.join()
    out, err = capfd.readouterr()
    everything = repr(results) + out + err + caplog.text + (remote.home / "log").read_text()
    everything += b"".join(seen).decode("utf-8", "replace")
    assert "SPOKEWRIGHT-RECEIPT" in everything
    for secret in (key.psk.reveal(), key.private_key.reveal()):
        for line in secret.splitlines()[1:-1]:
            assert line not in everything
    assert "Traceback" not in err
