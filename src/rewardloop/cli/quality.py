"""`rewardloop feedback agreement` and `rewardloop feedback annotators`: how far people agree, and whom to trust."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rewardloop.errors import DataError
from rewardloop.feedback.agreement import Agreement, Consistency, measure_agreement, measure_consistency
from rewardloop.feedback.monitoring import StraightLine, find_straight_lines
from rewardloop.feedback.reading import read_feedback
from rewardloop.feedback.reliability import Reliability, measure_people
from rewardloop.types import Feedback


def agreement(paths: Sequence[Path], layout: str | None, as_json: bool, console: Console, seed: int = 0) -> None:
    """How far people agree with each other, question by question. Raises DataError where no two people met."""
    found = measure_agreement(_read(paths, layout), seed)
    if not found:
        raise DataError("no two named people judged the same thing: agreement needs an overlap of two or more")
    if as_json:
        _print_json([asdict(row) for row in found], console)
    else:
        console.print(_agreement_table(found))


def annotators(
    paths: Sequence[Path], layout: str | None, criterion: str | None, as_json: bool, console: Console, seed: int = 0
) -> None:
    """Reliability, habits and signs of every named person. Raises DataError where nobody has a name.

    `criterion` None takes the one that most judgments name: people who read facts well may not hear the tone.
    """
    feedback = _read(paths, layout)
    if not any(judgment.annotator for judgment in feedback):
        raise DataError("no judgment names its annotator: nothing can be said about people")
    criterion = criterion or Counter(judgment.criterion for judgment in feedback).most_common(1)[0][0]
    chosen = [judgment for judgment in feedback if judgment.criterion == criterion]
    people = measure_people(chosen, seed=seed).reliabilities()
    again = {row.annotator: row for row in measure_consistency(chosen)}
    lines = {row.annotator: row for row in find_straight_lines(chosen) if row.suspicious}
    if as_json:
        _print_json([_person_record(row, again, lines) for row in people], console)
    else:
        console.print(_people_table(people, again, lines, criterion))


def _read(paths: Sequence[Path], layout: str | None) -> list[Feedback]:
    return [judgment for path in paths for judgment in read_feedback(path, layout)]


def _agreement_table(found: Sequence[Agreement]) -> Table:
    table = Table(title="Agreement (alpha: 1 perfect, 0 chance; above .8 firm, .67 tentative)")
    for heading in ("question", "criterion"):
        table.add_column(heading)
    for heading in ("alpha", "95 %", "same", "AC1", "items", "people"):
        table.add_column(heading, justify="right")
    for row in found:
        interval = "" if row.interval is None else f"{row.interval[0]:.2f} to {row.interval[1]:.2f}"
        table.add_row(
            row.question.kind,
            row.question.criterion,
            _number(row.alpha),
            interval,
            f"{row.same:.0%}",
            _number(row.ac1),
            str(row.items),
            str(row.people),
        )
    return table


def _people_table(
    people: Sequence[Reliability],
    again: dict[str, Consistency],
    lines: dict[str, StraightLine],
    criterion: str,
) -> Table:
    table = Table(title=f"Annotators, by {criterion}: the least reliable first")
    table.add_column("annotator")
    for heading in ("judgments", "weight", "95 %", "kappa", "lapse", "side", "severity", "repeats same"):
        table.add_column(heading, justify="right")
    table.add_column("signs")
    for row in people:
        table.add_row(
            row.annotator,
            str(row.judgments),
            f"{row.weight:.2f}",
            f"{row.interval[0]:.2f} to {row.interval[1]:.2f}",
            f"{row.discrimination:.2f}",
            f"{row.lapse:.2f}",
            f"{row.side_bias:+.2f}",
            f"{row.severity:+.2f}",
            _number(again[row.annotator].same if row.annotator in again else None),
            _signs(row, lines),
        )
    return table


def _signs(row: Reliability, lines: dict[str, StraightLine]) -> str:
    signs = []
    if row.discrimination + 2 * row.discrimination_sd < 0:
        signs.append("says the opposite")
    if row.annotator in lines:
        signs.append(f"{lines[row.annotator].length} times {lines[row.annotator].answer} in a row")
    return "; ".join(signs)


def _person_record(row: Reliability, again: dict[str, Consistency], lines: dict[str, StraightLine]) -> dict[str, Any]:
    consistency, line = again.get(row.annotator), lines.get(row.annotator)
    return {
        **asdict(row),
        "consistency": None if consistency is None else asdict(consistency),
        "straight_line": None if line is None else asdict(line),
    }


def _print_json(records: list[dict[str, Any]], console: Console) -> None:
    console.print(json.dumps(records, ensure_ascii=False, indent=2), soft_wrap=True, highlight=False, markup=False)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
