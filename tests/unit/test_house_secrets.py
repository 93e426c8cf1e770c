# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a key may be called up, and that nothing else could let one out. SECURITY.md says it in words."""

from __future__ import annotations

import ast
import copy
import json
import pickle
import traceback
from pathlib import Path
from typing import Final

import pytest
import yaml
from ansible.module_utils.common.json import get_encoder
from ansible.parsing.yaml.dumper import AnsibleDumper

import secret_rules as rules
from ansible_collections.spokewright.fleet.plugins.plugin_utils.secret import Secret

ROOT = Path(__file__).resolve().parents[2]

# The only files that may turn a Secret into text, and what for.
MAY_REVEAL: Final = {
    "plugins/plugin_utils/secret.py": "is the class",
    "plugins/plugin_utils/key_maker.py": "seals a new key into the store, and reads its fingerprint",
    "plugins/plugin_utils/key_records.py": "reads a key's fingerprint",
    "plugins/plugin_utils/server_key_store.py": "seals a site's PSK for another server key into the store",
    "plugins/plugin_utils/bundle.py": "packs a site's files for its standard input",
    "plugins/plugin_utils/gateway_files.py": "packs a gateway's files for its standard input",
    "plugins/plugin_utils/gateway_material.py": "proves that a gateway's files belong together",
    "tools/fleetlib/keys.py": "key show --reveal",
}
# Functions of the command line that print what they revealed.
MAY_PRINT: Final = {("tools/fleetlib/keys.py", "show_key"): "key show --reveal: a person asked, and the ledger has it"}


def programs() -> list[Path]:
    """Every Python file that runs where keys are."""
    found = [path for folder in ("plugins", "tools") for path in (ROOT / folder).rglob("*") if path.is_file()]
    return sorted(path for path in found if path.suffix == ".py" or (not path.suffix and _is_python(path)))


