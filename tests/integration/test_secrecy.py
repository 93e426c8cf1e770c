# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole fleet is built, keyed and broken at -vvv while everything that could show a key is watched: nowhere is one.

The same watch then looks at a run that leaks on purpose, once in each place, and finds every leak.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml

from ansible_collections.spokewright.fleet.plugins.plugin_utils import vault_format
from ansible_collections.spokewright.fleet.plugins.plugin_utils.key_store import KeyStore
from integration.labtools import INVENTORY, PLAN, PLAYBOOK, ROOT, forget_fleet, lab
from key_scanner import Scanner, scanner_of
from key_watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SITES: Final = 4
STORE: Final = INVENTORY / "keystore"
STORE_KEY: Final = INVENTORY / "keystore.key"
DISKS: Final = Path("/run/spokewright-lab/disks")
STATE: Final = Path("/run/spokewright-lab/state.json")

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root"),
    pytest.mark.timeout(900),
]

# Where a key belongs on a host; there, its owner alone may read it.
HOMES: Final = {"site": "/etc/spokewright/", "gw": "/etc/openvpn/server/material/"}

# Makes the key code fail with a key in its hands: while a bundle is packed, or with a vault just opened.
BREAKER: Final = """
import os, tarfile

how = os.environ.get("SECRECY_FAILS")

def fail(self, *args, **kwargs):
    if how == "abort":
        os.abort()
    raise RuntimeError("failed on purpose")

if how in ("pack", "abort"):
    tarfile.TarInfo.tobuf = fail
if how == "open":
    from ansible.parsing.vault import VaultLib

    opens = VaultLib.decrypt

    def opened_and_failed(self, *args, **kwargs):
        plain = opens(self, *args, **kwargs)
        fail(plain)

    VaultLib.decrypt = opened_and_failed
"""

TRACES: Final = [
    {
        "hosts": "gw1",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Open the vault of a gateway",
                "spokewright.fleet.gateway_keys": {
                    "key_store": str(STORE),
                    "key_store_key": str(STORE_KEY),
                    "gateway": "gw1",
                    "directory": "/etc/openvpn/server/material",
                    "crl": "/etc/openvpn/server/crl.pem",
                },
                "ignore_errors": True,
            },
            {
                "name": "Open the vaults of the sites",
                "spokewright.fleet.site_psk_info": {"plan": str(PLAN), "verify": True},
                "ignore_errors": True,
            },
        ],
    }
]


@dataclass
class Scene:
    """One watched stretch of work, and what it left behind."""

    home: Path
    watch: Watch
    outputs: dict[str, bytes] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    found: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Everything Ansible can be told to write down, below `home`."""
        for name in ("tmp", "junit", "tree", "facts"):
            (self.home / name).mkdir(exist_ok=True)
        return {
            **os.environ,
            "ANSIBLE_LOG_PATH": str(self.home / "ansible.log"),
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.junit,ansible.builtin.tree",
            "JUNIT_OUTPUT_DIR": str(self.home / "junit"),
            "ANSIBLE_CALLBACK_TREE_DIR": str(self.home / "tree"),
            "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(self.home / "facts"),
            "ANSIBLE_HOME": str(self.home / "ansible"),
            "TMPDIR": str(self.home / "tmp"),
            "PYTHONPATH": str(self.home),
            "PYTHONFAULTHANDLER": "1",
            "ANSIBLE_DISPLAY_TRACEBACK": "always",
        }

    def do(self, name: str, *command: str | Path, fails: str = "", seconds: float = 400) -> int:
        """Run a command and keep all it says."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=ROOT,
            env=self.environment | {"SECRECY_FAILS": fails},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            # A crash may write the memory of the process to a file, as on many workstations.
            preexec_fn=lambda: resource.setrlimit(
                resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            ),
        )
        self.outputs[name], self.statuses[name] = done.stdout, done.returncode
        return done.returncode

    def play(self, name: str, playbook: str | Path, *options: str, fails: str = "") -> int:
        """Run a playbook as loudly as an operator does who looks for a fault."""
        return self.do(name, PLAYBOOK, "-i", PLAN, ROOT / playbook, "-vvv", "--diff", *options, fails=fails)

    def fleet(self, name: str, *words: str, fails: str = "") -> int:
        """tools/fleet."""
        return self.do(name, ROOT / "tools" / "fleet", *words, "-i", PLAN, fails=fails)


