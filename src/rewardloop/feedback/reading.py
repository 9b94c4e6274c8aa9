"""Reading feedback: files and folders of JSON lines, JSON lists, CSV, TSV, Parquet, in any layout of layouts.yaml."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardloop.errors import DataError
from rewardloop.feedback.annotation_tools import READERS
from rewardloop.feedback.layouts import Layout, builtin_layouts, find_layout, read_record, seen_scales
from rewardloop.feedback.records import from_record
from rewardloop.types import Edit, Feedback, Preference

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
MANIFEST = "manifest.json"  # beside an export of ours; says what it holds, and is no feedback
csv.field_size_limit(10_000_000)  # a completion may be longer than the 131,072 characters that csv allows


@dataclass(frozen=True, slots=True)
class Imported:
    """Feedback that was read, and what was not, with reasons."""

    feedback: tuple[Feedback, ...]
    layouts: Mapping[str, str]  # file -> name of its layout
    skipped: Mapping[str, int] = field(default_factory=dict)  # reason -> records (or files)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    record: dict[str, Any]


def read_feedback(path: Path, layout: str | None = None) -> list[Feedback]:
    """All feedback in a file or folder. `layout`: a name of layouts.yaml or a YAML file; found by looking if None.

    Raises DataError that names file and line for anything malformed, and when there is nothing to learn from.
    """
    return list(import_feedback(path, layout).feedback)


def import_feedback(path: Path, layout: str | None = None) -> Imported:
    """As `read_feedback`, with the layouts found and the counts of what was left out.

    Left out and counted: choices between two equal texts and corrections that change nothing (they say nothing), and in
    a folder, files in no known layout. Raises DataError when nothing is left.
    """
    path = Path(path)
    feedback: list[Feedback] = []
    layouts: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    unknown: list[str] = []
    for file in _list_files(path):
        lines = list(_read_lines(file))
        found = find_layout(lines[0].record, layout)
        if found is None:
            unknown.append(_unknown_layout(file, lines[0]))
            skipped[f"file in no known layout: {file.name}"] += 1
        else:
            layouts[str(file)] = found.name
            feedback += _keep_telling(_read_all(file, found, lines), skipped)
    if unknown and not layouts:
        raise DataError(unknown[0])
    if not feedback:
        raise DataError(f"{path}: no feedback is left ({_reasons(skipped)}); give judgments that say something")
    return Imported(tuple(feedback), layouts, dict(skipped))


def _list_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder of feedback")
    found = sorted(
        file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file() and file.name != MANIFEST
    )
    if not found:
        raise DataError(f"{path}: no file of feedback in this folder; expected {', '.join(SUFFIXES)}")
    return found


def _read_all(file: Path, layout: Layout, lines: Sequence[_Line]) -> Iterator[tuple[int, Feedback]]:
    """Feedback with the line it came from."""
    if layout.reader is None:
        try:
            scales = seen_scales(layout, [line.record for line in lines])
        except DataError as error:
            raise DataError(f"{file}: {error}") from error
    for line in lines:
        try:
            if layout.reader is None:
                judgments = list(read_record(layout, line.record, scales))
            elif layout.reader == "rewardloop":
                judgments = [from_record(line.record)]
            else:
                judgments = list(READERS[layout.reader](line.record))
        except DataError as error:
            raise DataError(f"{file}:{line.number}: {error}") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:  # a tree of another shape
            raise DataError(f"{file}:{line.number}: not as {layout.name} writes it: {error!r}") from error
        yield from ((line.number, judgment) for judgment in judgments)


def _keep_telling(read: Iterator[tuple[int, Feedback]], skipped: Counter[str]) -> Iterator[Feedback]:
    for _, judgment in read:
        if isinstance(judgment, Preference) and judgment.first == judgment.second:
            skipped["choices between two equal texts"] += 1
        elif isinstance(judgment, Edit) and judgment.completion == judgment.corrected:
            skipped["corrections that change nothing"] += 1
        else:
            yield judgment


def _read_lines(file: Path) -> Iterator[_Line]:
    if file.suffix == ".parquet":
        return _read_parquet(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if not text.strip():
        raise DataError(f"{file}: the file is empty; expected a record of feedback on each line")
    if file.suffix in (".csv", ".tsv"):
        return _read_table(file, text)
    return _read_json_list(file, text) if text.lstrip().startswith("[") else _read_json_lines(file, text)


def _read_json_lines(file: Path, text: str) -> Iterator[_Line]:
    # not splitlines: JSON strings may hold U+2028 and its like
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _Line(number, _as_record(file, number, _parse(file, number, line)))


def _read_json_list(file: Path, text: str) -> Iterator[_Line]:
    for number, record in enumerate(_parse(file, None, text), start=1):
        yield _Line(number, _as_record(file, number, record))


def _read_table(file: Path, text: str) -> Iterator[_Line]:
    rows = csv.DictReader(text.splitlines(keepends=True), delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
    try:
        for row in rows:
            if None in row or None in row.values():
                given = len(row) + len(row.get(None) or ()) - (None in row) - list(row.values()).count(None)
                raise DataError(
                    f"{file}:{rows.line_num}: {given} cells; the heading names {len(rows.fieldnames or ())}"
                )
            yield _Line(rows.line_num, {name: _cell(value) for name, value in row.items()})
    except csv.Error as error:
        raise DataError(f"{file}:{rows.line_num}: not a well-formed table: {error}") from error


def _read_parquet(file: Path) -> Iterator[_Line]:
    """Rows of a Parquet table; a cell without a value is one that the record does not have."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError(f"{file}: Parquet needs pyarrow: pip install 'rewardloop[export]'") from error
    try:
        rows = parquet.read_table(file).to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{file}: not a Parquet table: {error}") from error
    if not rows:
        raise DataError(f"{file}: the table is empty; expected a record of feedback in each row")
    for number, row in enumerate(rows, start=1):
        yield _Line(number, {name: value for name, value in row.items() if value is not None})


def _cell(value: str) -> Any:
    """Lists and mappings are written in cells as JSON."""
    if value[:2] in ("[{", '["', '{"'):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _parse(file: Path, number: int | None, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = number or error.lineno
        raise DataError(f"{file}:{line}: not valid JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise DataError(f"{file}:{number or 1}: nested too deeply to be a record of feedback") from error


def _as_record(file: Path, number: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{file}:{number}: a record is a JSON object, this is a {type(value).__name__}")
    return value


def _unknown_layout(file: Path, line: _Line) -> str:
    known = ", ".join(layout.name for layout in builtin_layouts())
    return (
        f"{file}:{line.number}: no known layout has the columns {', '.join(map(str, line.record))}; "
        f"name one ({known}) or give a mapping (docs/feedback.md)"
    )


def _reasons(skipped: Mapping[str, int]) -> str:
    return "; ".join(f"{count} {reason}" for reason, count in skipped.items()) or "there was none"