def _is_python(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.readline(80).startswith(b"#!") and b"python" in path.read_bytes()[:80]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_a_secret_becomes_text_in_the_listed_files_only() -> None:
    found = {relative(path): [*rules.reveals(tree_of(path))] for path in programs()}
    strangers = {name: lines for name, lines in found.items() if lines and name not in MAY_REVEAL}

    assert strangers == {}, "hand the Secret on, or add the file to MAY_REVEAL with its reason"
    assert [name for name in MAY_REVEAL if not found.get(name)] == [], (
        "does not reveal any more: remove it from the list"
    )


@pytest.mark.parametrize("path", programs(), ids=relative)
def test_no_line_lets_a_secret_out(path: Path) -> None:
    tree = tree_of(path)
    allowed = [node for name, node in rules.revealing_functions(tree).items() if (relative(path), name) in MAY_PRINT]
    found = rules.faults(path.read_text(encoding="utf-8"))

    assert [
        (line, what)
        for line, what in found
        if not any(node.lineno <= line <= (node.end_lineno or line) for node in allowed)
    ] == []


@pytest.mark.parametrize("name", sorted(MAY_REVEAL))
def test_what_reveals_does_not_speak(name: str) -> None:
    tree = tree_of(ROOT / name)
    if name.startswith("plugins/"):
        assert [*rules.speaks(tree)] == []
        return
    # Printing is the trade of the command line: there it counts by function.
    revealing = rules.revealing_functions(tree)
    assert [one for one, node in revealing.items() if [*rules.speaks(node)] and (name, one) not in MAY_PRINT] == []


def test_the_permissions_to_print_are_in_use() -> None:
    for name, function in MAY_PRINT:
        node = rules.revealing_functions(tree_of(ROOT / name))[function]
        assert [*rules.speaks(node)]


def test_actions_and_modules_never_reveal() -> None:
    """What they return is printed, kept by callbacks and cached: a Secret in it ends the run, a text would not."""
    entries = [
        name for name in MAY_REVEAL if name.startswith(("plugins/action/", "plugins/modules/", "plugins/filter/"))
    ]

    assert entries == []


# --- the rules find planted offenders ------------------------------------------------------------------------------

PLANTED: Final = [
    ('message = f"the key is {key.psk}"', "key.psk becomes text"),
    ('message = f"{site}: {psk!r}"', "psk becomes text"),
    ('message = "key %s of %s" % (key.private_key, site)', "key.private_key becomes text"),
    ('message = "key {}".format(server_key)', "server_key becomes text"),
    ("message = str(store.site_key(site=site).psk)", "psk becomes text"),
    ('raise KeyStoreError("bad key", psk)', "psk becomes text"),
    ('raise KeyStoreError(f"bad key {text.reveal()}")', "text.reveal() becomes text"),
    ("display.vvv(key.psk)", "key.psk becomes text"),
    ("print(secrets)", "secrets becomes text"),
    ('logger.debug("got %s", found["private_key"])', "found['private_key'] becomes text"),
    ("module.exit_json(changed=True, psk=key.psk)", "key.psk becomes text"),
    ('subprocess.run(["openvpn", "--key", key.psk.reveal()])', "in a command's arguments"),
    ("self._low_level_execute_command(shlex.join([psk]), in_data=b'')", "in a command's arguments"),
    ('subprocess.run(["x"], env={"KEY": password})', "in a command's arguments"),
    ('os.environ["KEY"] = psk', "in the environment"),
    (
        "try:\n    load_pem_private_key(text)\nexcept ValueError as exc:\n    raise KeyError(f'bad: {exc}') from exc",
        "quotes what load_pem_private_key says",
    ),
    ("try:\n    decrypt(text)\nexcept Exception as exc:\n    return {'msg': str(exc)}", "quotes what decrypt says"),
    (
        "try:\n    b64decode(text)\nexcept (OSError, ValueError):\n    print(traceback.format_exc())",
        "quotes what b64decode says",
    ),
    ("@dataclass(frozen=True)\nclass Key:\n    site: str\n    psk: str", "Key.psk is shown by repr()"),
    ("@dataclasses.dataclass\nclass Key:\n    private_key: bytes = b''", "Key.private_key is shown by repr()"),
]

HARMLESS: Final = [
    'message = f"{site}: {fingerprint(text=key.psk.reveal())}"',
    'message = f"{key.psk_fingerprint} {key.private_key_file}"',
    'message = f"{len(psk)} bytes at {SERVER_KEY}"',
    'raise KeyStoreError("no psk") from exc',
    'subprocess.run(["openvpn"], input=key.psk.reveal())',
    "self._low_level_execute_command(command, in_data=key.psk.reveal().encode())",
    "try:\n    b64decode(text)\nexcept ValueError as exc:\n    raise KeyStoreError('no base64') from exc",
    "try:\n    decrypt(text)\nexcept OSError as exc:\n    raise KeyStoreError(f'{exc.strerror}') from exc",
    "try:\n    decrypt(text)\nexcept VaultFormatError as exc:\n    raise KeyStoreError(f'{path}: {exc}') from exc",
    "@dataclass\nclass Key:\n    psk: Secret\n    secret: str = field(repr=False)",
    "@dataclass\nclass Key:\n    psk: str\n    def __repr__(self) -> str:\n        return 'Key(...)'",
    "if psk == other:\n    message = str(psk == other)",
]


@pytest.mark.parametrize(("source", "fault"), PLANTED)
def test_a_planted_offender_is_found(source: str, fault: str) -> None:
    assert any(fault in what for _, what in rules.faults(source)), rules.faults(source)


@pytest.mark.parametrize("source", HARMLESS)
def test_what_gives_nothing_away_is_left_alone(source: str) -> None:
    assert rules.faults(source) == []


@pytest.mark.parametrize(
    "source",
    ["key.psk.reveal()", "call(psk.reveal)", 'getattr(psk, "reveal")()', 'methodcaller("reveal")(psk)', "psk._value"],
)
def test_every_way_to_the_text_counts_as_revealing(source: str) -> None:
    assert [*rules.reveals(ast.parse(source))]


@pytest.mark.parametrize(
    "source",
    [
        "print(1)",
        "display.vvv('x')",
        "self._display.warning('x')",
        "logger.info('x')",
        "sys.stderr.write('x')",
        "import tempfile",
        "from tempfile import mkstemp",
        "import logging",
        "import syslog",
    ],
)
def test_speaking_is_noticed(source: str) -> None:
    assert [*rules.speaks(ast.parse(source))]


# --- a Secret that gets somewhere all the same ---------------------------------------------------------------------


def test_a_secret_in_a_result_is_never_written_out() -> None:
    text = "K3Y" * 20
    secret = Secret(text)
    written: list[str] = []
    for write in (
        json.dumps,
        lambda value: json.dumps(value, cls=get_encoder("legacy")),
        lambda value: json.dumps(value, cls=get_encoder("module_legacy_m2c")),
        lambda value: yaml.dump(value, Dumper=AnsibleDumper),
        yaml.safe_dump,
        pickle.dumps,
        copy.deepcopy,
        repr,
        str,
        "{0[psk]}".format,
    ):
        try:
            written.append(str(write({"psk": secret})))
        except Exception as exc:  # noqa: BLE001 - whatever is raised, it must not carry the text
            written.append("".join(traceback.format_exception(exc)))

    assert [one for one in written if "K3Y" in one] == []


def test_a_trace_with_local_variables_shows_no_secret() -> None:
    def fails(psk: Secret) -> None:
        raise RuntimeError(f"at work with {psk}")

    try:
        fails(Secret("K3Y" * 20))
    except RuntimeError as exc:
        trace = "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())

    assert "psk = Secret(...)" in trace
    assert "K3Y" not in trace.replace('"K3Y" * 20', "")