Look = list[tuple[str, bytes]]


def looks(scene: Scene) -> dict[str, Look]:
    """Everything that was shown to anybody, by the kind of place."""
    written = [(one, f"{one.host}:{one.path} {one.mode:04o}") for one in scene.watch.files]
    return {
        "output": list(scene.outputs.items()),
        "log": files_in(scene.home / "ansible.log"),
        "junit": files_in(scene.home / "junit"),
        "tree": files_in(scene.home / "tree"),
        "facts": files_in(scene.home / "facts"),
        "temporary files that stayed": files_in(scene.home / "tmp") + files_in(scene.home / "ansible"),
        **{
            kind: [(f"pid {pid}", text) for (what, text), pid in scene.watch.processes.items() if what == kind]
            for kind in ("cmdline", "environ")
        },
        "files written here": [
            (where, one.content) for one, where in written if one.host == "controller" and not belongs_here(one.path)
        ],
        "files written on hosts": [
            (where, one.content)
            for one, where in written
            if one.host != "controller" and not (one.private and belongs(host=one.host, path=one.path))
        ],
        "disks of hosts": [look for host in hosts() for look in disk_of(host)],
        "journals of hosts": [(host, journal_of(host)) for host in hosts()],
        "key store": files_in(STORE),
        "git": files_of_git(),
        "reports": files_in(INVENTORY / "reports"),
    }


def findings(scene: Scene, scanner: Scanner) -> dict[str, dict[str, set[str]]]:
    """For each kind of place: where in it which secrets are."""
    return {
        place: {where: secrets for where, content in look if (secrets := scanner.find(content))}
        for place, look in looks(scene).items()
    }


def files_in(path: Path) -> Look:
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    return [(str(one), one.read_bytes()) for one in files if not one.is_symlink()]


def files_of_git() -> Look:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.split(b"\0")
    paths = [ROOT / os.fsdecode(name) for name in set(listed) if name]
    return [(str(path), path.read_bytes()) for path in paths if path.is_file() and not path.is_symlink()]


def hosts() -> list[str]:
    return ["gw1", "gw2", *(f"site-{number:04d}" for number in range(1, SITES + 1))]


def inside(host: str) -> Path:
    """A host's file system as its own processes see it."""
    init = json.loads(STATE.read_text())["hosts"][host]["init"]["pid"]
    return Path(f"/proc/{init}/root")


def belongs_here(path: str) -> bool:
    """The one secret in the clear on the controller: the store's own key, while it is made."""
    return path.removesuffix(" (deleted)").startswith((str(STORE_KEY), str(STORE_KEY.with_name(f".{STORE_KEY.name}."))))


def belongs(*, host: str, path: str) -> bool:
    """Whether a path on a host, seen from here or from there, is where that kind of host keeps its keys."""
    return any(host.startswith(kind) and home in path for kind, home in HOMES.items())


def disk_of(host: str) -> Look:
    """What has changed on a host's disk and in its memory file systems, but for keys in their places."""
    found: Look = []
    for top in (DISKS / host / "upper", *(inside(host) / name for name in ("tmp", "run", "dev/shm"))):
        for path in top.rglob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            private = not path.stat().st_mode & 0o077
            if not (private and belongs(host=host, path=str(path))):
                found.append((f"{host}:{path}", path.read_bytes()))
    return found


def journal_of(host: str) -> bytes:
    done = subprocess.run(
        [ROOT / "tools" / "lab", "run", host, "--", "journalctl", "--no-pager", "--all", "--output=verbose"],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout


def watch_of_everything() -> Watch:
    own = [Path("/"), Path("/run"), Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), ROOT, Path.home()]
    places: dict[str, list[Path]] = {"controller": own}
    for host in hosts():
        places[host] = [DISKS / host / "root", *(inside(host) / name for name in ("tmp", "run", "dev/shm"))]
    return Watch(places=places)


