# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the house that no linter knows. CONTRIBUTING.md says them in words."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "collections" / "ansible_collections" / "spokewright" / "fleet"
COLLECTION = "spokewright.fleet"
LICENCE = (
    "# Copyright: Spokewright maintainers",
    "# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)",
    "# SPDX-License-Identifier: GPL-3.0-or-later",
)
INTERNAL_ROLES = {"common"}


@functools.cache
def our_files() -> tuple[Path, ...]:
    """What git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return tuple(
        sorted({ROOT / name for name in listed if name and (ROOT / name).is_file() and not (ROOT / name).is_symlink()})
    )


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def text_of(path: Path) -> str:
    """The file's text; nothing when it is missing or no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return ""


def first_line(path: Path) -> str:
    return text_of(path).partition("\n")[0]


def programs(interpreter: str) -> list[Path]:
    """Files of one language, by ending or else by their first line."""
    ending = {"python": ".py", "sh": ".sh"}[interpreter]
    shebang = re.compile(r"^#!.*\b(python3?|(ba|da)?sh)\b")
    found = []
    for path in our_files():
        match = shebang.match(first_line(path)) if not path.suffix else None
        language = ("python" if match and match[1].startswith("python") else "sh") if match else None
        if path.suffix == ending or language == interpreter:
            found.append(path)
    return found


def roles() -> list[str]:
    return sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())


def documented_roles() -> list[str]:
    return [role for role in roles() if role not in INTERNAL_ROLES]


def load(path: Path) -> Any:
    return yaml.safe_load(text_of(path)) if path.exists() else None


def specs(role: str) -> dict[str, Any]:
    data = load(ROOT / "roles" / role / "meta" / "argument_specs.yml") or {}
    found: dict[str, Any] = data.get("argument_specs", {})
    return found


def defaults(role: str) -> dict[str, Any]:
    return load(ROOT / "roles" / role / "defaults" / "main.yml") or {}


# --- one checkout is both project and collection -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["galaxy.yml", "meta", "playbooks", "plugins", "roles"])
def test_the_stub_links_to_the_checkout(name: str) -> None:
    link = STUB / name

    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == ROOT / name


def test_the_stub_holds_links_only() -> None:
    assert [path.name for path in STUB.iterdir() if not path.is_symlink()] == []


# --- roles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", roles())
def test_specs_and_defaults_name_the_same_variables(role: str) -> None:
    options = {name: option for entry in specs(role).values() for name, option in entry.get("options", {}).items()}
    required = {name for name, option in options.items() if option.get("required")}

    assert specs(role), f"roles/{role}/meta/argument_specs.yml is missing or empty"
    assert set(options) - required == set(defaults(role)), "an option is either required or has a default"
    assert required & set(defaults(role)) == set(), "a required option has no default"


@pytest.mark.parametrize("role", roles())
def test_specs_state_the_defaults_that_hold(role: str) -> None:
    stated = {
        name: option["default"]
        for entry in specs(role).values()
        for name, option in entry.get("options", {}).items()
        if "default" in option
    }

    assert {name: defaults(role).get(name) for name in stated} == stated


@pytest.mark.parametrize("role", roles())
def test_variables_carry_the_roles_name(role: str) -> None:
    options = {name for entry in specs(role).values() for name in entry.get("options", {})}
    constants = load(ROOT / "roles" / role / "vars" / "main.yml") or {}

    assert [name for name in options | set(defaults(role)) if not name.startswith(f"{role}_")] == []
    assert [name for name in constants if not name.startswith(f"__{role}_")] == []


@pytest.mark.parametrize("role", documented_roles())
def test_every_option_is_described(role: str) -> None:
    bare = [
        name
        for entry in specs(role).values()
        for name, option in entry.get("options", {}).items()
        if not option.get("description") or not option.get("type")
    ]

    assert bare == []


