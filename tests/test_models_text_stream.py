"""Text as it grows, against the text of all tokens at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.models.text_stream import TextStream
from tiny_models import tiny_lm

LM = tiny_lm("llama")


def stream(ids: tuple[int, ...], stop: tuple[str, ...] = ()) -> tuple[list[str], TextStream]:
    text = TextStream(LM, stop)
    pieces = []
    for token in ids:
        pieces.append(text.push(token))
        if text.stopped:
            return pieces, text
    return [*pieces, text.finish()], text


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_pieces_are_the_text(words: str) -> None:
    ids = LM.encode_completion(words)[:-1]
    pieces, text = stream(ids)
    assert "".join(pieces) == text.text == LM.decode(ids)


def test_half_a_character_is_not_shown() -> None:
    ids = LM.encode_completion("猫坐")[:-1]
    assert len(ids) > 2, "the tokenizer must split the characters for this test to mean something"
    pieces, _ = stream(ids)
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert pieces[0] == ""


@pytest.mark.parametrize(
    ("words", "stop", "shown"),
    [
        ("one two three", (" two",), "one"),
        ("one two three", ("three", "two"), "one "),
        ("aaab", ("aab",), "a"),
        ("one two", ("twofold",), "one two"),
        ("one", ("one",), ""),
        ("一二三", ("二",), "一"),
    ],
)
def test_it_ends_before_the_first_stop_sequence(words: str, stop: tuple[str, ...], shown: str) -> None:
    pieces, text = stream(LM.encode_completion(words)[:-1], stop)
    assert "".join(pieces) == text.text == shown
    assert text.stopped == (shown != words)


@given(st.text(alphabet="ab", max_size=12), st.text(alphabet="ab", min_size=1, max_size=3))
@settings(max_examples=100, deadline=None)
def test_no_part_of_a_stop_sequence_is_ever_shown(words: str, stop: str) -> None:
    pieces, text = stream(LM.encode_completion(words)[:-1], (stop,))
    assert "".join(pieces) == words.partition(stop)[0]
    assert text.stopped == (stop in words)
