"""Prompts to learn or measure on: a text file, JSON lines, or the prompts of any feedback."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rewardloop.errors import DataError
from rewardloop.feedback.conversations import read_messages
from rewardloop.feedback.reading import read_feedback
from rewardloop.files import write_text
from rewardloop.types import Prompt

PROMPTS = "prompts.jsonl"  # beside a reward model: the prompts it was trained on


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts in `path`, each once, in order of first appearance.

    A .txt file has one prompt a line. JSON lines have {"prompt": a text or a list of messages} and nothing else,
    or are feedback in any layout, whose prompts are taken. A folder of a reward model brings those it was trained
    on. Raises DataError that names file and line.
    """
    path = Path(path)
    if (path / PROMPTS).is_file():
        path = path / PROMPTS
    if path.suffix == ".txt" and path.is_file():
        prompts: list[Prompt] = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    else:
        prompts = _read_lines(path) or [judgment.prompt for judgment in read_feedback(path)]
    found = list(dict.fromkeys(prompts))
    if not found:
        raise DataError(f"{path} has no prompts; expected one a line, or feedback in any layout")
    return found


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """Write JSON lines that `read_prompts` reads, each prompt once."""
    records = ({"prompt": p if isinstance(p, str) else [asdict(m) for m in p]} for p in dict.fromkeys(prompts))
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _read_lines(path: Path) -> list[Prompt]:
    """Prompts of a file of bare prompts; empty when it holds anything else."""
    if path.suffix != ".jsonl" or not path.is_file():
        return []
    prompts: list[Prompt] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})") from error
        if not isinstance(record, dict) or set(record) != {"prompt"}:
            return []
        prompt = record["prompt"]
        prompts.append(prompt if isinstance(prompt, str) else read_messages(prompt))
    return prompts