@pytest.mark.parametrize("role", roles())
def test_a_role_has_a_readme(role: str) -> None:
    readme = text_of(ROOT / "roles" / role / "README.md")

    assert readme, f"roles/{role}/README.md is missing"
    if role not in INTERNAL_ROLES:
        assert "```yaml" in readme, "no example"
        assert re.search(r"^#+ .*(rollback|roll back|going back|undo)", readme, re.MULTILINE | re.IGNORECASE), (
            "no section on going back"
        )


def test_the_variable_tables_of_the_roles_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "role_docs", "--check"], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, f"{done.stdout}{done.stderr}Run: make docs"


@pytest.mark.parametrize("role", documented_roles())
def test_a_role_checks_its_input_first(role: str) -> None:
    # Where writing and running can be entered one by one, both in main.yml, writing comes first.
    tasks = load(ROOT / "roles" / role / "tasks" / "install.yml") or load(ROOT / "roles" / role / "tasks" / "main.yml")
    asserts = load(ROOT / "roles" / role / "tasks" / "assert.yml")

    assert asserts, f"roles/{role}/tasks/assert.yml is missing"
    assert "assert.yml" in yaml.safe_dump(tasks[:2]), "assert.yml comes first"
    for task in asserts:
        action = task.get("ansible.builtin.assert")
        assert action is None or action.get("fail_msg"), f"'{task['name']}' has no fail_msg"


@pytest.mark.parametrize("role", documented_roles())
def test_main_is_a_table_of_contents(role: str) -> None:
    assert len(text_of(ROOT / "roles" / role / "tasks" / "main.yml").splitlines()) <= 60


@pytest.mark.parametrize("role", documented_roles())
def test_a_role_has_a_scenario_that_converges_and_verifies(role: str) -> None:
    scenario = ROOT / "molecule" / role

    assert [name for name in ("molecule.yml", "converge.yml", "verify.yml") if not (scenario / name).is_file()] == []


@pytest.mark.parametrize("role", documented_roles())
def test_a_scenario_runs_every_step_it_has(role: str) -> None:
    shared = load(ROOT / ".config" / "molecule" / "config.yml")["scenario"]["test_sequence"]
    own = load(ROOT / "molecule" / role / "molecule.yml") or {}
    sequence = own.get("scenario", {}).get("test_sequence", shared)
    steps = {path.stem for path in (ROOT / "molecule" / role).glob("*.yml")} & {"prepare", "side_effect", "cleanup"}

    assert steps <= set(sequence)
    assert {"converge", "idempotence", "verify"} <= set(sequence)


@pytest.mark.parametrize("path", sorted((ROOT / "molecule").glob("*/molecule.yml")), ids=relative)
def test_no_side_effect_of_a_scenario_is_skipped(path: Path) -> None:
    """Molecule passes a scenario whose side effects it does not find, and without side_effect.yml it looks for none."""
    sequence = (load(path) or {}).get("scenario", {}).get("test_sequence", [])
    steps = [step.split() for step in sequence if step.split()[0] == "side_effect"]
    wanted = {name for step in steps for name in ("side_effect.yml", *step[1:])}

    assert [name for name in sorted(wanted) if not (path.parent / name).is_file()] == []


# --- secrets -------------------------------------------------------------------------------------------------------

NAMES_A_SECRET = re.compile(r"(\bpsk\b|_key_file\b|\.key\b|tls.crypt|private_key|secret|bundle_content)", re.IGNORECASE)
# They show names and numbers, never what stands in a file.
SHOWS_NO_CONTENT = {"ansible.builtin.stat", "ansible.builtin.assert", "ansible.builtin.include_tasks"} | {
    f"ansible.builtin.{name}" for name in ("import_tasks", "include_role", "import_role", "service", "systemd_service")
}
KEYWORDS = {"name", "when", "tags", "register", "loop", "loop_control", "notify", "vars", "become", "delegate_to"}


