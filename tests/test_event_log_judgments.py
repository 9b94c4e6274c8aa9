"""Every kind of feedback from its submission through the log to the judgment that a learner gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from log_events import finished, said, started
from rewardloop.feedback.log.arrays import Sampled, pack, unpack
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.settled import settled_feedback
from rewardloop.feedback.log.submissions import SubmissionError, parse_submission
from rewardloop.types import (
    THUMB,
    Comment,
    Dialogue,
    Edit,
    Feedback,
    Flag,
    Live,
    Message,
    Preference,
    Ranking,
    Rating,
    Scale,
    Span,
)

PROMPT = (Message("user", "Where can I buy honey?"),)
TEXT = "At the mill."  # every character is a token
PART = {"completion_id": "c1", "tokens": [3, 6]}
THREE = [{"completion_id": f"c{number}"} for number in (1, 2, 3)]
BASE: dict[str, Any] = {"prompt": PROMPT, "annotator": "ann"}
OF_ONE: dict[str, Any] = {**BASE, "completion": TEXT}

CASES: list[tuple[dict[str, Any], Feedback]] = [
    (
        {"kind": "rating", "value": 9, "scale": {"low": 0, "high": 10}, "criterion": "facts"},
        Rating(**OF_ONE, value=9, scale=Scale(low=0, high=10), criterion="facts"),
    ),
    ({"kind": "rating", "value": 0, "scale": {"low": 0, "high": 1}}, Rating(**OF_ONE, value=0, scale=THUMB)),
    ({"kind": "rating", "value": 4}, Rating(**OF_ONE, value=4)),
    (
        {"kind": "rating", "value": 4, "target": PART, "criterion": "facts"},
        Span(**OF_ONE, start=3, end=6, category="facts", severity=0.5, criterion="facts"),
    ),
    (
        {"kind": "preference", "targets": THREE[:2][::-1], "choice": "second"},
        Preference(**BASE, first="Two.", second=TEXT, choice="second"),
    ),
    (
        {"kind": "ranking", "targets": THREE, "ranks": [2, 1, 2]},
        Ranking(**BASE, completions=(TEXT, "Two.", "Three."), ranks=(2, 1, 2)),
    ),
    ({"kind": "edit", "corrected": "At Ann's."}, Edit(**OF_ONE, corrected="At Ann's.")),
    ({"kind": "comment", "text": "Too short"}, Comment(**OF_ONE, text="Too short")),
    (
        {"kind": "dialogue", "reply": "No!", "evaluation": -1, "rewrite": "Nowhere."},
        Dialogue(**OF_ONE, reply="No!", evaluation=-1, rewrite="Nowhere."),
    ),
    ({"kind": "dialogue", "reply": "And?"}, Dialogue(**OF_ONE, reply="And?")),
    (
        {"kind": "live", "value": -1, "token_index": 4, "reaction_ms": 350},
        Live(**OF_ONE, offset=4, value=-1, reaction_ms=350),
    ),
    (
        {"kind": "live", "value": 1, "token_index": 400, "reaction_ms": 350},
        Live(**OF_ONE, offset=len(TEXT), value=1, reaction_ms=350),
    ),
    (
        {"kind": "span", "start": 7, "end": 11, "category": "wrong fact", "severity": -0.5},
        Span(**OF_ONE, start=7, end=11, category="wrong fact", severity=-0.5),
    ),
    ({"kind": "span", "target": PART, "category": "rude"}, Span(**OF_ONE, start=3, end=6, category="rude")),
    ({"kind": "flag", "reason": "harmful"}, Flag(**OF_ONE, reason="harmful")),
    ({"kind": "flag", "target": PART, "reason": "harmful"}, Span(**OF_ONE, start=3, end=6, category="harmful")),
]


def test_every_kind_arrives_as_the_judgment_it_is(tmp_path: Path) -> None:
    with EventLog(data_url(tmp_path)) as log:
        for name, text in (("c1", TEXT), ("c2", "Two."), ("c3", "Three.")):
            log.append([started(name), finished(name, text)])
        log.append(
            [said("c1", **submission) if "target" not in submission else _said(submission) for submission, _ in CASES]
        )
        items = settled_feedback(log, 0, now=1e12).items
    assert [item.feedback for item in items] == [judgment for _, judgment in CASES]
    completion = items[0].completions[0].completion
    assert (completion.prompt, completion.temperature, completion.finish_reason) == (PROMPT, 0.5, "stop")
    assert completion.token_ids == tuple(range(len(TEXT)))
    assert completion.weight_versions_T.tolist() == [7] * len(TEXT)
    np.testing.assert_array_equal(completion.logprobs_T, -np.arange(len(TEXT), dtype=np.float32) / 8)
    assert (items[0].completions[0].model, items[0].annotator) == ("town", "ann")


def _said(submission: dict[str, Any]) -> NewEvent:
    return said(submission["target"], **{name: value for name, value in submission.items() if name != "target"})


def test_tokens_that_split_a_character_have_its_place(tmp_path: Path) -> None:
    with EventLog(data_url(tmp_path)) as log:
        ends = np.array([1, 1, 2], dtype=np.int32)  # 蜂 | first half of 蜜 | 蜜
        ids, zeros = np.arange(3, dtype=np.int32), np.zeros(3, dtype=np.float32)
        done = NewEvent(
            kind="completion.finished",
            actor_id="engine",
            actor_kind="engine",
            target_id="c1",
            body={"text": "蜂蜜"},
            arrays=pack(Sampled(ids, ids, zeros, ids, ends)),
        )
        live = {"kind": "live", "value": 1, "reaction_ms": 1}
        log.append([started("c1"), done, *(said("c1", token_index=token, **live) for token in range(4))])
        offsets = [item.feedback.offset for item in settled_feedback(log, 0, now=1e12).items]  # type: ignore[union-attr]
    assert offsets == [0, 1, 1, 2]


def test_what_does_not_fit_its_answer_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    with EventLog(data_url(tmp_path)) as log:
        log.append([started("c1"), finished("c1", TEXT)])
        plain = NewEvent(
            kind="completion.finished", actor_id="e", actor_kind="engine", target_id="c2", body={"text": "No tokens."}
        )
        far, part, good = log.append(
            [
                plain,
                said("c1", kind="span", start=90, end=99, category="x"),
                said({"completion_id": "c2", "tokens": [0, 1]}, kind="flag", reason="x"),
                said("c2"),
            ]
        )[1:]
        page = settled_feedback(log, 0, now=1e12)
    assert [item.id for item in page.items] == [good.id]
    assert "a span [90, 99) in a completion of 12 characters" in page.unusable[far.id]
    assert "without tokens on record" in page.unusable[part.id]


@pytest.mark.parametrize(
    ("submission", "param"),
    [
        ({"kind": "applause"}, None),
        ({"kind": "rating", "value": 6}, None),
        ({"kind": "rating", "value": 4.5}, "value"),
        ({"kind": "rating", "value": True}, "value"),
        ({"kind": "rating", "value": 2, "scale": {"low": 3, "high": 3}}, "scale"),
        ({"kind": "rating", "value": 2, "targets": THREE}, "target"),
        ({"kind": "rating", "value": 2, "target": {}}, "target"),
        ({"kind": "rating", "value": 2, "target": {"completion_id": "c", "external_id": "e"}}, "target"),
        ({"kind": "rating", "value": 2, "target": {"completion_id": "c", "tokens": [3, 3]}}, "target"),
        ({"kind": "rating", "value": 2, "target": {"external_id": "two\nlines"}}, "target.external_id"),
        ({"kind": "preference", "targets": THREE, "choice": "tie"}, None),
        ({"kind": "preference", "targets": THREE[:2], "choice": "left"}, "choice"),
        ({"kind": "ranking", "targets": THREE, "ranks": [1, 2]}, None),
        ({"kind": "edit"}, "corrected"),
        ({"kind": "live", "value": 0, "token_index": 1, "reaction_ms": 1}, "value"),
        ({"kind": "live", "value": 1, "reaction_ms": 1}, None),
        ({"kind": "span", "start": 5, "end": 5, "category": "x"}, None),
        ({"kind": "span", "start": 5, "end": 6, "category": "x", "severity": -2}, "severity"),
        ({"kind": "flag", "reason": ""}, "reason"),
    ],
)
def test_a_refusal_names_the_field(submission: dict[str, Any], param: str | None) -> None:
    whole = (
        submission if {"target", "targets"} & submission.keys() else {"target": {"completion_id": "c"}, **submission}
    )
    with pytest.raises(SubmissionError) as refused:
        parse_submission(whole)
    assert refused.value.param == param


def test_damaged_arrays_are_named() -> None:
    data = pack(Sampled.empty())
    for broken in (b"", data[:-3], b"\0" * 40):
        with pytest.raises(OSError, match="arrays of a completion are damaged"):
            unpack(broken)