# --- what is watched -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def empty_fleet() -> Iterator[None]:
    """Hosts as new and no key made: the first keys are made under the watch."""
    forget_everything()
    up = lab("up", "--sites", str(SITES))
    assert up.status == 0, up.output
    # The last site is served by the other SSH client, whose processes and files are its own.
    registry = INVENTORY / "sites.csv"
    registry.write_text(registry.read_text().rstrip("\n") + "oob_client=openssh\n")
    yield
    if os.environ.get("SPOKEWRIGHT_KEEP_LAB") is None:
        forget_everything()


def forget_everything() -> None:
    forget_fleet()
    STORE_KEY.unlink(missing_ok=True)
    shutil.rmtree(INVENTORY / "reports", ignore_errors=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, empty_fleet: None) -> Scene:  # noqa: ARG001 - the lab is up
    """From no key at all to a running fleet, new keys for a site, every look an operator can take, and crashes."""
    home = tmp_path_factory.mktemp("work")
    (home / "sitecustomize.py").write_text(BREAKER)
    with watch_of_everything() as watch:
        scene = Scene(home=home, watch=watch)
        assert scene.play("site", "playbooks/site.yml") == 0, scene.outputs["site"].decode()[-3000:]
        assert scene.fleet("regenerate", "key", "regenerate", "site-0002", "--reason", "secrecy test", "--yes") == 0
        scene.play("check", "playbooks/distribute_keys.yml", "--check")
        assert scene.play("distribute", "playbooks/distribute_keys.yml") == 0
        scene.fleet("keys", "keys", "--all")
        scene.fleet("show", "key", "show", "site-0001")
        scene.fleet("ledger", "ledger", "show")
        scene.fleet("check store", "keystore", "check")
        scene.fleet("status", "key", "status", "--all")
        # New keys have to travel, so that each crash below has a key in its hands.
        assert scene.fleet("again", "key", "regenerate", "site-0001", "site-0003", "--reason", "crash", "--yes") == 0
        (home / "traces.yml").write_text(yaml.safe_dump(TRACES))
        scene.play("traces", home / "traces.yml", fails="open")
        scene.play("crash", "playbooks/distribute_keys.yml", fails="pack")
        scene.play("abort", "playbooks/distribute_keys.yml", fails="abort")
        scene.fleet("abort by hand", "key", "stage", "site-0001", fails="abort")
        with damaged_store():
            scene.play("damaged", "playbooks/distribute_keys.yml")
            for number in range(1, SITES + 1):
                scene.fleet(f"damaged {number}", "key", "show", f"site-{number:04d}")
            scene.fleet("damaged store", "keystore", "check")
    return scene


