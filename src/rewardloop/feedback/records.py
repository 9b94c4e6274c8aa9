"""Our own layout: one JSON object a line, the dataclasses of types.py with their kind. A round trip loses nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rewardloop.errors import DataError
from rewardloop.files import write_text
from rewardloop.types import (
    Comment,
    Dialogue,
    Edit,
    Feedback,
    Flag,
    Live,
    Preference,
    Ranking,
    Rating,
    Span,
)

_KINDS: dict[str, type[Feedback]] = {
    kind.__name__.lower(): kind for kind in (Rating, Preference, Ranking, Edit, Comment, Dialogue, Live, Span, Flag)
}
_CHECKERS: dict[str, TypeAdapter[Any]] = {}


def to_record(judgment: Feedback) -> dict[str, Any]:
    """Plain values with the name of the kind first."""
    values = {"kind": type(judgment).__name__.lower(), **dataclasses.asdict(judgment)}
    return json.loads(json.dumps(values))  # type: ignore[no-any-return]


def from_record(record: Mapping[str, Any]) -> Feedback:
    """The judgment in `record`. Raises DataError for an unknown kind, an unknown name, a missing or wrong value."""
    values = dict(record)
    kind = _KINDS.get(str(values.pop("kind", None)))
    if kind is None:
        raise DataError(f"the kind of feedback is {record.get('kind')!r}; known are {', '.join(_KINDS)}")
    unknown = values.keys() - {f.name for f in dataclasses.fields(kind)}
    if unknown:
        raise DataError(f"a {record['kind']} has no {', '.join(sorted(unknown))}")
    return build_feedback(kind, values)


def build_feedback(kind: type[Feedback], values: Mapping[str, Any]) -> Feedback:
    """A judgment from plain values, every type checked. Raises DataError that names the value."""
    name = kind.__name__.lower()
    if name not in _CHECKERS:
        _CHECKERS[name] = TypeAdapter(kind)
    try:
        judgment: Feedback = _CHECKERS[name].validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"a {name} needs a usable {where}: {first['msg']}, given {_shown(first['input'])}") from error
    _check(judgment)
    return judgment


def write_feedback(path: Path, feedback: Iterable[Feedback]) -> None:
    """Write JSON lines, whole or not at all."""
    lines = (json.dumps(to_record(judgment), ensure_ascii=False) for judgment in feedback)
    write_text(Path(path), "".join(f"{line}\n" for line in lines))


def _check(judgment: Feedback) -> None:
    """What the types alone do not say."""
    match judgment:
        case Rating(value=value, scale=scale) if not scale.low <= value <= scale.high or scale.categories < 2:
            raise DataError(f"a rating of {value} on a scale from {scale.low} to {scale.high}")
        case Ranking(completions=completions, ranks=ranks) if len(completions) != len(ranks) or len(ranks) < 2:
            raise DataError(f"{len(completions)} completions and {len(ranks)} ranks; a ranking has two or more of each")
        case Ranking(ranks=ranks) if min(ranks) < 1:
            raise DataError(f"ranks count from 1 (best), given {min(ranks)}")
        case Span(completion=completion, start=start, end=end) if not 0 <= start < end <= len(completion):
            raise DataError(f"a span [{start}, {end}) in a completion of {len(completion)} characters")
        case Span(severity=severity) if not -1 <= severity <= 1:
            raise DataError(f"a severity of {severity}; expected -1 (very bad) to 1 (very good)")
        case Live(completion=completion, offset=offset) if not 0 <= offset <= len(completion):
            raise DataError(f"a key pressed at character {offset} of {len(completion)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
