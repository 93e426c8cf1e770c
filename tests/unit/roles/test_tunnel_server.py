# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The templates of tunnel_server as a gateway gets them: tried by openvpn, run by the shells there are."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import socket
import subprocess
import time
import typing as t
from pathlib import Path

import jinja2
import pytest
import yaml

from ansible_collections.spokewright.fleet.plugins.filter.tunnel_server import FilterModule
from ansible_collections.spokewright.fleet.plugins.plugin_utils import certificates, tls_crypt_v2
from ansible_collections.spokewright.fleet.plugins.plugin_utils.certificates import fingerprint
from ansible_collections.spokewright.fleet.plugins.plugin_utils.gateway_material import check_material
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore

ROLE = Path(__file__).parents[3] / "roles/tunnel_server"
GOOD = "v=1 site=site-0001 kid=0123456789abcdef epoch=3 issued=1795440000"
SHELLS = [
    pytest.param(
        words, marks=pytest.mark.skipif(not shutil.which(words[0]), reason=f"{words[0]} is not installed here")
    )
    for words in (["dash"], ["bash", "--posix"], ["busybox", "sh"])
]
needs_openvpn = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("openvpn"),
    reason="needs root and openvpn to start a configuration",
)


def render(name: str, directory: Path, **changed: t.Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        autoescape=False,  # noqa: S701 - as Ansible renders
    )
    environment.filters |= {f"spokewright.fleet.{name}": found for name, found in FilterModule().filters().items()}
    environment.filters |= {"comment": lambda text: f"# {text}", "quote": lambda text: f"'{text}'"}
    constants = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    variables = (
        constants
        | yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
        | {
            "ansible_managed": "Ansible managed",
            "tunnel_server_gateway_name": "gw1",
            "tunnel_server_network": "10.101.0.0/16",
            "tunnel_server_push_networks": ["10.200.0.0/24", "10.202.0.0/15"],
            "__instance": {"name": "tun0", "index": 5, "port": 1194, "device": "tun0"},
            "__limits": {"max_clients": 2048, "connect_freq_initial": 2048},
            "__material": str(directory / "material"),
            "__tunnel_server_cores": 4,
            "__tunnel_server_crl": str(directory / "crl.pem"),
            "__tunnel_server_denied_directory": str(directory / "denied"),
            "__tunnel_server_directory": str(directory),
            "__tunnel_server_drop_in": "spokewright.conf",
            "__tunnel_server_helpers": str(directory),
            "__tunnel_server_openvpn": {"series": "2.6"},
            "__wait": "2.5",
        }
    )
    return environment.get_template(name).render(variables | changed)


def script(name: str, directory: Path, **changed: t.Any) -> Path:
    path = directory / name.removesuffix(".j2")
    path.write_text(render(name, directory, **changed), encoding="utf-8")
    path.chmod(0o755)
    return path


