# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dataclasses as they are read back from JSON: each field is what its type says, or is named. Pure.

Such files lie open: a person may restore, edit or merge them, and a disk may lose the end of one. The types of the
dataclass are the only description of the file; a field with a default may be missing, one that nobody knows may not
be there.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import FleetError

T = TypeVar("T")

# The key in a field's metadata of the values that it may have.
KNOWN: Final = "known"
# The last second of the year 9999: no number in these files is more, and a time after it cannot be written.
LARGEST: Final = 253_402_300_799
SHOWN: Final = 60


class DamagedError(FleetError):
    """A field is not what it has to be; the text names field and value."""


def parsed(text: str) -> Any:
    """A file as data.

    Raises:
        DamagedError: it is no JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as exc:
        raise DamagedError(f"line {exc.lineno}, column {exc.colno}: it is no JSON, {exc.msg}") from exc
    except (ValueError, RecursionError) as exc:
        raise DamagedError(f"it is no JSON, {exc}") from exc


def read_as(kind: type[T], data: object) -> T:
    """An object of JSON as the dataclass it was written from.

    Raises:
        DamagedError: the first field that is not what it has to be.
    """
    found: T = _made(kind, data, field="")
    return found


def _made(kind: Any, data: object, *, field: str) -> Any:
    if not isinstance(data, dict):
        raise _wrong(field, data, "an object")
    hints = get_type_hints(kind)
    known = {one.name: one for one in fields(kind)}
    for name in data:
        if name not in known:
            raise DamagedError(f"{_under(field, name)}: no field of this name is known: {', '.join(known)}")
    values = {}
    for name, one in known.items():
        if name in data:
            values[name] = _value(hints[name], data[name], field=_under(field, name))
            _refuse_unknown(one, values[name], field=_under(field, name))
        elif one.default is MISSING and one.default_factory is MISSING:
            raise DamagedError(f"{_under(field, name)}: it is missing")
    return kind(**values)


def _refuse_unknown(one: Field[Any], value: object, *, field: str) -> None:
    known = one.metadata.get(KNOWN)
    if known is not None and value not in known:
        raise _wrong(field, value, f"one of {', '.join(known)}")


def _value(kind: Any, data: object, *, field: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        if data is None and type(None) in inner:
            return None
        return _value(next(one for one in inner if one is not type(None)), data, field=field)
    if origin in {list, tuple}:
        if not isinstance(data, list):
            raise _wrong(field, data, "a list")
        return origin(_value(inner[0], one, field=_under(field, str(place))) for place, one in enumerate(data))
    if origin in {dict, Mapping}:
        if not isinstance(data, dict):
            raise _wrong(field, data, "an object")
        return {name: _value(inner[1], one, field=_under(field, name)) for name, one in data.items()}
    if is_dataclass(kind):
        return _made(kind, data, field=field)
    return _plain(kind, data, field=field)


def _plain(kind: Any, data: object, *, field: str) -> Any:
    if kind is str and isinstance(data, str):
        return data
    if kind is bool and isinstance(data, bool):
        return data
    # To Python, true is 1; and NaN is neither below nor above anything.
    number = isinstance(data, (int, float) if kind is float else int) and not isinstance(data, bool)
    if kind in {int, float} and number and 0 <= data <= LARGEST:  # type: ignore[operator]
        return data
    named = {str: "a text", bool: "true or false", int: "a whole number", float: "a time or a number of seconds"}
    raise _wrong(field, data, named[kind])


def _under(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _wrong(field: str, value: object, wanted: str) -> DamagedError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return DamagedError(f"{field}: {shown} is not {wanted}" if field else f"{shown} is not {wanted}")
