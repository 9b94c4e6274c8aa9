"""Corrections: the difference found is a shortest one, tiles both texts, and blames the right characters."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.feedback.edits import Credit, edit_credit, find_changes, similarity, split_pieces

WORDS = st.lists(st.sampled_from(["red", "cat", "sat", " ", ".", "猫", "狗", "don't"]), max_size=9).map("".join)


def levenshtein(old: list[str], new: list[str]) -> int:
    """The textbook recursion, over pieces."""

    @cache
    def cost(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(cost(i - 1, j) + 1, cost(i, j - 1) + 1, cost(i - 1, j - 1) + (old[i - 1] != new[j - 1]))

    return cost(len(old), len(new))


@given(WORDS, WORDS)
@settings(max_examples=150, deadline=None)
def test_changes_tile_both_texts_keep_equal_parts_and_are_shortest(original: str, corrected: str) -> None:
    changes = find_changes(original, corrected)
    assert "".join(original[c.start : c.end] for c in changes) == original
    assert "".join(corrected[c.new_start : c.new_end] for c in changes) == corrected
    cost = 0
    for change in changes:
        old, new = original[change.start : change.end], corrected[change.new_start : change.new_end]
        assert (old == new) == (change.kind == "kept")
        if change.kind != "kept":
            cost += max(len(split_pieces(old)), len(split_pieces(new)))
    assert cost <= levenshtein(split_pieces(original), split_pieces(corrected))


def test_pieces_of_english_and_chinese() -> None:
    assert split_pieces("I don't, 好吗?") == ["I", " ", "don't", ",", " ", "好", "吗", "?"]


@pytest.mark.parametrize(
    ("original", "corrected", "marked"),
    [
        ("The shop opens at nine today.", "The shop opens at ten today.", {"nine": -1.0}),
        ("The very old shop opens at nine.", "The old shop opens at nine.", {" very": -1.0}),
        ("The shop opens at nine.", "The shop always opens at nine.", {"shop": -0.5}),
        ("shop opens at nine every day", "The shop opens at nine every day", {"shop": -0.5}),
        ("面包店早上九点开门营业", "面包店早上十点开门营业", {"九": -1.0}),
    ],
)
def test_blame_falls_on_the_changed_words(original: str, corrected: str, marked: dict[str, float]) -> None:
    credit = edit_credit(original, corrected)
    assert {original[c.start : c.end]: c.value for c in credit if c.value} == marked
    assert all(c.weight == pytest.approx(0.1) for c in credit if not c.value)
    assert [c.start for c in credit[1:]] == [c.end for c in credit[:-1]]
    assert (credit[0].start, credit[-1].end) == (0, len(original))


def test_a_new_text_or_no_change_blames_nothing() -> None:
    assert edit_credit("The shop opens at nine.", "Ask Mary, she knows everything about bread.") == ()
    assert edit_credit("The shop opens at nine.", "The shop opens at nine.") == ()
    assert edit_credit("", "something") == ()


def test_similarity_runs_from_nothing_in_common_to_equal() -> None:
    assert similarity("abc", "abc") == 1
    assert similarity("", "") == 1
    assert similarity("abc", "xyz") == 0
    assert similarity("one two", "one six") == pytest.approx(4 / 7)  # "one " of 7 characters


def test_credit_is_comparable() -> None:
    assert Credit(0, 1, -1.0) == Credit(0, 1, -1.0, 1.0)