class damaged_store:  # noqa: N801 - used as a function
    """Each site's newest key is broken in another way, so that every parser meets half a key; then all is as before."""

    def __enter__(self) -> None:
        self.kept = {path: path.read_bytes() for path in STORE.rglob("*") if path.is_file()}
        store = KeyStore(path=STORE, key=STORE_KEY)
        own = store.key.read()
        harms: dict[str, Callable[[str], str]] = {
            "site-0002": lambda text: text[: len(text) * 2 // 3],
            "site-0003": lambda text: text.replace("\\n-----END", "A\\n-----END"),
            "site-0004": lambda text: text.replace("\\n", "\\n!", 4),
        }
        for site, harm in harms.items():
            path = STORE / "sites" / site / f"{max(store.epochs(site=site))}.vault"
            plain = vault_format.decrypt(text=path.read_text(), secret=own)
            path.write_text(vault_format.encrypt(text=harm(plain), secret=own))
        path = STORE / "sites" / "site-0001" / f"{max(store.epochs(site='site-0001'))}.vault"
        path.write_text(path.read_text()[:-40] + "00" * 20)

    def __exit__(self, *_: object) -> None:
        for path, content in self.kept.items():
            path.write_bytes(content)


@pytest.fixture(scope="module")
def scanner(work: Scene) -> Scanner:  # noqa: ARG001 - it has made the keys
    return scanner_of(KeyStore(path=STORE, key=STORE_KEY))


@pytest.fixture(scope="module")
def found(work: Scene, scanner: Scanner) -> dict[str, dict[str, set[str]]]:
    return findings(work, scanner)


PLACES: Final = (
    "output",
    "log",
    "junit",
    "tree",
    "facts",
    "temporary files that stayed",
    "cmdline",
    "environ",
    "files written here",
    "files written on hosts",
    "disks of hosts",
    "journals of hosts",
    "key store",
    "git",
    "reports",
)


@pytest.mark.parametrize("place", PLACES)
def test_no_key_is_in(place: str, found: dict[str, dict[str, set[str]]]) -> None:
    assert found[place] == {}


def test_there_was_something_to_look_at_in_every_place(work: Scene) -> None:
    seen = looks(work)

    assert set(seen) == set(PLACES)
    empty = {place for place in PLACES if not any(content for _, content in seen[place])}
    # Our playbooks gather no facts, and leave no temporary files.
    assert empty <= {"facts", "temporary files that stayed"}
    assert b"PLAY RECAP" in work.outputs["site"]
    assert len((work.home / "ansible.log").read_bytes()) > 100_000
    words = [text for (what, text) in work.watch.processes if what == "cmdline"]
    assert any(b"distribute_keys.yml" in text for text in words), "the controller's processes"
    assert any(b"/etc/spokewright/current" in text for text in words), "the sites' processes"
    assert any(b"198.18.1.4" in text and text.startswith(b"ssh\0") for text in words), "the OpenSSH client"
    assert any(b"gateway.crt" in text for text in words), "the command that brings a gateway its keys"
    assert {one.host for one in work.watch.files} >= {"controller", *hosts()}


def test_every_look_had_its_answer(work: Scene) -> None:
    looked = ("site", "regenerate", "check", "distribute", "keys", "show", "ledger", "check store", "status", "again")

    assert {name: work.statuses[name] for name in looked} == dict.fromkeys(looked, 0)


def test_no_crash_left_the_memory_of_a_process_behind() -> None:
    assert [path.name for path in (*ROOT.glob("core"), *ROOT.glob("core.[0-9]*"))] == []


def test_the_watch_saw_the_keys_where_they_belong(work: Scene, scanner: Scanner) -> None:
    """Were it blind on a host, it would find nothing there either."""
    at_home = {
        (one.host, secret)
        for one in work.watch.files
        if one.private and belongs(host=one.host, path=one.path)
        for secret in scanner.find(one.content)
    }

    for number in range(1, SITES + 1):
        site = f"site-{number:04d}"
        assert {(site, f"{site}/1 key"), (site, f"{site}/1 psk")} <= at_home
    assert ("site-0002", "site-0002/2 psk") in at_home
    for gateway in ("gw1", "gw2"):
        assert {(gateway, gateway), (gateway, "server-tls-crypt-v2.vault")} <= at_home
    strangers = {(host, secret) for host, secret in at_home if host.startswith("site") and not secret.startswith(host)}
    assert strangers == set()


def test_it_really_crashed_in_the_key_code(work: Scene) -> None:
    names = ("traces", "crash", "abort by hand", "damaged")
    traces, crash, abort, damaged = (work.outputs[name].decode() for name in names)

    assert traces.count("RuntimeError: failed on purpose") >= 2, traces[-3000:]
    assert "vault_format.py" in traces
    assert "unexpected RuntimeError" in crash
    assert "Fatal Python error: Aborted" in abort
    assert "bundle.py" in abort
    assert [name for name in ("crash", "abort", "damaged") if work.statuses[name] == 0] == []
    assert "Restore it from the backup" in damaged
    assert [name for name in ("damaged 1", "damaged 2", "damaged 3", "damaged 4") if work.statuses[name] == 0] == []


# --- the watch is not blind ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leaks(work: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A play that lets a key out in each place. Each place gets another key, so that none stands in for another."""
    del work  # it comes first
    home = tmp_path_factory.mktemp("leaks")
    store = KeyStore(path=STORE, key=STORE_KEY)
    own = store.key.read()

    def line(text: str) -> str:
        return text.splitlines()[4]

    psks = [line(store.site_key(site=f"site-{number:04d}", epoch=1).psk.reveal()) for number in range(1, SITES + 1)]
    server_pem = vault_format.decrypt(text=(STORE / "server-tls-crypt-v2.vault").read_text(), secret=own)
    server = server_pem.splitlines()[1]
    second = line(store.site_key(site="site-0002", epoch=2).psk.reveal())
    gone = 'umask 077; t=$(mktemp); cat >"$t"; rm "$t"'
    tasks = [
        {"name": "Printed", "ansible.builtin.debug": {"msg": psks[0]}},
        {"name": "Kept as a fact", "ansible.builtin.set_fact": {"leak": psks[1], "cacheable": True}},
        {
            "name": "In the arguments of a short process",
            "ansible.builtin.command": {"argv": ["sh", "-c", "sleep 0.1; :", psks[2]]},
            "delegate_to": "localhost",
        },
        {
            "name": "In an environment",
            "ansible.builtin.command": {"argv": ["sleep", "0.1"]},
            "environment": {"LEAK": psks[3]},
            "delegate_to": "localhost",
        },
        {
            "name": "In a temporary file that is gone at once",
            "ansible.builtin.command": {"argv": ["sh", "-c", gone], "stdin": second},
            "delegate_to": "localhost",
        },
        {
            "name": "In a file on a gateway that others can read",
            "ansible.builtin.copy": {"content": server, "dest": "/var/tmp/leak", "mode": "0644"},
        },
        {"name": "In a journal", "ansible.builtin.command": {"argv": ["logger", psks[0]]}},
    ]
    (home / "leaks.yml").write_text(yaml.safe_dump([{"hosts": "gw1", "gather_facts": False, "tasks": tasks}]))
    plain = STORE / "sites" / "planted.txt"
    untracked = ROOT / "tests" / f"planted-{os.getpid()}.txt"
    report = INVENTORY / "reports" / "planted.txt"
    left = home / "tmp" / "left"
    with watch_of_everything() as watch:
        scene = Scene(home=home, watch=watch)
        assert scene.environment
        assert scene.play("leaks", home / "leaks.yml") == 0, scene.outputs["leaks"].decode()[-2000:]
        # A process that lives for some milliseconds.
        subprocess.run(["sleep", "0.01", psks[2]], check=False, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
    for path in (plain, untracked, report, left):
        path.write_text(psks[0])
    try:
        scene.found = findings(scene, scanner_of(store))
    finally:
        for path in (plain, untracked, report):
            path.unlink()
    return scene


@pytest.mark.parametrize(
    ("place", "where", "secret"),
    [
        ("output", "leaks", "site-0001/1 psk"),
        ("log", "ansible.log", "site-0001/1 psk"),
        ("junit", ".xml", "site-0001/1 psk"),
        ("tree", "gw1", "site-0001/1 psk"),
        ("facts", "gw1", "site-0002/1 psk"),
        ("temporary files that stayed", "left", "site-0001/1 psk"),
        ("cmdline", "pid", "site-0003/1 psk"),
        ("environ", "pid", "site-0004/1 psk"),
        ("files written here", "tmp", "site-0002/2 psk"),
        ("files written on hosts", "gw1:", "server-tls-crypt-v2.vault"),
        ("disks of hosts", "var/tmp/leak", "server-tls-crypt-v2.vault"),
        ("journals of hosts", "gw1", "site-0001/1 psk"),
        ("key store", "planted.txt", "site-0001/1 psk"),
        ("git", "tests/planted-", "site-0001/1 psk"),
        ("reports", "planted.txt", "site-0001/1 psk"),
    ],
)
def test_a_leak_is_found_in(place: str, where: str, secret: str, leaks: Scene) -> None:
    found = leaks.found[place]

    assert [spot for spot, secrets in found.items() if where in spot and secret in secrets], found


def test_every_place_has_its_leak(leaks: Scene) -> None:
    assert [place for place in PLACES if not leaks.found[place]] == []