def tasks_in(node: Any, *, hidden: bool = False) -> list[tuple[dict[str, Any], bool]]:
    """Each task below a list of tasks or plays, with whether no_log hides it."""
    found: list[tuple[dict[str, Any], bool]] = []
    for task in node if isinstance(node, list) else []:
        if not isinstance(task, dict):
            continue
        covered = hidden or bool(task.get("no_log", False))
        nested = [
            key
            for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")
            if isinstance(task.get(key), list)
        ]
        for key in nested:
            found += tasks_in(task[key], hidden=covered)
        if not nested and "hosts" not in task:
            found.append((task, covered))
    return found


def shown(task: dict[str, Any]) -> bool:
    """Whether a task's result could carry what stands in a secret file."""
    modules = {key for key in task if "." in key}
    text = yaml.safe_dump({key: value for key, value in task.items() if key not in {"name", "when", "tags", "notify"}})
    return not modules <= SHOWS_NO_CONTENT and bool(NAMES_A_SECRET.search(text))


def task_files() -> list[Path]:
    return [
        path
        for path in our_files()
        if path.suffix == ".yml"
        and relative(path).startswith(("roles/", "playbooks/"))
        and {"tasks", "handlers", "playbooks"} & set(path.relative_to(ROOT).parts)
    ]


def unhidden(tasks: Any) -> list[str]:
    return [str(task.get("name", task)) for task, hidden in tasks_in(tasks) if shown(task) and not hidden]


@pytest.mark.parametrize("path", task_files(), ids=relative)
def test_a_task_that_touches_a_key_logs_nothing(path: Path) -> None:
    assert unhidden(load(path)) == [], 'give it no_log: "{{ <role>_secure_logging }}"'


def test_the_rule_above_finds_an_offender() -> None:
    tasks = [
        {"name": "bare", "ansible.builtin.copy": {"src": "site.key", "dest": "x"}},
        {"name": "hidden", "ansible.builtin.copy": {"src": "site.key", "dest": "x"}, "no_log": True},
        {"name": "looped", "ansible.builtin.copy": {"src": "{{ item }}"}, "loop": ["{{ a_psk }} psk"]},
        {"block": [{"name": "in a block", "ansible.builtin.slurp": {"src": "tls-crypt-v2.key"}}]},
        {"no_log": True, "block": [{"name": "in a hidden block", "ansible.builtin.slurp": {"src": "a.key"}}]},
        {"name": "stat", "ansible.builtin.stat": {"path": "site.key"}},
        {"hosts": "all", "tasks": [{"name": "in a play", "ansible.builtin.command": {"argv": ["cat", "a.key"]}}]},
    ]

    assert unhidden(tasks) == ["bare", "looped", "in a block", "in a play"]


# --- plugins -------------------------------------------------------------------------------------------------------


def plugin_files(*kinds: str) -> list[Path]:
    return sorted(
        path for kind in kinds for path in (ROOT / "plugins" / kind).glob("*.py") if not path.name.startswith("_")
    )


def documented() -> list[Path]:
    """Modules, inventory and callback plugins; an action's documentation stands in the module of the same name."""
    return plugin_files("modules", "inventory", "callback")


