"""Exports of annotation tools, whose records are trees that name their own questions: Argilla, Label Studio, Open
WebUI.

Texts are found by the names of their fields: prompt, instruction, question ... and response, completion, answer ...,
numbered where several are compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rewardloop.errors import DataError
from rewardloop.feedback.conversations import is_messages, read_messages
from rewardloop.feedback.records import build_feedback
from rewardloop.types import (
    Comment,
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

Record = Mapping[str, Any]

_PROMPT = re.compile(r"prompt|instruction|question|query|context|input|messages|conversation|chat", re.I)
_COMPLETION = re.compile(r"(response|completion|answer|output|generation|candidate|text|reply)s?[-_ ]?(\w*)$", re.I)
_CORRECTION = re.compile(r"correct|edit|rewrite|improve|fix", re.I)
_SIDES = {"left": 0, "right": 1, "a": 0, "b": 1, "1": 0, "2": 1}
_TIES = {"tie", "equal", "same", "both", "both_good", "none"}


# ---------------------------------------------------------------- texts of a record


def _texts(fields: Record) -> tuple[Prompt, dict[str, str]]:
    """The prompt and the named completions among `fields`. Raises DataError without a completion."""
    completions = {
        name: value
        for name, value in fields.items()
        if isinstance(value, str) and _COMPLETION.match(name) and not _CORRECTION.search(name)
    }
    prompts = [value for name, value in fields.items() if name not in completions and _PROMPT.search(name)]
    if not completions:
        raise DataError(
            f"none of the fields {', '.join(fields)} is named as a completion "
            "(response, completion, answer, output, text)"
        )
    return _read_prompt(prompts), completions


def _read_prompt(values: Sequence[Any]) -> Prompt:
    """Conversations as they are; other texts become one turn of the user."""
    for value in values:
        if is_messages(value):
            return read_messages(value)
    text = "\n\n".join(value for value in values if isinstance(value, str) and value)
    return (Message("user", text),) if text else ""


def _only(completions: Mapping[str, str]) -> str:
    return next(iter(completions.values()))


def _side(name: str, completions: Mapping[str, str]) -> int | None:
    """0 or 1 where an answer means the first or second completion, by name, number, letter or side."""
    names = [key.lower() for key in completions]
    plain = name.lower()
    if plain in names[:2]:
        return names.index(plain)
    numbered = _COMPLETION.match(plain)
    return _SIDES.get(numbered.group(2) if numbered and numbered.group(2) else plain)


def _choose(base: Record, completions: Mapping[str, str], answer: str) -> Feedback | None:
    """A choice between two completions, where `answer` means one."""
    if len(completions) < 2:
        return None
    first, second = list(completions.values())[:2]
    choice: str | None = None
    side = _side(answer, completions)
    if side is not None:
        choice = ("first", "second")[side]
    elif answer.lower() in ("both_bad", "both bad", "neither"):
        choice = "both_bad"
    elif answer.lower() in _TIES:
        choice = "tie"
    if choice is None:
        return None
    return build_feedback(Preference, {**base, "first": first, "second": second, "choice": choice})


def _write(base: Record, completions: Mapping[str, str], question: str, text: str) -> Feedback:
    """A text typed by the annotator: a correction where the question asks for one, else a comment."""
    completion = _only(completions)
    if _CORRECTION.search(question):
        return build_feedback(Edit, {**base, "completion": completion, "corrected": text})
    return build_feedback(Comment, {**base, "completion": completion, "text": text})


def _rank(base: Record, completions: Mapping[str, str], ranks: Mapping[str, int]) -> Feedback:
    """`ranks`: rank by name of completion (or of its number)."""
    names = list(completions)
    chosen = {_match(name, names): rank for name, rank in ranks.items()}
    values = {"completions": tuple(completions[name] for name in chosen), "ranks": tuple(chosen.values())}
    return build_feedback(Ranking, {**base, **values})


def _match(name: str, names: Sequence[str]) -> str:
    if name in names:
        return name
    ending = [known for known in names if re.search(rf"(^|\D){re.escape(name)}$", known)]
    if len(ending) != 1:
        raise DataError(f"{name!r} in a ranking is none of the texts {', '.join(names)}")
    return ending[0]


# ---------------------------------------------------------------- Argilla


def read_argilla(record: Record) -> Iterator[Feedback]:
    """Responses of an Argilla record, 2.x (question -> list of answers) or 1.x (list of people with values)."""
    prompt, completions = _texts(record["fields"])
    for question, answer, annotator in _argilla_answers(record["responses"]):
        base = {"prompt": prompt, "annotator": annotator, "criterion": question}
        yield from _read_answer(base, completions, question, answer, _scale(record.get("metadata")))


def _argilla_answers(responses: Any) -> Iterator[tuple[str, Any, str | None]]:
    if isinstance(responses, Mapping):
        for question, answers in responses.items():
            for answer in answers or ():
                if answer.get("status", "submitted") == "submitted":
                    yield question, answer.get("value"), _name(answer.get("user_id"))
        return
    for person in responses or ():
        if person.get("status", "submitted") == "submitted":
            for question, answer in (person.get("values") or {}).items():
                yield question, answer.get("value"), _name(person.get("user_id"))


def _read_answer(
    base: Record, completions: Mapping[str, str], question: str, answer: Any, scale: Record
) -> Iterator[Feedback]:
    """The kind of a question shows in its answer: a number, a name, a text, ranks, spans."""
    completion = _only(completions)
    if isinstance(answer, bool | int):
        stars = {"value": int(answer), **_stars(int(answer)), **scale}
        yield build_feedback(Rating, {**base, "completion": completion, **stars})
    elif isinstance(answer, str):
        yield _choose(base, completions, answer) or _write(base, completions, question, answer)
    elif isinstance(answer, list) and all(isinstance(part, Mapping) and "rank" in part for part in answer):
        yield _rank(base, completions, {str(part["value"]): int(part["rank"]) for part in answer})
    elif isinstance(answer, list) and all(isinstance(part, Mapping) and "start" in part for part in answer):
        for part in answer:
            place = {"start": part["start"], "end": part["end"], "category": str(part["label"])}
            yield build_feedback(Span, {**base, "completion": completion, **place})
    elif isinstance(answer, list) and all(isinstance(part, str) for part in answer):
        for part in answer:
            yield build_feedback(Comment, {**base, "completion": completion, "text": part})
    elif answer is not None:
        raise DataError(f"the answer to {question!r} is {answer!r}: none of rating, label, text, ranking, spans")


def _stars(value: int) -> dict[str, Any]:
    """Five stars unless the value shows that there are more: exports do not carry the scale."""
    return {"scale": {"low": 0 if value < 1 else 1, "high": 5 if value <= 5 else 10}}


def _scale(metadata: Any) -> Record:
    """The scale, where the file was written by us (export_layouts.py)."""
    if isinstance(metadata, Mapping) and metadata.get("low") is not None:
        return {"scale": {"low": metadata["low"], "high": metadata["high"]}}
    return {}


# ---------------------------------------------------------------- Label Studio


def read_label_studio(task: Record) -> Iterator[Feedback]:
    """Results of a Label Studio task: rating, choices, pairwise, textarea, ranker, labels."""
    prompt, completions = _texts(task["data"])
    for annotation in task["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        annotator = _name(annotation.get("completed_by"))
        for result in annotation.get("result", ()):
            base = {
                "prompt": prompt,
                "annotator": annotator,
                "criterion": str(result.get("from_name", "overall")),
            }
            yield from _read_result(base, completions, result)


def _read_result(base: Record, completions: Mapping[str, str], result: Record) -> Iterator[Feedback]:
    value, question = result.get("value", {}), str(result.get("from_name", ""))
    about = _subset(completions, result.get("to_name"))
    match result.get("type"):
        case "rating":
            number = int(value["rating"])
            stars = {"value": number, **_stars(number), **_scale(result.get("meta"))}
            yield build_feedback(Rating, {**base, "completion": _only(about), **stars})
        case "pairwise":
            chosen = _choose(base, completions, str(value["selected"]))
            if chosen:
                yield chosen
        case "choices":
            for choice in value["choices"]:
                yield _choose(base, completions, str(choice)) or _write(base, about, "", str(choice))
        case "textarea":
            for text in _as_list(value["text"]):
                yield _write(base, about, question, text)
        case "ranker":
            order = value["ranker"]
            names = order if isinstance(order, list) else [name for part in order.values() for name in part]
            yield _rank(base, completions, {str(name): rank for rank, name in enumerate(names, start=1)})
        case "labels":
            for label in value["labels"]:
                place = {"start": value["start"], "end": value["end"], "category": str(label)}
                yield build_feedback(Span, {**base, "completion": _only(about), **place})
        case kind:
            raise DataError(f"a result of type {kind!r}; known are rating, pairwise, choices, textarea, ranker, labels")


def _subset(completions: Mapping[str, str], name: Any) -> Mapping[str, str]:
    return {name: completions[name]} if name in completions else completions


# ---------------------------------------------------------------- Open WebUI


def read_open_webui(record: Record) -> Iterator[Feedback]:
    """A thumb on a message of a chat; a choice where sibling models answered the same turn; a remark.

    The texts are in the snapshot of the chat.
    """
    data, meta = record["data"], record["meta"]
    messages = _snapshot_messages(record["snapshot"])
    message = messages.get(str(meta.get("message_id")))
    if message is None:
        raise DataError(f"message {meta.get('message_id')!r} is not in the snapshot of the chat; export with snapshots")
    base = {"prompt": _ancestors(messages, message), "annotator": _name(record.get("user_id"))}
    completion = str(message["content"])
    rating = _number(data.get("rating"))
    siblings = _siblings(messages, message, data.get("sibling_model_ids") or ())
    if siblings and rating:
        choice = "first" if rating > 0 else "second"
        for sibling in siblings:
            yield build_feedback(Preference, {**base, "first": completion, "second": sibling, "choice": choice})
    elif rating:
        thumb = {"value": int(rating > 0), "scale": {"low": 0, "high": 1}}
        yield build_feedback(Rating, {**base, "completion": completion, **thumb})
    stars = _number((data.get("details") or {}).get("rating"))
    if stars:
        value = {"value": stars, "scale": {"low": 1, "high": 10}}
        yield build_feedback(Rating, {**base, "completion": completion, **value})
    yield from _remarks(base, completion, data)


def _remarks(base: Record, completion: str, data: Record) -> Iterator[Feedback]:
    if data.get("reason") == "harmful":
        yield build_feedback(Flag, {**base, "completion": completion, "reason": "harmful"})
    remark = ": ".join(str(data[name]) for name in ("reason", "comment") if data.get(name))
    if remark:
        yield build_feedback(Comment, {**base, "completion": completion, "text": remark})


def _snapshot_messages(snapshot: Any) -> dict[str, Record]:
    chat = snapshot
    while isinstance(chat, Mapping) and "history" not in chat and "chat" in chat:
        chat = chat["chat"]
    if not isinstance(chat, Mapping) or not isinstance(chat.get("history"), Mapping):
        raise DataError("the snapshot holds no chat with a history; export with snapshots")
    return dict(chat["history"].get("messages", {}))


def _ancestors(messages: Mapping[str, Record], message: Record) -> tuple[Message, ...]:
    turns: list[Record] = []
    parent = messages.get(str(message.get("parentId")))
    while parent is not None and len(turns) < len(messages):
        turns.append(parent)
        parent = messages.get(str(parent.get("parentId")))
    return read_messages([dict(turn) for turn in reversed(turns)])


def _siblings(messages: Mapping[str, Record], message: Record, models: Sequence[str]) -> list[str]:
    return [
        str(other["content"])
        for other in messages.values()
        if other.get("parentId") == message.get("parentId") and other is not message and other.get("model") in models
    ]


# ---------------------------------------------------------------- small things


def _name(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    return None if value is None else str(value)


def _number(value: Any) -> int | None:
    if value in (None, ""):
        return None
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"a rating of {value!r}; expected a whole number") from error


def _as_list(value: Any) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else [str(value)]


READERS: Mapping[str, Callable[[Record], Iterator[Feedback]]] = {
    "argilla": read_argilla,
    "label-studio": read_label_studio,
    "open-webui": read_open_webui,
}
