"""Feedback out again: files in our own layout, those of TRL and HH-RLHF, and of annotation tools, with a manifest.

    manifest = export_feedback(feedback, Path("runs/export"), "trl-preference", "parquet")

Our own layout loses nothing. The others hold what they can; what they cannot is counted in the manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from rewardloop.errors import ConfigError, DataError
from rewardloop.feedback.export_layouts import LAYOUTS, Record
from rewardloop.feedback.reading import MANIFEST
from rewardloop.files import write_text, written_whole
from rewardloop.types import Feedback

Format = Literal["jsonl", "parquet"]
FORMATS: Final = ("jsonl", "parquet")


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file of an export. Prompts that are texts and prompts that are conversations do not mix in one."""

    name: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export holds, and what it had to leave out."""

    layout: str
    format: Format
    judgments: int  # that were given
    kinds: Mapping[str, int]  # of them
    left_out: Mapping[str, int]  # kind -> judgments that say nothing in this layout
    files: tuple[ExportedFile, ...]
    seq_range: tuple[int, int] | None  # of the event log they come from

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def sha256(self) -> str:
        """Of the whole manifest, which holds those of the files."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def export_feedback(
    feedback: Sequence[Feedback],
    folder: Path,
    layout: str = "rewardloop",
    form: Format = "jsonl",
    seq_range: tuple[int, int] | None = None,
) -> Manifest:
    """Write `feedback` as files in a new `folder`, whole or not at all; equal feedback gives equal bytes.

    Raises ConfigError for an unknown layout or format, DataError where nothing can be exported, StoreError when the
    disk is full.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"no layout for export is called {layout!r}; known are {', '.join(LAYOUTS)}")
    if form not in FORMATS:
        raise ConfigError(f"the format is {form!r}; expected {' or '.join(FORMATS)}")
    records = LAYOUTS[layout](feedback)
    told = {id(judgment) for _, judgments in records for judgment in judgments}
    left_out = Counter(_kind(judgment) for judgment in feedback if id(judgment) not in told)
    if not records:
        raise DataError(f"none of {len(feedback)} judgments can be written as {layout}; choose another layout")
    with written_whole(Path(folder)) as unfinished:
        unfinished.mkdir()
        files = tuple(_write_files(unfinished, [record for record, _ in records], form))
        kinds = Counter(map(_kind, feedback))
        manifest = Manifest(
            layout, form, len(feedback), dict(sorted(kinds.items())), dict(sorted(left_out.items())), files, seq_range
        )
        write_text(unfinished / MANIFEST, json.dumps(asdict(manifest), indent=2) + "\n")
    return manifest


def _kind(judgment: Feedback) -> str:
    return type(judgment).__name__.lower()


def _write_files(folder: Path, records: Sequence[Record], form: Format) -> Iterator[ExportedFile]:
    by_form: dict[str, list[Record]] = {}
    for record in records:
        name = "texts" if isinstance(record.get("prompt"), str) else "conversations"
        by_form.setdefault(name, []).append(record)
    for name, rows in sorted(by_form.items()):
        path = folder / f"{name}.{form}"
        if form == "jsonl":
            path.write_text("".join(f"{_line(row)}\n" for row in rows), encoding="utf-8", newline="\n")
        else:
            write_parquet(path, rows)
        yield ExportedFile(path.name, len(rows), hashlib.sha256(path.read_bytes()).hexdigest())


def _line(record: Record) -> str:
    text = json.dumps(record, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: only an escape can hold it
        return json.dumps(record)
    return text


def write_parquet(path: Path, rows: Sequence[Record]) -> None:
    """Write `rows` as a Parquet table. Raises ConfigError without pyarrow, DataError for what a table cannot hold."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow: pip install 'rewardloop[export]'") from error
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
        parquet.write_table(pa.table(columns), path)
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise DataError(f"a Parquet table cannot hold these records ({error}); export JSON lines") from error
