"""Judgments as records of other layouts: TRL, HH-RLHF, Argilla, Label Studio, Open WebUI.

Each layout is a function from all judgments to records, each with the judgments that it tells. The names are those of
`rewardloop feedback export --layout`; `reading.py` reads all of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, Final

from rewardloop.feedback.conversations import write_dialogue, write_transcript
from rewardloop.feedback.records import to_record
from rewardloop.types import (
    THUMB,
    Comment,
    Dialogue,
    Edit,
    Feedback,
    Flag,
    Message,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Span,
)

Record = dict[str, Any]
Told = tuple[Record, Sequence[Feedback]]


def _each(write: Callable[[Any], Iterator[Record]]) -> Callable[[Sequence[Feedback]], list[Told]]:
    """A layout in which every judgment stands for itself."""
    return lambda feedback: [(record, (judgment,)) for judgment in feedback for record in write(judgment)]


def _own(judgment: Feedback) -> Iterator[Record]:
    yield to_record(judgment)


# ---------------------------------------------------------------- TRL


def _trl_preference(judgment: Feedback) -> Iterator[Record]:
    for chosen, rejected in _decided(judgment):
        yield {
            "prompt": _prompt(judgment.prompt),
            "chosen": _answer(judgment.prompt, chosen),
            "rejected": _answer(judgment.prompt, rejected),
            **_annotator(judgment),
        }


def _decided(judgment: Feedback) -> Iterator[tuple[str, str]]:
    """(better, worse) texts."""
    match judgment:
        case Preference(first=first, second=second, choice="first"):
            yield first, second
        case Preference(first=first, second=second, choice="second"):
            yield second, first
        case Ranking(completions=completions, ranks=ranks):
            for (a, rank_a), (b, rank_b) in combinations(zip(completions, ranks, strict=True), 2):
                if rank_a != rank_b:
                    yield (a, b) if rank_a < rank_b else (b, a)
        case Edit(completion=completion, corrected=corrected) if completion != corrected:
            yield corrected, completion
        case Dialogue(completion=completion, rewrite=str(rewrite)) if completion != rewrite:
            yield rewrite, completion


def _trl_unpaired(judgment: Feedback) -> Iterator[Record]:
    label = _is_good(judgment)
    if label is not None:
        answer = _answer(judgment.prompt, judgment.completion)  # type: ignore[union-attr]
        yield {"prompt": _prompt(judgment.prompt), "completion": answer, "label": label, **_annotator(judgment)}


def _is_good(judgment: Feedback) -> bool | None:
    """Above or below the middle of the scale; None in the middle, and where nothing is said of the whole."""
    match judgment:
        case Rating(value=value, scale=scale):
            above = 2 * value - scale.low - scale.high
            return None if above == 0 else above > 0
        case Dialogue(evaluation=1 | -1 as evaluation):
            return evaluation > 0
        case Flag():
            return False
    return None


def _trl_prompt_completion(judgment: Feedback) -> Iterator[Record]:
    match judgment:
        case Edit(corrected=text) | Dialogue(rewrite=str(text)):
            yield {"prompt": _prompt(judgment.prompt), "completion": _answer(judgment.prompt, text)}
        case Rating(completion=text) if _is_good(judgment):
            yield {"prompt": _prompt(judgment.prompt), "completion": _answer(judgment.prompt, text)}


def _trl_stepwise(feedback: Sequence[Feedback]) -> list[Told]:
    """Steps are lines; a step is wrong where somebody marked a part of it as bad."""
    marks: dict[tuple[Prompt, str], list[Span]] = {}
    for judgment in feedback:
        if isinstance(judgment, Span):
            marks.setdefault((judgment.prompt, judgment.completion), []).append(judgment)
    return [(_steps(prompt, text, spans), spans) for (prompt, text), spans in marks.items()]


def _steps(prompt: Prompt, text: str, spans: Sequence[Span]) -> Record:
    steps, labels, start = text.split("\n"), [], 0
    for step in steps:
        end = start + len(step)
        labels.append(not any(span.severity < 0 and span.start < end and start < span.end for span in spans))
        start = end + 1
    return {"prompt": _flat(prompt), "completions": steps, "labels": labels}


def _prompt(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [asdict(turn) for turn in prompt]


def _flat(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else write_transcript(prompt)


def _answer(prompt: Prompt, text: str) -> Any:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _annotator(judgment: Feedback) -> Record:
    return {} if judgment.annotator is None else {"annotator": judgment.annotator}


# ---------------------------------------------------------------- HH-RLHF


def _hh(judgment: Feedback) -> Iterator[Record]:
    for chosen, rejected in _decided(judgment):
        yield {"chosen": _dialogue(judgment.prompt, chosen), "rejected": _dialogue(judgment.prompt, rejected)}


def _dialogue(prompt: Prompt, text: str) -> str:
    if isinstance(prompt, str):
        return prompt + text
    return write_dialogue((*prompt, Message("assistant", text)))


# ---------------------------------------------------------------- Argilla


def _argilla(judgment: Feedback) -> Iterator[Record]:
    """Records of Argilla 2; the scale of a rating stands in the metadata, as Argilla keeps it with its settings."""
    question, texts = judgment.criterion, _texts(judgment)
    value: Any = None
    extra: Record = {}
    match judgment:
        case Rating(value=stars, scale=scale):
            value, extra = stars, {"low": scale.low, "high": scale.high}
        case Preference(choice=choice):
            value = {"first": "response-1", "second": "response-2"}.get(choice, choice)
        case Ranking(ranks=ranks):
            value = [{"value": name, "rank": rank} for name, rank in zip(texts, ranks, strict=True)]
        case Edit(corrected=corrected):
            question, value = "correction", corrected
        case Comment(text=text):
            question, value = "comment", text
        case Span(start=start, end=end, category=category):
            value = [{"label": category, "start": start, "end": end}]
    if value is not None:
        answer = {"value": value, "status": "submitted", "user_id": judgment.annotator}
        record = {"fields": {**_prompt_field(judgment.prompt), **texts}, "responses": {question: [answer]}}
        yield {**record, "metadata": extra}


def _texts(judgment: Feedback) -> dict[str, str]:
    match judgment:
        case Preference(first=first, second=second):
            return {"response-1": first, "response-2": second}
        case Ranking(completions=completions):
            return {f"response-{number}": text for number, text in enumerate(completions, start=1)}
        case _:
            return {"response": judgment.completion}


def _prompt_field(prompt: Prompt) -> Record:
    return {"prompt": prompt} if isinstance(prompt, str) else {"messages": _prompt(prompt)}


# ---------------------------------------------------------------- Label Studio


def _label_studio(judgment: Feedback) -> Iterator[Record]:
    """Tasks of Label Studio, each with one annotation."""
    name, kind = judgment.criterion, ""
    value: Record = {}
    meta: Record = {}
    match judgment:
        case Rating(value=stars, scale=scale):
            kind, value, meta = "rating", {"rating": stars}, {"low": scale.low, "high": scale.high}
        case Preference(choice="first" | "second" as choice):
            kind, value = "pairwise", {"selected": "left" if choice == "first" else "right"}
        case Preference(choice=choice):
            kind, value = "choices", {"choices": [choice]}
        case Ranking() if len(set(judgment.ranks)) == len(judgment.ranks) == max(judgment.ranks):
            names = list(_texts(judgment))
            ordered = sorted(range(len(names)), key=lambda place: judgment.ranks[place])
            kind, value = "ranker", {"ranker": [names[place] for place in ordered]}
        case Edit(corrected=corrected):
            name, kind, value = "correction", "textarea", {"text": [corrected]}
        case Comment(text=text):
            name, kind, value = "comment", "textarea", {"text": [text]}
        case Span(start=start, end=end, category=category):
            kind, value = "labels", {"start": start, "end": end, "labels": [category]}
    if kind:
        texts = _texts(judgment)
        result = {"from_name": name, "to_name": next(iter(texts)), "type": kind, "value": value, "meta": meta}
        annotation = {"completed_by": judgment.annotator, "result": [result]}
        yield {"data": {**_prompt_field(judgment.prompt), **texts}, "annotations": [annotation]}


# ---------------------------------------------------------------- Open WebUI


def _open_webui(judgment: Feedback) -> Iterator[Record]:
    """Feedback of Open WebUI: thumbs, stars from 1 to 10, remarks, choices, with the snapshot of the chat."""
    data: Record | None = None
    texts = list(_texts(judgment).values())
    match judgment:
        case Rating(value=value, scale=scale) if scale == THUMB:
            data = {"rating": 1 if value else -1}
        case Rating(value=value, scale=scale) if (scale.low, scale.high) == (1, 10):
            data = {"rating": None, "details": {"rating": value}}
        case Comment(text=text):
            data = {"rating": None, "comment": text}
        case Preference(choice="first" | "second" as choice):
            data = {"rating": 1 if choice == "first" else -1, "sibling_model_ids": ["model-2"]}
    if data is not None:
        chat = _chat(judgment.prompt, texts)
        meta = {"message_id": "answer-1", "chat_id": hashlib.sha256(json.dumps(chat).encode()).hexdigest()[:32]}
        snapshot = {"chat": {"history": {"messages": chat, "currentId": "answer-1"}}}
        yield {"user_id": judgment.annotator, "data": data, "meta": meta, "snapshot": {"chat": snapshot}}


def _chat(prompt: Prompt, answers: Sequence[str]) -> Record:
    turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
    messages: Record = {}
    parent = None
    for number, turn in enumerate(turns):
        messages[f"turn-{number}"] = {"id": f"turn-{number}", "parentId": parent, **asdict(turn)}
        parent = f"turn-{number}"
    for number, text in enumerate(answers, start=1):
        said = {"role": "assistant", "content": text, "model": f"model-{number}"}
        messages[f"answer-{number}"] = {"id": f"answer-{number}", "parentId": parent, **said}
    return messages


LAYOUTS: Final[Mapping[str, Callable[[Sequence[Feedback]], list[Told]]]] = {
    "rewardloop": _each(_own),
    "trl-preference": _each(_trl_preference),
    "trl-unpaired": _each(_trl_unpaired),
    "trl-prompt-completion": _each(_trl_prompt_completion),
    "trl-stepwise": _trl_stepwise,
    "hh": _each(_hh),
    "argilla": _each(_argilla),
    "label-studio": _each(_label_studio),
    "open-webui": _each(_open_webui),
}