def doc_blocks(path: Path) -> dict[str, str]:
    return {
        target.id: node.value.value
        for node in ast.parse(text_of(path)).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


@pytest.mark.parametrize("path", documented(), ids=relative)
def test_documentation_parses(path: Path) -> None:
    documentation = yaml.safe_load(doc_blocks(path)["DOCUMENTATION"])

    assert documentation["module" if path.parent.name == "modules" else "name"] in {
        path.stem,
        f"{COLLECTION}.{path.stem}",
    }
    assert documentation["short_description"]
    assert documentation["description"]
    for name, option in (documentation.get("options") or {}).items():
        assert option.get("description"), name
        assert option.get("type"), name


@pytest.mark.parametrize("path", documented(), ids=relative)
def test_examples_parse_and_use_the_full_name(path: Path) -> None:
    examples = doc_blocks(path)["EXAMPLES"]

    assert list(yaml.safe_load_all(examples))
    assert f"{COLLECTION}.{path.stem}" in examples


@pytest.mark.parametrize("path", plugin_files("modules"), ids=relative)
def test_return_values_parse_and_have_samples(path: Path) -> None:
    returned = yaml.safe_load(doc_blocks(path)["RETURN"]) or {}

    for name, value in returned.items():
        assert value.get("description"), name
        assert value.get("type"), name
        assert "sample" in value or "contains" in value, f"{name} has no sample"


@pytest.mark.parametrize("path", plugin_files("action"), ids=relative)
def test_an_action_has_a_module_that_documents_it(path: Path) -> None:
    assert (ROOT / "plugins" / "modules" / path.name).is_file()


def imports_of(path: Path) -> set[str]:
    """Dotted names a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text_of(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


# The store is to be opened by `ansible-vault`, so Ansible's own code writes it. One file knows it, and imports it late.
KNOWS_ANSIBLE = ("plugins/plugin_utils/vault_format.py",)


@pytest.mark.parametrize("path", plugin_files("module_utils", "plugin_utils"), ids=relative)
def test_the_core_does_not_know_ansible(path: Path) -> None:
    known = {name for name in imports_of(path) if name.partition(".")[0] == "ansible"}

    assert bool(known) == (relative(path) in KNOWS_ANSIBLE), known


def test_the_core_is_imported_without_ansible() -> None:
    """Whoever asks for the status or reads a plan does not wait for Ansible's vault."""
    modules = [
        f"ansible_collections.{COLLECTION}.plugins.{path.parent.name}.{path.stem}"
        for path in plugin_files("module_utils", "plugin_utils")
    ]
    program = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] == 'ansible'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "collections")},
        check=False,
        capture_output=True,
        text=True,
    )

    assert (done.stdout.strip(), done.stderr) == ("", "")


@pytest.mark.parametrize("path", plugin_files("module_utils"), ids=relative)
def test_what_runs_on_managed_hosts_needs_only_the_standard_library(path: Path) -> None:
    ours = f"ansible_collections.{COLLECTION}.plugins.module_utils"
    foreign = {
        name
        for name in imports_of(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith(ours)
    }

    assert foreign == set()


@pytest.mark.parametrize("path", plugin_files("modules", "action", "inventory", "filter", "callback"), ids=relative)
def test_an_entry_file_is_thin(path: Path) -> None:
    assert len(text_of(path).splitlines()) <= 250


@pytest.mark.parametrize("path", programs("python"), ids=relative)
def test_no_python_file_grows_past_reading(path: Path) -> None:
    if not relative(path).startswith("tests/"):
        assert len(text_of(path).splitlines()) <= 400


# --- every file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*programs("python"), *programs("sh")], ids=relative)
def test_a_program_states_its_licence(path: Path) -> None:
    lines = [line for line in text_of(path).splitlines()[:6] if not line.startswith("#!")]

    if text_of(path).strip():
        assert tuple(lines[:3]) == LICENCE or (LICENCE[0] in lines and LICENCE[2] in lines)


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    # Written apart so that this file does not name them.
    somewhere = re.compile(
        "(" + "|".join(("/wo" + "rk/", "/ho" + "me/[a-z]", "/ro" + "ot/main", "/tm" + "p/bash")) + ")"
    )
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in our_files()
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if somewhere.search(line)
    ]

    assert found == []


def test_programs_can_be_run() -> None:
    names = [path for path in our_files() if relative(path).startswith(("tools/", ".ci/")) and not path.suffix]

    assert [
        relative(path) for path in names if first_line(path).startswith("#!") and not path.stat().st_mode & 0o100
    ] == []