def verify(shell: list[str], directory: Path, payload: str, kind: str = "0", **changed: t.Any) -> tuple[int, str]:
    metadata = directory / "metadata"
    metadata.write_text(payload, encoding="ascii")
    program = script("tunnel-verify.j2", directory, **changed)
    # No PATH, as OpenVPN calls it: whatever is no builtin would not be found.
    done = subprocess.run(
        [shutil.which(shell[0]) or shell[0], *shell[1:], str(program)],
        env={"metadata_type": kind, "metadata_file": str(metadata), "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("end", ["", "\n"])
def test_a_good_key_is_admitted_without_a_word(shell: list[str], end: str, tmp_path: Path) -> None:
    (tmp_path / "denied").mkdir()
    assert verify(shell, tmp_path, GOOD + end) == (0, "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("", "the metadata is empty"),
        ("v=2 site=a kid=0123456789abcdef epoch=1 issued=1", "the metadata's version is not understood"),
        ("v=1 kid=0123456789abcdef epoch=1 issued=1", "the site's id is not understood"),
        ("v=1 site=a epoch=1 issued=1", "the key id is not understood"),
        ("v=1 site=a kid=../../../etc/pwd epoch=1", "the key id is not understood"),
        ("v=1 site=a kid=0123456789abcde epoch=1", "the key id is not understood"),
        ("v=1 site=a kid=0123456789abcdef0 epoch=1", "the key id is not understood"),
        ("v=1 site=a kid=0123456789ABCDEF epoch=1", "the key id is not understood"),
        ("v=1 site=a kid=0123456789abcdef epoch=x", "the epoch is not understood"),
        ("v=1 site=a kid=0123456789abcdef epoch=99999999999999999999", "the epoch is not understood"),
        ("v=1 site=$(reboot) kid=0123456789abcdef epoch=1", "the site's id is not understood"),
        ("v=1 site=* kid=* epoch=*", "the site's id is not understood"),
        ('{"site": "a", "kid": "0123456789abcdef"}', "is not understood"),
    ],
)
def test_what_is_not_understood_is_refused(shell: list[str], payload: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "denied").mkdir()
    code, said = verify(shell, tmp_path, payload)
    assert (code, why in said) == (1, True), said
    assert "$(" not in said


@pytest.mark.parametrize("shell", SHELLS)
def test_a_denied_key_an_old_epoch_and_a_timestamp_key_are_refused(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "denied").mkdir()
    assert "the key carries no metadata of ours" in verify(shell, tmp_path, "12345678", kind="1")[1]
    assert verify(shell, tmp_path, GOOD, tunnel_server_minimum_epoch=3)[0] == 0
    assert "older than epoch 4" in verify(shell, tmp_path, GOOD, tunnel_server_minimum_epoch=4)[1]
    (tmp_path / "denied/0123456789abcdef").touch()
    assert verify(shell, tmp_path, GOOD) == (
        1,
        "tunnel-verify: refused site=site-0001 kid=0123456789abcdef epoch=3: the key is on the list of refused keys\n",
    )


@pytest.mark.parametrize("shell", SHELLS)
def test_without_its_list_it_refuses_everything(shell: list[str], tmp_path: Path) -> None:
    assert "so no key can be told to be good" in verify(shell, tmp_path, GOOD)[1]


def make_store(path: Path, gateways: t.Sequence[str] = ()) -> KeyStore:
    store = KeyStore(path=path, key=path.with_name(f"{path.name}.key"))
    store.ensure(fleet="lab", key_type="p256", gateways=gateways, sites=[])
    return store


@pytest.fixture
def gateway(tmp_path: Path) -> Path:
    store = make_store(tmp_path / "store", gateways=["gw1", "gw2"])
    material = check_material(key=store.gateway_key(name="gw1"), store=store.path)
    (tmp_path / "tun0/ccd").mkdir(parents=True)
    (tmp_path / "material").mkdir()
    for file in material.keys:
        (tmp_path / "material" / file.name).write_bytes(file.data())
    (tmp_path / "crl.pem").write_bytes(material.crl.data())
    (tmp_path / "tunnel-verify").touch(mode=0o755)
    return tmp_path


def trial(directory: Path, text: str) -> subprocess.CompletedProcess[str]:
    candidate = directory / "candidate.conf"
    candidate.write_text(text, encoding="utf-8")
    program = script("tunnel-trial.j2", directory)
    return subprocess.run(["sh", str(program), str(candidate)], capture_output=True, text=True, check=False, timeout=30)


@needs_openvpn
def test_the_configuration_passes_its_trial(gateway: Path) -> None:
    done = trial(gateway, render("instance.conf.j2", gateway))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_openvpn
@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("dh none", "dh none\nifconfig-pool-linear", "Unrecognized option"),
        ("gateway.key", "tls-crypt-v2.key", "Cannot load private key"),
        ("tls-crypt-v2.key force", "ca.crt force", "tls-crypt-v2"),
        ("data-ciphers AES-256-GCM", "data-ciphers NONSENSE", "Unsupported cipher"),
        ("/tun0/ccd", "/tun9/ccd", "No such file or directory"),
    ],
)
def test_a_broken_configuration_fails_its_trial_with_openvpn_s_words(
    gateway: Path, old: str, new: str, word: str
) -> None:
    text = render("instance.conf.j2", gateway)
    assert old in text
    done = trial(gateway, text.replace(old, new))
    assert done.returncode == 1
    assert "what runs was left as it is" in done.stderr
    assert word in done.stderr


@needs_openvpn
def test_a_trial_leaves_nothing_behind(gateway: Path) -> None:
    links = sorted(path.name for path in Path("/sys/class/net").iterdir())
    trial(gateway, render("instance.conf.j2", gateway))
    assert sorted(path.name for path in Path("/sys/class/net").iterdir()) == links
    running = subprocess.run(["pgrep", "-f", str(gateway)], capture_output=True, text=True, check=False)
    assert running.stdout == ""


