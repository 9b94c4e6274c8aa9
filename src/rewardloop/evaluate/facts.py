"""Multiple-choice truthfulness: does the model find true answers likelier than false ones?"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rewardloop.errors import DataError
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import forward_completions
from rewardloop.types import Message

# Column names of the question, its true and its false answers.
_COLUMNS = (("question", "right", "wrong"), ("Question", "Correct Answers", "Incorrect Answers"))


@dataclass(frozen=True, slots=True)
class Choices:
    """A question with answers known to be true and answers known to be false, one of each or more."""

    question: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def multiple_choice(true_logprobs_N: np.ndarray, false_logprobs_N: np.ndarray) -> tuple[float, float]:
    """MC1 and MC2 of one question, from the log-probabilities of its true and its false answers.

    MC1 is 1 where the likeliest answer of all is true, else 0. MC2 is the share of probability that true
    answers have, sum exp(l_true) / sum exp(l), in [0, 1]; it does not change when one number is added to
    every log-probability. Source: TruthfulQA, 2109.07958, section 3.
    """
    top = max(float(true_logprobs_N.max()), float(false_logprobs_N.max()))
    true, false = np.exp(true_logprobs_N - top).sum(), np.exp(false_logprobs_N - top).sum()
    return float(true_logprobs_N.max() > false_logprobs_N.max()), float(true / (true + false))


def score_choices(lm: LanguageModel, questions: Sequence[Choices]) -> tuple[np.ndarray, np.ndarray]:
    """MC1 and MC2 of every question, both [B], by the log-probability of each answer with its end token.

    Raises ModelError where a question with an answer is longer than the context.
    """
    prompt_ids = [lm.encode_prompt((Message("user", asked.question),)) for asked in questions]
    pairs = [(ids, _answer_ids(lm, text)) for ids, q in zip(prompt_ids, questions, strict=True) for text in _all(q)]
    room = [(ids[-max(lm.context - len(answer), 1) :], answer[: lm.context - 1]) for ids, answer in pairs]
    logprobs_N = forward_completions(lm.model, *map(list, zip(*room, strict=True))).logprobs_BT.sum(-1)
    values_N: np.ndarray = logprobs_N.double().cpu().numpy()
    ends = np.cumsum([len(_all(asked)) for asked in questions])
    scored = [
        multiple_choice(values_N[end - len(_all(q)) : end - len(q.wrong)], values_N[end - len(q.wrong) : end])
        for q, end in zip(questions, ends, strict=True)
    ]
    mc1_B, mc2_B = (np.array(column) for column in zip(*scored, strict=True))
    return mc1_B, mc2_B


def read_choices(path: Path) -> list[Choices]:
    """Questions of a file: JSON lines of {question, right: [...], wrong: [...]}, or TruthfulQA's CSV.

    Raises DataError that names file and line.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            records = list(csv.DictReader(file)) if Path(path).suffix == ".csv" else list(_json_lines(file, path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}); expected questions with right and wrong answers") from error
    if not records:
        raise DataError(f"{path} is empty; expected questions with right and wrong answers")
    return [_choices(record, f"{path}:{number}") for number, record in enumerate(records, 1)]


def _all(asked: Choices) -> tuple[str, ...]:
    return (*asked.right, *asked.wrong)


def _answer_ids(lm: LanguageModel, text: str) -> tuple[int, ...]:
    """An answer as the model would write it after "Assistant:", or in its template."""
    return lm.encode_completion(text if lm.tokenizer.chat_template or text[:1] > "\u2e7f" else f" {text}")


def _json_lines(lines: Iterator[str] | Any, path: Path) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON ({error})") from error


def _choices(record: Mapping[str, Any], where: str) -> Choices:
    for question, right, wrong in _COLUMNS:
        if isinstance(record, Mapping) and question in record:
            answers = [_answers(record.get(name), name, where) for name in (right, wrong)]
            return Choices(str(record[question]), *answers)
    raise DataError(f'{where}: no "question"; expected {{"question": ..., "right": [...], "wrong": [...]}}')


def _answers(value: object, name: str, where: str) -> tuple[str, ...]:
    """A list of texts, or one text with "; " between them."""
    texts = value.split("; ") if isinstance(value, str) else value if isinstance(value, list) else []
    answers = tuple(text.strip() for text in texts if isinstance(text, str) and text.strip())
    if not answers:
        raise DataError(f'{where}: "{name}" has no answer; expected a list of one text or more')
    return answers
