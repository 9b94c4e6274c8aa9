"""Judgments of every kind, drawn by hypothesis, for tests of round trips."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

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

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
PLAIN_TEXT = st.text("abc蜜é. ", min_size=1, max_size=6).map(str.strip).filter(bool)
SCALES = st.sampled_from([Scale(), THUMB, Scale(low=1, high=10), Scale(low=-2, high=2)])


def _rating(common: dict[str, Any], text: str, scale: Scale, step: int) -> Rating:
    return Rating(**common, completion=text, scale=scale, value=scale.low + step % scale.categories)


def _ranking(common: dict[str, Any], several: list[tuple[str, int]]) -> Ranking:
    return Ranking(**common, completions=tuple(t for t, _ in several), ranks=tuple(r for _, r in several))


def _place(drawn: tuple[str, int, int]) -> tuple[str, int, int]:
    text, start, length = drawn
    start %= len(text)
    return text, start, min(start + length, len(text))


def judgments(text: st.SearchStrategy[str], prompt: st.SearchStrategy[Any]) -> st.SearchStrategy[Feedback]:
    """Judgments whose texts and names are drawn from `text`; completions differ from corrections."""
    filled = text.filter(bool)
    name = st.text("abcé 蜜", min_size=1, max_size=6).map(lambda drawn: f"n{drawn}")
    common: dict[str, Any] = {"prompt": prompt, "annotator": st.none() | name, "criterion": name}
    marked = st.tuples(filled, st.integers(0, 9), st.integers(1, 9)).map(_place)
    several = st.lists(st.tuples(text, st.integers(1, 3)), min_size=2, max_size=4)
    return st.one_of(
        st.builds(_rating, st.fixed_dictionaries(common), text, SCALES, st.integers(0, 20)),
        st.builds(
            Preference,
            **common,
            first=text.map(lambda drawn: f"1{drawn}"),
            second=text.map(lambda drawn: f"2{drawn}"),
            choice=st.sampled_from(["first", "second", "tie", "both_bad"]),
        ),
        st.builds(_ranking, st.fixed_dictionaries(common), several),
        st.builds(Edit, **common, completion=text, corrected=text.map(lambda drawn: f"{drawn}!")),
        st.builds(Comment, **common, completion=text, text=filled),
        st.builds(
            Dialogue,
            **common,
            completion=text,
            reply=filled,
            evaluation=st.sampled_from([None, -1, 0, 1]),
            rewrite=st.none() | text,
        ),
        st.builds(
            lambda common, place, value: Live(
                **common, completion=place[0], offset=place[1], value=value, reaction_ms=9 * place[2]
            ),
            st.fixed_dictionaries(common),
            marked,
            st.sampled_from([-1, 1]),
        ),
        st.builds(
            lambda common, place, category, severity: Span(
                **common, completion=place[0], start=place[1], end=place[2], category=category, severity=severity
            ),
            st.fixed_dictionaries(common),
            marked,
            name,
            st.sampled_from([-1.0, -0.25, 0.5]),
        ),
        st.builds(Flag, **common, completion=text, reason=filled),
    )


CONVERSATIONS = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), PLAIN_TEXT), max_size=2).map(
    lambda turns: (*turns, Message("user", "and?"))
)
ANY_FEEDBACK = judgments(ANY_TEXT, ANY_TEXT | CONVERSATIONS | st.just(()))
PLAIN_FEEDBACK = judgments(PLAIN_TEXT, CONVERSATIONS)
