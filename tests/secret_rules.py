# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the places where Python code could let a key out: into a message, a result, a log, an argument list.

Each rule takes a file's syntax tree and yields (line, what is wrong). A rule looks at names and calls, not at data
flow: it is a fence along the paths people walk, and the secrecy test on the lab looks at what really came out.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Fault = tuple[int, str]

# Constants are names of files.
SECRET_NAME: Final = re.compile(r"(?:^|_)(?:psk|private_key|server_key|secret|secrets|passphrase|password)$")
# Whose answer gives nothing of the argument away.
HARMLESS: Final = frozenset(
    {"fingerprint", "len", "bool", "isinstance", "type", "id", "compare_digest", "sha256", "Secret"}
)
TEXT_MAKERS: Final = frozenset({"str", "repr", "format", "ascii", "format_map", "format_exc", "pformat"})
SPEAKERS: Final = frozenset(
    {"print", "pprint", "display", "vv", "vvv", "vvvv", "vvvvv", "v", "warning", "warn", "debug", "info", "error"}
    | {"critical", "exception", "log", "deprecated", "verbose", "fail_json", "exit_json"}
)
RUNNERS: Final = frozenset(
    {"run", "Popen", "call", "check_call", "check_output", "system", "execv", "execve", "execvp", "spawnv"}
    | {"_low_level_execute_command", "run_command", "exec_command", "_execute_module"}
)
# What a runner hands over out of everybody's sight.
UNSEEN: Final = frozenset({"input", "stdin", "in_data", "data"})
# Errors of others, whose text is not ours to vouch for. (Errors of this project are written by us, and tested.)
FOREIGN_ERROR: Final = frozenset(
    {"Exception", "BaseException", "ValueError", "TypeError", "Error", "AnsibleError", "UnicodeError", "LookupError"}
    | {"UnicodeDecodeError", "UnicodeEncodeError", "KeyError", "IndexError", "ArithmeticError", "UnsupportedAlgorithm"}
)
# Their errors may quote what they read.
PARSERS: Final = frozenset(
    {"load_pem_private_key", "load_der_private_key", "load_pem_x509_certificate", "load_pem_x509_crl", "decrypt"}
    | {"b64decode", "unhexlify", "a2b_base64", "VaultLib", "from_private_key"}
)


def name_of(node: ast.AST) -> str:
    """The last word of a name: `c` of `a.b.c`, of `a.b.c(...)` and of `a.b.c[...]`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call):
        return name_of(node.func)
    if isinstance(node, ast.Subscript):
        inside = node.slice
        if isinstance(inside, ast.Constant) and isinstance(inside.value, str):
            return inside.value
        return name_of(node.value)
    return ""


def reveals(tree: ast.AST) -> Iterator[Fault]:
    """Each way to a secret's text, also by a name in quotes or by the field behind it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "reveal":
            yield node.lineno, "reveal"
        elif isinstance(node, ast.Call) and name_of(node) in {"getattr", "attrgetter", "methodcaller"}:
            if any(isinstance(word, ast.Constant) and word.value == "reveal" for word in node.args):
                yield node.lineno, "reveal by name"
        elif isinstance(node, ast.Attribute) and node.attr == "_value" and name_of(node.value) != "self":
            yield node.lineno, "the text behind a Secret"


def secrets_in(node: ast.AST) -> Iterator[ast.AST]:
    """The secrets an expression could show; what stands inside a harmless call shows nothing."""
    if isinstance(node, ast.Call):
        if name_of(node) in HARMLESS:
            return
        if name_of(node) == "reveal":
            yield node
            return
    elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and SECRET_NAME.search(name_of(node)):
        yield node
        return
    # `key.private_key.exists` is no key: of a longer name only its last word counts.
    below = [] if isinstance(node, ast.Attribute) else list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Name | ast.Attribute):
        below = [node.value]
    if isinstance(node, ast.Compare):
        return
    for child in below:
        yield from secrets_in(child)


