# Copyright: Spokewright maintainers
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Split a CSV file into rows that know their physical line, whatever a spreadsheet or an editor did to it.

One row is one line, always: a lost quote then costs one row instead of swallowing the rest of the file.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.spokewright.fleet.plugins.plugin_utils.errors import Problem
from ansible_collections.spokewright.fleet.plugins.plugin_utils.field_reader import closest, listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = b"\xef\xbb\xbf"


class Row(NamedTuple):
    """The values of one line, in the order of the wanted columns."""

    line: int
    values: tuple[str, ...]


class CsvSource:
    """Reads one file with a fixed set of columns."""

    def __init__(self, *, file: str, columns: Sequence[str], problems: list[Problem]) -> None:
        self._file = file
        self._columns = tuple(columns)
        self._problems = problems

    def rows(self, *, data: bytes) -> list[Row] | None:
        """Return the good rows, None when the header makes them unreadable. Bad rows are noted and left out."""
        if data.startswith(_UTF16_MARKS):
            self._fault(1, "", "", "the file is UTF-16 text, not UTF-8.", "Save it as 'CSV UTF-8 (comma delimited)'.")
            return None
        lines = self._lines(data.removeprefix(_UTF8_MARK))
        header = next(lines, None)
        if header is None:
            self._fault(0, "", "", "the file is empty.", f"Start it with the line {','.join(self._columns)}")
            return None
        order = self._header(line=header[0], text=header[1])
        if order is None:
            return None
        in_order = order == list(range(len(self._columns)))
        rows: list[Row] = []
        width = len(self._columns)
        for line, text in lines:
            fields = self._fields(line=line, text=text)
            if fields is None or not any(fields):
                continue
            if len(fields) != width:
                self._wrong_width(line=line, found=len(fields), text=text)
                continue
            rows.append(Row(line, tuple(fields) if in_order else tuple(fields[index] for index in order)))
        return rows

    def _lines(self, data: bytes) -> Iterator[tuple[int, str]]:
        """Yield the lines that hold something, comments left out, with their numbers."""
        raw_lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for number, raw in enumerate(raw_lines, start=1):
            stripped = raw.strip()
            if not stripped or stripped.startswith(b"#"):
                continue
            if b"\x00" in stripped:
                self._fault(
                    number, "", "", "the line holds a NUL byte.", "The file is damaged here; restore it from git."
                )
                continue
            try:
                yield number, stripped.decode("utf-8")
            except UnicodeDecodeError as exc:
                byte = stripped[exc.start]
                self._fault(number, "", "", f"byte 0x{byte:02x} is no UTF-8.", "Save the file as UTF-8.")

    def _header(self, *, line: int, text: str) -> list[int] | None:
        if "," not in text:
            for delimiter, word in ((";", "semicolons"), ("\t", "tabs")):
                if delimiter in text:
                    remedy = "Save it as 'CSV UTF-8 (comma delimited)', or replace them by commas."
                    self._fault(line, "", text, f"the columns are separated by {word}, not by commas.", remedy)
                    return None
        fields = self._fields(line=line, text=text)
        if fields is None:
            return None
        faults = len(self._problems)
        missing = [name for name in self._columns if name not in fields]
        for name in dict.fromkeys(fields):
            if name not in self._columns:
                guess = closest(word=name.lower(), known=missing)
                remedy = guess or f"Known: {listing(self._columns)}."
                self._fault(line, name, name, f"'{name}' is no column of a registry.", remedy)
                # One misspelt column is one fault, not an unknown and a missing one.
                missing = [column for column in missing if f"'{column}'" not in guess]
            elif fields.count(name) > 1:
                self._fault(
                    line, name, name, f"the column '{name}' stands there {fields.count(name)} times.", "Keep one."
                )
        for name in missing:
            remedy = f"The header is {','.join(self._columns)}"
            self._fault(line, name, "", f"the column '{name}' is missing.", remedy)
        return None if len(self._problems) > faults else [fields.index(name) for name in self._columns]

    def _fields(self, *, line: int, text: str) -> list[str] | None:
        if '"' not in text:
            return [field.strip() for field in text.split(",")]
        try:
            (fields,) = csv.reader([text], strict=True, skipinitialspace=True)
        except csv.Error:
            self._fault(
                line, "", text, "the quotes do not balance.", "Close the quote, or write a quote itself as two."
            )
            return None
        return [field.strip() for field in fields]

    def _wrong_width(self, *, line: int, found: int, text: str) -> None:
        wanted = len(self._columns)
        if found > wanted:
            remedy = "Several LANs in one field are separated by spaces, not by commas."
        else:
            remedy = f"The columns are {','.join(self._columns)}; leave a field empty, but keep its comma."
        self._fault(line, "", text, f"the row has {found} fields instead of {wanted}.", remedy)

    def _fault(self, line: int, field: str, value: str, message: str, remedy: str) -> None:
        self._problems.append(Problem(self._file, line, field, value, message, remedy))