def authority(tmp_path: Path, *options: str) -> tuple[int, str]:
    """The role's look at the CA of a gateway whose directory is tmp_path/server, and what it said."""
    variables = {
        "__tunnel_server_directory": str(tmp_path / "server"),
        "tunnel_server_key_store": str(tmp_path / "store"),
        "tunnel_server_gateway_name": "gw1",
    }
    role = {"name": "spokewright.fleet.tunnel_server", "tasks_from": "authority"}
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [{"ansible.builtin.include_role": role}]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]), encoding="utf-8")
    (tmp_path / "vars.yml").write_text(yaml.safe_dump(variables), encoding="utf-8")
    done = subprocess.run(
        [
            *("ansible-playbook", "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml")),
            *("-e", f"@{tmp_path / 'vars.yml'}", *options),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROLE.parents[1],
    )
    assert "changed=0" in done.stdout, done.stdout + done.stderr
    return done.returncode, " ".join(done.stdout.split())


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_a_gateway_is_not_given_the_keys_of_another_store_without_consent(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    store, server = tmp_path / "store", tmp_path / "server"
    make_store(store)
    assert authority(tmp_path, *options)[0] == 0, "nothing is installed yet"

    (server / "material/old").mkdir(parents=True)
    installed = server / "material/old/ca.crt"
    shutil.copy(store / "ca.pem", installed)
    (server / "tun0.conf").write_text(f"dev tun0\nca {installed}\n", encoding="ascii")
    assert authority(tmp_path, *options)[0] == 0, "the same"

    shutil.rmtree(store)
    code, said = authority(tmp_path, *options)
    assert (code, "CA of the key store: none, it holds no CA yet" in said) == (2, True), said

    make_store(store)
    code, said = authority(tmp_path, *options)
    assert code == 2, said
    for path in (installed, store / "ca.pem"):
        assert fingerprint(certificate=path.read_text()) in said
    assert f"the key store at {store} is not the one this gateway was built with" in said
    assert authority(tmp_path, *options, "-e", "tunnel_server_new_ca=false")[0] == 2
    assert authority(tmp_path, *options, "-e", "tunnel_server_new_ca=true")[0] == 0


def test_each_version_gets_what_it_needs(tmp_path: Path) -> None:
    old = render("instance.conf.j2", tmp_path).splitlines()
    new = render("instance.conf.j2", tmp_path, __tunnel_server_openvpn={"series": "2.7"}).splitlines()
    assert {"persist-key", "disable-dco", "multihome"} <= set(old)
    assert {"persist-key", "disable-dco", "multihome"}.isdisjoint(new)
    assert "multihome same-interface" in new


def test_the_traps_are_stepped_around(tmp_path: Path) -> None:
    lines = render("instance.conf.j2", tmp_path).splitlines()
    options = {line.split()[0]: line for line in lines if line and not line.startswith("#")}
    assert options["server"] == "server 10.101.0.0 255.255.0.0 nopool"
    assert options["tls-crypt-v2"].endswith(" force-cookie")
    assert options["connect-freq-initial"] == "connect-freq-initial 2048 10"
    assert {"ccd-exclusive", "ifconfig-noexec", "route-noexec", "persist-tun", "crl-verify"} <= set(options)
    assert {"local", "duplicate-cn", "comp-lzo", "ifconfig-pool-persist", "connect-freq", "route"}.isdisjoint(options)
    assert 'push "route 10.202.0.0 255.254.0.0"' in lines


def test_a_further_site_changes_no_daemon_s_configuration(tmp_path: Path) -> None:
    names = (ROLE / "templates/instance.conf.j2").read_text(encoding="utf-8")
    assert "tunnel_server_sites" not in names
    assert "denied_keys" not in names
    assert "blocks" not in names
    assert render("instance.conf.j2", tmp_path) == render("instance.conf.j2", tmp_path, tunnel_server_sites=[1, 2])


@pytest.mark.parametrize(("size", "lines"), [(1250, []), (576, ["max-packet-size 576"])])
def test_handshake_packets_are_made_to_fit_only_where_the_transport_is_small(
    tmp_path: Path, size: int, lines: list[str]
) -> None:
    rendered = render("instance.conf.j2", tmp_path, tunnel_server_control_packet=size)
    assert [line for line in rendered.splitlines() if line.startswith("max-packet-size")] == lines


@pytest.mark.parametrize("series", ["2.6", "2.7"])
def test_the_configuration_of_each_series_is_this_one(series: str) -> None:
    """Only 2.6 can be installed where the tests run, so 2.7's is compared with one that was read line by line."""
    rendered = render("instance.conf.j2", Path("/etc/openvpn/server"), __tunnel_server_openvpn={"series": series})
    golden = Path(__file__).with_name("golden") / f"instance-{series}.conf"
    if os.environ.get("SPOKEWRIGHT_WRITE_GOLDEN"):
        golden.write_text(rendered, encoding="utf-8")
    assert rendered == golden.read_text(encoding="utf-8"), "if that is meant: SPOKEWRIGHT_WRITE_GOLDEN=1"


def test_instances_share_the_processors_and_do_not_all_start_at_once_at_boot(tmp_path: Path) -> None:
    lines = render("drop-in.conf.j2", tmp_path).splitlines()
    assert {"CPUAffinity=1", "Restart=always", "StartLimitIntervalSec=0", "LimitNPROC=infinity"} <= set(lines)
    (wait,) = [line for line in lines if "sleep" in line]
    assert wait == "ExecStartPre=/bin/sh -c '[ -e %t/openvpn-server/%i.started ] || exec sleep 2.5'"
    record = next(line for line in lines if "sha256sum" in line)
    assert lines.index(wait) < lines.index(record), "the record ends the waiting of later starts"
    assert "sleep" not in render("drop-in.conf.j2", tmp_path, __wait="0.0")


def site_client(directory: Path, port: int) -> subprocess.CompletedProcess[str]:
    """A site connects; its process ends with 0 when it got as far as its address, and within 6 s."""
    words = f"""openvpn --client --dev null --ifconfig-noexec --route-noexec --nobind --remote 127.0.0.1 {port} udp4
        --ca {directory}/material/ca.crt --cert {directory}/site.crt --key {directory}/site.key --tls-crypt-v2
        {directory}/psk.key --remote-cert-tls server --script-security 2 --route-up {directory}/end --verb 3"""
    return subprocess.run(
        ["timeout", "--preserve-status", "6", *words.split()], capture_output=True, text=True, check=False, timeout=20
    )


@needs_openvpn
@pytest.mark.timeout(90)
def test_a_site_that_was_revoked_meanwhile_is_refused_by_the_daemon_that_runs(gateway: Path) -> None:
    now = dt.datetime.now(tz=dt.UTC)
    ca = certificates.make_ca(fleet="lab", key_type="p256", now=now)
    own = certificates.issue_gateway(ca=ca, name="gw1", key_type="p256", now=now)
    site = certificates.issue_site(ca=ca, site="site-0001", key_type="p256", now=now)
    server_key = tls_crypt_v2.ServerKey.generate()
    metadata = tls_crypt_v2.Metadata(site="site-0001", kid="0123456789abcdef", epoch=1, issued=1795440000)
    for name, text in {
        "material/ca.crt": ca.certificate,
        "material/gateway.crt": own.certificate,
        "material/gateway.key": own.private_key,
        "material/tls-crypt-v2.key": server_key.to_pem(),
        "crl.pem": certificates.make_crl(ca=ca, revoked=[], now=now),
        "site.crt": site.certificate,
        "site.key": site.private_key,
        "psk.key": tls_crypt_v2.generate_client_key(server=server_key, metadata=metadata),
    }.items():
        (gateway / name).touch(mode=0o600)
        (gateway / name).write_text(text, encoding="ascii")
    (gateway / "end").write_text("#!/bin/sh\nkill $PPID\n", encoding="ascii")
    (gateway / "end").chmod(0o755)
    (gateway / "denied").mkdir()
    script("tunnel-verify.j2", gateway)
    (gateway / "tun0/ccd/site-0001").write_text("ifconfig-push 10.101.0.16 255.255.0.0\n", encoding="ascii")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    instance = {"name": "tun0", "index": 0, "port": port, "device": f"swcrl{os.getpid()}"}
    (gateway / "tun0.conf").write_text(render("instance.conf.j2", gateway, __instance=instance), encoding="utf-8")
    log = gateway / "log"
    words = ["openvpn", "--config", str(gateway / "tun0.conf"), "--status", str(gateway / "status"), "--log", str(log)]
    daemon = subprocess.Popen([*words, "--management", str(gateway / "sock"), "unix"])
    try:
        end = time.monotonic() + 20
        while "Initialization Sequence Completed" not in (log.read_text() if log.exists() else ""):
            assert daemon.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        first = site_client(gateway, port)
        assert "Initialization Sequence Completed" in first.stdout or "10.101.0.16" in first.stdout, first.stdout

        number = certificates.serial(certificate=site.certificate)
        revoked = certificates.make_crl(ca=ca, revoked=[number], now=now, number=2)
        (gateway / "crl.new").write_text(revoked, encoding="ascii")
        (gateway / "crl.new").replace(gateway / "crl.pem")

        second = site_client(gateway, port)
        assert "10.101.0.16" not in second.stdout, second.stdout
        assert "certificate revoked" in log.read_text()
        assert daemon.poll() is None, "and it is the same daemon"
    finally:
        daemon.kill()
        daemon.wait()


def test_sessions_are_limited_only_when_somebody_asks_for_it(tmp_path: Path) -> None:
    assert "connect-freq " not in render("instance.conf.j2", tmp_path)
    assert "\nconnect-freq 256 1\n" in render("instance.conf.j2", tmp_path, tunnel_server_connect_freq=256)