def shown_as_text(tree: ast.AST) -> Iterator[Fault]:
    """A secret inside an f-string, `%`, `str`, `repr`, `format`, or something that speaks to people."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.expr | ast.stmt):
            continue
        looked_at: Iterable[ast.AST] = ()
        if isinstance(node, ast.FormattedValue):
            looked_at = [node.value]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant):
            looked_at = [node.right] if isinstance(node.left.value, str) else []
        elif isinstance(node, ast.Call) and name_of(node) in TEXT_MAKERS | SPEAKERS:
            looked_at = [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            looked_at = [*node.exc.args, *(keyword.value for keyword in node.exc.keywords)]
        for part in looked_at:
            for found in secrets_in(part):
                yield node.lineno, f"{ast.unparse(found)} becomes text"


def seen_by_others(tree: ast.AST) -> Iterator[Fault]:
    """A secret in the arguments or the environment of a command: both stand in /proc."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node) in RUNNERS:
            words = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg not in UNSEEN)]
            for found in (one for word in words for one in secrets_in(word)):
                yield node.lineno, f"{ast.unparse(found)} in a command's arguments"
        elif isinstance(node, ast.Assign) and any("environ" in ast.unparse(target) for target in node.targets):
            for found in secrets_in(node.value):
                yield node.lineno, f"{ast.unparse(found)} in the environment"


def quoted_parser(tree: ast.AST) -> Iterator[Fault]:
    """The text of a key parser's error inside an error of ours."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Try):
            continue
        calls = {name_of(call) for part in node.body for call in ast.walk(part) if isinstance(call, ast.Call)}
        parsers = calls & PARSERS
        foreign = [one for one in node.handlers if one.type is None or FOREIGN_ERROR & _names(one.type)]
        for handler in foreign if parsers else []:
            for part in (inner for line in handler.body for inner in ast.walk(line)):
                if not isinstance(part, ast.expr | ast.stmt):
                    continue
                spoken: list[ast.AST] = []
                if isinstance(part, ast.Raise) and part.exc is not None:
                    spoken = [part.exc]
                elif isinstance(part, ast.Return) and part.value is not None:
                    spoken = [part.value]
                elif isinstance(part, ast.Call) and name_of(part) in SPEAKERS:
                    spoken = [*part.args, *(keyword.value for keyword in part.keywords)]
                if any(_says(node=one, name=handler.name) for one in spoken):
                    yield part.lineno, f"quotes what {', '.join(sorted(parsers))} says"


def _names(node: ast.AST) -> set[str]:
    return {name_of(part) for part in ast.walk(node)}


def _says(*, node: ast.AST, name: str | None) -> bool:
    """Whether an expression holds the error itself, or calls up the trace; its errno and strerror quote nothing."""
    if isinstance(node, ast.Attribute) and node.attr in {"strerror", "errno"}:
        return False
    if isinstance(node, ast.Name) and node.id == name:
        return True
    if isinstance(node, ast.Call) and name_of(node) in {"format_exc", "exc_info"}:
        return True
    return any(_says(node=child, name=name) for child in ast.iter_child_nodes(node))


def open_fields(tree: ast.AST) -> Iterator[Fault]:
    """A dataclass whose own representation shows a field named like a secret."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        if not any("dataclass" in ast.unparse(one) for one in node.decorator_list):
            continue
        if any(isinstance(part, ast.FunctionDef) and part.name == "__repr__" for part in node.body):
            continue
        for part in node.body:
            if not isinstance(part, ast.AnnAssign) or not SECRET_NAME.search(name_of(part.target)):
                continue
            hidden = part.value is not None and "repr=False" in ast.unparse(part.value)
            if not hidden and re.search(r"\b(str|bytes|bytearray|Any)\b", ast.unparse(part.annotation)):
                yield part.lineno, f"{node.name}.{name_of(part.target)} is shown by repr(); make it a Secret"


def speaks(tree: ast.AST) -> Iterator[Fault]:
    """Anything that prints, logs or writes temporary files."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id in {"print", "pprint"})
            or (
                isinstance(node.func, ast.Attribute)
                and node.func.attr in SPEAKERS | {"write"}
                and re.search(r"(?i)display|log|warnings|sys\.std|module", ast.unparse(node.func.value))
            )
        ):
            yield node.lineno, f"{ast.unparse(node.func)} in a file that holds revealed text"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | (
                {node.module} if isinstance(node, ast.ImportFrom) else set()
            )
            for name in sorted({"tempfile", "logging", "syslog"} & {str(one) for one in names}):
                yield node.lineno, f"{name} in a file that holds revealed text"


EVERYWHERE: Final[tuple[Callable[[ast.AST], Iterator[Fault]], ...]] = (
    shown_as_text,
    seen_by_others,
    quoted_parser,
    open_fields,
)


def revealing_functions(tree: ast.AST) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions that call up a secret's text themselves, by name."""
    return {
        node.name: node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(True for _one in reveals(node))
    }


def faults(source: str) -> list[Fault]:
    """What the rules for every file find in a program's text."""
    tree = ast.parse(source)
    return sorted({fault for rule in EVERYWHERE for fault in rule(tree)})
