"""Layouts: how the columns of a file become feedback, as data (layouts.yaml), not as code for each data set."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from rewardloop.config import load_yaml
from rewardloop.errors import ConfigError, DataError
from rewardloop.feedback.conversations import (
    is_messages,
    is_transcript,
    read_messages,
    read_transcript,
    split_answer,
    split_common,
)
from rewardloop.feedback.records import build_feedback
from rewardloop.types import Comment, Edit, Feedback, Flag, Message, Preference, Prompt, Ranking, Rating, Span

Record = Mapping[str, Any]
_PLAIN_KINDS: dict[str, type[Feedback]] = {
    "edit": Edit,
    "rating": Rating,
    "comment": Comment,
    "flag": Flag,
    "span": Span,
}
_MAPPING_NAMES = {"name", "about", "has", "alone", "gives", "reader"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Which columns a file must have, and what each record of it says."""

    name: str
    about: str
    has: tuple[str, ...]
    alone: bool = False  # no other columns, so that a judgment in one of them is not overlooked
    gives: tuple[Mapping[str, Any], ...] = ()
    reader: str | None = None  # a layout that only code can read (annotation tools)

    def fits(self, record: Record) -> bool:
        """Every wanted column is there, and no other where the layout must be alone."""
        if self.alone and record.keys() - {"id", *self.has}:
            return False
        return all(any(name in record for name in column.split("|")) for column in self.has)


OWN = "rewardloop"  # the layout of records.py


@cache
def builtin_layouts() -> tuple[Layout, ...]:
    """The layouts of layouts.yaml."""
    text = files("rewardloop.feedback").joinpath("layouts.yaml").read_text(encoding="utf-8")
    return tuple(_build_layout(entry, "layouts.yaml") for entry in load_yaml(text, "layouts.yaml"))


def find_layout(record: Record, name: str | None = None) -> Layout | None:
    """The layout called `name` (or in the YAML file of that path), or the one that fits `record` most closely.

    None when no layout fits. Raises ConfigError for a name or file that does not exist.
    """
    if name is not None:
        return _named_layout(name)
    fitting = [layout for layout in builtin_layouts() if layout.fits(record)]
    # our own records name their kind and may hold the columns of any other layout beside it
    return max(fitting, key=lambda layout: (layout.name == OWN, len(layout.has)), default=None)


def read_record(layout: Layout, record: Record, scales: Mapping[str, tuple[int, int]]) -> Iterator[Feedback]:
    """What one record says. `scales`: least and greatest value of columns whose scale is `seen` (see seen_scales).

    Raises DataError that names the column.
    """
    for mapping in layout.gives:
        for item in _items(record, mapping.get("each")):
            extended = {**record, "each": item}
            if mapping["kind"] == "steps":
                yield from _read_steps(mapping, extended)
            else:
                yield _read_one(mapping, extended, scales)


def seen_scales(layout: Layout, records: Sequence[Record]) -> dict[str, tuple[int, int]]:
    """Least and greatest value of each column of ratings whose scale no mapping declares."""
    scales = {}
    for mapping in layout.gives:
        if mapping.get("scale") == "seen":
            column = str(mapping["value"])
            values = [_whole(value) for record in records if (value := _look(record, f"{column}|")) is not None]
            if not values or min(values) == max(values):
                raise DataError(f"all values of {column} are equal: there is no scale to be seen")
            scales[column] = (min(values), max(values))
    return scales


def _named_layout(name: str) -> Layout:
    for layout in builtin_layouts():
        if layout.name == name:
            return layout
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = ", ".join(layout.name for layout in builtin_layouts())
        raise ConfigError(f"no layout is called {name!r}; known are {known}, or give a YAML file with a mapping")
    if not path.is_file():
        raise ConfigError(f"no layout file at {path}")
    return _build_layout(load_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))