# --- the command surface and the documents -------------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):", text_of(ROOT / "Makefile"), re.MULTILINE))


@functools.cache
def verbs(tool: str) -> frozenset[str]:
    """The verbs a tool's own help lists."""
    done = subprocess.run([ROOT / "tools" / tool, "--help"], check=True, capture_output=True, text=True)
    words = set(re.findall(r"^ {2,4}([a-z][a-z-]*)\b", done.stdout, re.MULTILINE))
    for group in re.findall(r"\{([a-z,-]+)\}", done.stdout):
        words |= set(group.split(","))
    return frozenset(words)


def documents() -> list[Path]:
    return [path for path in our_files() if path.suffix == ".md"]


def console_commands(text: str) -> list[str]:
    """Each command after a prompt in a console block; a backslash joins lines."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                found += [part.strip() for part in re.split(r"&&|;|\|", line[2:]) if part.strip()]
    return found


def fault_in(command: str) -> str:
    """What is wrong with a command in a document; nothing when it exists."""
    words = [word for word in command.split() if not re.match(r"^[A-Z_]+=", word)]
    program = words[0] if words else ""
    if program == "make":
        unknown = [word for word in words[1:] if not word.startswith("-") and word not in make_targets()]
        return f"make has no target {', '.join(unknown)}" if unknown else ""
    if program.startswith("tools/"):
        tool = program.removeprefix("tools/")
        if not (ROOT / program).is_file():
            return f"{program} does not exist"
        if tool in {"lab", "fleet"} and words[1:] and not words[1].startswith("-") and words[1] not in verbs(tool):
            return f"{program} has no verb {words[1]}"
    if program.endswith(("ansible-playbook", "ansible-inventory")):
        missing = [
            word
            for word in words[1:]
            if word.startswith(("playbooks/", "inventories/example")) and not (ROOT / word).exists()
        ]
        return f"{', '.join(missing)} does not exist" if missing else ""
    return ""


@pytest.mark.parametrize("path", documents(), ids=relative)
def test_every_command_in_a_document_exists(path: Path) -> None:
    assert [fault for command in console_commands(text_of(path)) if (fault := fault_in(command))] == []


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("make demo SITES=40", ""),
        ("make coffee", "make has no target coffee"),
        ("tools/lab up --sites 8", ""),
        ("tools/lab levitate gw1", "tools/lab has no verb levitate"),
        ("tools/nothing", "tools/nothing does not exist"),
        (".venv/bin/ansible-playbook playbooks/site.yml --check", ""),
        (".venv/bin/ansible-playbook playbooks/sight.yml", "playbooks/sight.yml does not exist"),
    ],
)
def test_the_rule_above_finds_what_is_not_there(command: str, fault: str) -> None:
    assert fault_in(command) == fault


@pytest.mark.parametrize("path", documents(), ids=relative)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text_of(path))

    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_docs_index_names_every_document() -> None:
    index = text_of(ROOT / "docs" / "README.md")
    names = [path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md"]

    assert [name for name in names if name not in index] == []


def test_the_calibration_of_the_simulator_is_current() -> None:
    done = subprocess.run([ROOT / "tools" / "storm_docs", "--check"], check=False, capture_output=True, text=True)

    assert done.stdout == "current: docs/storm-explained.md\n", f"run tools/storm_docs\n{done.stderr}"


def test_the_decisions_index_names_every_decision() -> None:
    folder = ROOT / "docs" / "decisions"
    index = text_of(folder / "README.md")

    assert [path.name for path in folder.glob("[0-9]*.md") if path.name not in index] == []


def test_every_make_target_a_person_types_is_explained() -> None:
    wanted = {"demo", "test", "lint", "unit", "molecule", "e2e", "sanity", "bench", "clean", "help", "lock"}
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True)

    assert wanted <= set(re.findall(r"^ *make ([a-z0-9-]+) ", done.stdout, re.MULTILINE))
