"""Repetition and variety by hand (T7.2), in both languages."""

from __future__ import annotations

import pytest

from rewardloop.evaluate.texts import compression_ratio, distinct_n, rep_n, split_words


def test_words_of_both_languages() -> None:
    assert split_words("Mrs. Alder's rye bread, 4 coins!") == [
        "mrs", ".", "alder's", "rye", "bread", ",", "4", "coins", "!",
    ]  # fmt: skip
    assert split_words("艾太太卖honey，四枚") == ["艾", "太", "太", "卖", "honey", "，", "四", "枚"]
    assert split_words(" \n") == []


def test_repetition_by_hand() -> None:
    # bigrams: the cat, cat the, the cat, cat sat: 3 different of 4
    assert rep_n("the cat the cat sat", 2) == pytest.approx(1 / 4)
    assert rep_n("好好好好", 1) == pytest.approx(3 / 4)
    assert rep_n("one two", 3) == 0
    assert rep_n("", 1) == 0


def test_variety_by_hand() -> None:
    # bigrams of both texts: (a b), (b c), (a b), (b d): 3 different of 4; n-grams never cross texts
    assert distinct_n(["a b c", "a b d"], 2) == pytest.approx(3 / 4)
    assert distinct_n(["same answer", "same answer"], 1) == pytest.approx(1 / 2)
    assert distinct_n(["", "x"], 2) == 0


def test_a_loop_compresses() -> None:
    loop, prose = "the moon is " * 30, "Mrs. Alder keeps the honey at the Corner Pantry, four coins a jar."
    assert compression_ratio(loop) > 8 > 1.2 > compression_ratio(prose)
    assert compression_ratio("") == 0