def _build_layout(entry: Any, where: str) -> Layout:
    if isinstance(entry, list) and len(entry) == 1:
        entry = entry[0]
    if not isinstance(entry, dict) or not ({"gives", "reader"} & entry.keys()) or entry.keys() - _MAPPING_NAMES:
        raise ConfigError(f"{where}: a layout has the names {', '.join(sorted(_MAPPING_NAMES))}; `gives` must be there")
    for mapping in entry.get("gives", ()):
        if mapping.get("kind") not in {*_PLAIN_KINDS, "preference", "ranking", "steps"}:
            raise ConfigError(f"{where}: {mapping.get('kind')!r} is no kind that a layout can give")
    return Layout(
        name=str(entry.get("name", where)),
        about=str(entry.get("about", "")),
        has=tuple(entry.get("has", ())),
        alone=bool(entry.get("alone", False)),
        gives=tuple(entry.get("gives", ())),
        reader=entry.get("reader"),
    )


# ---------------------------------------------------------------- one record


def _items(record: Record, each: Any) -> Iterator[Any]:
    if each is None:
        yield None
    elif isinstance(each, Mapping):
        for name in record:
            if fnmatch.fnmatch(name, str(each["columns"])) and record[name] not in (None, ""):
                yield {"name": name, "value": record[name]}
    else:
        items = _look(record, each)
        if not isinstance(items, list):
            raise DataError(f"{each} must be a list, given {type(items).__name__}")
        yield from items


def _read_one(mapping: Mapping[str, Any], record: Record, scales: Mapping[str, tuple[int, int]]) -> Feedback:
    values = _who_and_what(mapping, record)
    match mapping["kind"]:
        case "preference":
            return build_feedback(Preference, values | _read_preference(mapping, record))
        case "ranking":
            return build_feedback(Ranking, values | _read_ranking(mapping, record))
        case kind:
            return _read_plain(kind, mapping, record, values, scales)


def _who_and_what(mapping: Mapping[str, Any], record: Record) -> dict[str, Any]:
    values = {name: _value(record, mapping.get(name)) for name in ("annotator", "criterion")}
    return {name: str(value) for name, value in values.items() if value is not None}


def _read_steps(mapping: Mapping[str, Any], record: Record) -> Iterator[Feedback]:
    """A mark for each step of an answer; the answer is its steps, one a line."""
    steps, labels = _value(record, mapping["steps"]), _value(record, mapping["labels"])
    if not isinstance(steps, list) or not isinstance(labels, list) or len(steps) != len(labels):
        raise DataError("steps and their labels must be two lists of the same length")
    values = _who_and_what(mapping, record)
    values |= {"prompt": _prompt(record, mapping["prompt"]), "completion": "\n".join(map(_as_text, steps))}
    start = 0
    for step, label in zip(steps, labels, strict=True):
        place = {"start": start, "end": start + len(step), "category": "step"}
        if step:
            yield build_feedback(Span, values | place | {"severity": 1.0 if _whole(label) else -1.0})
        start += len(step) + 1


def _read_plain(
    kind: str,
    mapping: Mapping[str, Any],
    record: Record,
    values: dict[str, Any],
    scales: Mapping[str, tuple[int, int]],
) -> Feedback:
    if "conversation" in mapping:
        conversation = _prompt(record, mapping["conversation"])
        values["prompt"], values["completion"] = split_answer(conversation if isinstance(conversation, tuple) else ())
    else:
        values["prompt"] = _prompt(record, mapping["prompt"])
        values["completion"] = _text(record, mapping["completion"])
    for name in mapping.keys() - {
        "kind",
        "each",
        "prompt",
        "completion",
        "conversation",
        "scale",
        "value",
        "annotator",
    }:
        values[name] = _value(record, mapping[name])
    if kind == "rating":
        scale = mapping.get("scale", {"low": 1, "high": 5})
        low, high = scales[str(mapping["value"])] if scale == "seen" else (scale["low"], scale["high"])
        values |= {"value": _whole(_value(record, mapping["value"])), "scale": {"low": low, "high": high}}
    return build_feedback(_PLAIN_KINDS[kind], values)


