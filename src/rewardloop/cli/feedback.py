"""`rewardloop feedback import | export`: between files and the data directory of a running or resting installation."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rewardloop.errors import DataError
from rewardloop.feedback.exporting import Format, Manifest, export_feedback
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog, LogReader
from rewardloop.feedback.log.settled import SETTLING_S
from rewardloop.feedback.log.transfer import export_from, import_into
from rewardloop.feedback.reading import import_feedback
from rewardloop.types import Feedback


def import_files(files: list[Path], data: Path, layout: str | None, console: Console) -> None:
    """Read all of `files` before anything is stored, then append them to the log of `data`."""
    feedback: list[Feedback] = []
    skipped: Counter[str] = Counter()
    for file in files:
        read = import_feedback(file, layout)
        feedback += read.feedback
        skipped.update(read.skipped)
    with EventLog(data_url(data)) as log:
        result = import_into(log, feedback)
    skipped.update(result.skipped)
    console.print(f"{result.stored} judgments stored in {data}, {result.known} were there already", highlight=False)
    for reason, count in skipped.items():
        console.print(f"  left out: {count} × {reason}", style="yellow", highlight=False)


def export_files(
    out: Path, data: Path | None, files: list[Path], layout: str, form: Format, kinds: list[str], console: Console
) -> None:
    """Write the judgments of `data`, or of `files`, into the new folder `out`."""
    feedback, seq_range = _collect(data, files)
    if kinds:
        feedback = [judgment for judgment in feedback if type(judgment).__name__.lower() in kinds]
    if not feedback:
        raise DataError(f"there is no feedback to export{' of kind ' if kinds else ''}{', '.join(kinds)}")
    _show(export_feedback(feedback, out, layout, form, seq_range), out, console)


def _collect(data: Path | None, files: list[Path]) -> tuple[list[Feedback], tuple[int, int] | None]:
    if files:
        return [judgment for file in files for judgment in import_feedback(file).feedback], None
    with LogReader(data_url(data or Path("rewardloop-data"))) as log:
        return export_from(log, time.time() + SETTLING_S)


def _show(manifest: Manifest, out: Path, console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in ("file", "rows", "SHA-256"):
        table.add_column(heading)
    for file in manifest.files:
        table.add_row(str(out / file.name), str(file.rows), file.sha256)
    console.print(table)
    for kind, count in manifest.left_out.items():
        said = f"  left out: {count} × {kind}, which {manifest.layout} cannot hold"
        console.print(said, style="yellow", highlight=False)