def _read_preference(mapping: Mapping[str, Any], record: Record) -> dict[str, Any]:
    if "first" in mapping:
        return {
            "prompt": _prompt(record, mapping["prompt"]),
            "first": _text(record, mapping["first"]),
            "second": _text(record, mapping["second"]),
            "choice": _value(record, mapping["choice"]),
        }
    if "prompt" in mapping:
        prompt = _prompt(record, mapping["prompt"])
        chosen, rejected = _text(record, mapping["chosen"]), _text(record, mapping["rejected"])
    else:
        prompt, chosen, rejected = split_common(_value(record, mapping["chosen"]), _value(record, mapping["rejected"]))
    return {"prompt": prompt, **_unknown_side(chosen, rejected)}


def _unknown_side(chosen: str, rejected: str) -> dict[str, str]:
    """Which text was shown first is not on record: drawn by their digest, so that no side bias is read into it."""
    if hashlib.sha256(f"{chosen}\0{rejected}".encode()).digest()[0] % 2:
        return {"first": rejected, "second": chosen, "choice": "second"}
    return {"first": chosen, "second": rejected, "choice": "first"}


def _read_ranking(mapping: Mapping[str, Any], record: Record) -> dict[str, Any]:
    texts = _value(record, mapping["completions"])
    named = texts if isinstance(texts, Mapping) else dict(enumerate(texts))
    if "ranks" in mapping:
        ranks = _value(record, mapping["ranks"])
    else:
        order = _value(record, mapping["order"])
        by_name = order if isinstance(order, Mapping) else {name: rank for rank, name in enumerate(order, start=1)}
        if by_name.keys() != named.keys():
            raise DataError(f"the order names {sorted(map(str, by_name))}, the texts are {sorted(map(str, named))}")
        ranks = [by_name[name] for name in named]
    return {
        "prompt": _prompt(record, mapping["prompt"]),
        "completions": tuple(_as_text(text) for text in named.values()),
        "ranks": tuple(ranks),
    }


# ---------------------------------------------------------------- values


def _prompt(record: Record, place: Any) -> Prompt:
    if isinstance(place, Mapping) and "const" not in place:
        turns = ((role, _value(record, where)) for role, where in place.items())
        return tuple(Message(role, _as_text(text)) for role, text in turns if text)
    value = _value(record, place)
    if is_messages(value):
        return read_messages(value)
    if is_transcript(value):
        return read_transcript(value)
    return _as_text(value)


def _text(record: Record, place: Any) -> str:
    return _as_text(_value(record, place))


def _as_text(value: Any) -> str:
    if is_messages(value):
        return split_answer(read_messages(value))[1]
    if not isinstance(value, str):
        raise DataError(f"text was expected, given {type(value).__name__}: {str(value)[:40]!r}")
    return value


def _value(record: Record, place: Any) -> Any:
    if place is None or isinstance(place, str):
        return None if place is None else _look(record, place)
    if isinstance(place, list):
        return "\n\n".join(_as_text(text) for part in place if (text := _value(record, part)))
    if "const" in place:
        return place["const"]
    given = _value(record, place["of"])
    table = {str(key): value for key, value in place["values"].items()}
    if str(given) not in table:
        raise DataError(f"{place['of']} is {given!r}; known are {', '.join(table)}")
    return table[str(given)]


def _look(record: Any, places: str) -> Any:
    """The value at the first of "a.b|c" that is there; None if none is and the last is nothing ("a|")."""
    for place in places.split("|"):
        if not place:
            return None
        found, value = _follow(record, place)
        if found:
            return value
    have = ", ".join(name for name in record if name != "each") if isinstance(record, Mapping) else ""
    raise DataError(f"there is no {places.replace('|', ' or ')}; the record has {have}")


def _follow(value: Any, place: str) -> tuple[bool, Any]:
    for name in place.split("."):
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return False, None
    return True, value


def _whole(value: Any) -> int:
    """An integer out of what a file holds for one: 4, 4.0, "4", true. Raises DataError."""
    words = {"true": 1, "false": 0}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not number.is_integer():
        raise DataError(
            f"a rating must be a whole step on its scale, given {value!r}; round it, or declare finer steps"
        )
    return int(number)
