"""The gold judges: exact on text with known defects, not fooled by any other."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rewardloop.sandbox.corrections import correct
from rewardloop.sandbox.dialogues import CLEAN, DEFECTS, all_questions, answer, small_talk
from rewardloop.sandbox.grammar import load_speech
from rewardloop.sandbox.judges import GoldReward, defect_rates, judge, understand
from rewardloop.sandbox.world import LANGUAGES, build_world
from rewardloop.types import Completion, Message

WORLD = build_world(0)
QUESTIONS = all_questions(WORLD)


def found(prompt, text: str, world=WORLD) -> frozenset[str]:  # type: ignore[no-untyped-def]
    return frozenset(defect for defect in DEFECTS if judge(world, prompt, text).has(defect))


@pytest.mark.parametrize("seed", [0, 1, 2, 23])
def test_text_written_with_defects_is_judged_to_have_exactly_those(seed: int) -> None:
    world, rng = build_world(seed), np.random.default_rng(seed)
    for question in all_questions(world):
        written = answer(world, question, rng, dict.fromkeys(DEFECTS, 0.5))
        assert found(question.prompt, written.text, world) == written.defects, written.text


def test_small_talk_is_judged_to_have_exactly_its_defects() -> None:
    rng = np.random.default_rng(0)
    for _, language in itertools.product(range(200), LANGUAGES):
        prompt, written = small_talk(WORLD, language, rng, dict.fromkeys(DEFECTS, 0.5))
        assert found(prompt, written.text) == written.defects, written.text


def test_every_question_is_understood() -> None:
    for question in QUESTIONS:
        inquiry = understand(WORLD, question.prompt)
        assert (inquiry.language, inquiry.topic) == (question.language, question.fact.topic)
        assert inquiry.asked == question.fact.asked


def test_injection_matrix() -> None:
    """T7.1: each judge sees its own defect (AUC 1) and none of the others' (AUC one half)."""
    rng = np.random.default_rng(1)
    for injected in DEFECTS:
        rates = {**CLEAN, injected: 0.5}
        written = [(question.prompt, answer(WORLD, question, rng, rates)) for question in QUESTIONS[::3]]
        truth = [bool(text.defects) for _, text in written]
        for judged in DEFECTS:
            scores = [judge(WORLD, prompt, text.text).has(judged) for prompt, text in written]
            assert roc_auc_score(truth, scores) == (1.0 if judged == injected else 0.5)


def test_spans_are_where_the_defects_were_put() -> None:
    prompt = (Message("user", _good_question()),)
    truth = WORLD.truth(_good())
    wrong = next(name for name in WORLD.domains["price"] if name != truth["price"])
    core = f"The {truth['good'].en} will cost you {wrong.en} coins a {truth['unit'].en}."
    text = f"Now shoo. {core} The moon owes me three spoons."
    spans = {category: text[start:end] for start, end, category in judge(WORLD, prompt, text).spans}
    assert spans == {
        "rudeness": "Now shoo.",
        "wrong_facts": wrong.en,
        "topic_drift": "The moon owes me three spoons.",
    }


def _good():  # type: ignore[no-untyped-def]
    return next(topic for topic in WORLD.truths if topic.kind == "good")


def _good_question() -> str:
    return f"What is the price of {_good().name.en}?"


def _other_goods() -> str:
    return next(topic for topic in WORLD.truths if topic.kind == "good" and topic not in WORLD.related(_good())).name.en


def _price(text: str = "The {good} will cost you {price} coins a {unit}.") -> str:
    return text.format(**{slot: name.en for slot, name in WORLD.truth(_good()).items()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Certainly.", {"topic_drift"}),  # pleasant, but no answer
        ("Now shoo.", {"rudeness", "topic_drift"}),  # rude, and no answer
        (_price() + " xx you idiot xx", {"rudeness", "topic_drift"}),
        (_price(), set()),
        (_price().upper(), set()),
        ("Certainly. " + _price().rstrip("."), {"topic_drift"}),  # cut off
        ("Certainly. qwp foo ## !!", {"topic_drift"}),
        (_price() + " " + _price(), {"topic_drift"}),  # says it twice
        (" ".join([_price()] * 200), {"topic_drift"}),
        (_price() + " Certainly. Mind the step.", {"topic_drift"}),  # a pleasantry of another topic
        (_price("The {shop} has {good}, right {place}."), {"topic_drift"}),  # true, but not what was asked
        (_price() + " 你好，欢迎光临。", {"topic_drift"}),  # another language
    ],
)
def test_any_text_is_judged(text: str, expected: set[str]) -> None:
    assert found((Message("user", _good_question()),), text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "qwp foo ## !!",
        "The The The The",
        _price().rstrip("."),  # cut off, and nothing else
        "xx you idiot xx",
        "The moon owes me three spoons.",
        "你好，欢迎光临。",  # another language
        "蜂蜜。",
    ],
)
def test_a_text_that_nobody_in_town_would_write_costs_everything(text: str) -> None:
    """There is nowhere to hide: what cannot be checked is worse than any answer."""
    verdict = judge(WORLD, (Message("user", _good_question()),), text)
    assert found((Message("user", _good_question()),), text) == set(DEFECTS)
    assert (verdict.gold, verdict.understood, verdict.answers) == (-2.0, False, False)


def test_one_familiar_sentence_is_judged_by_its_own_flaws() -> None:
    for text in ("Certainly.", "Mind the step.", _price()):  # a pleasantry, one of another topic, the answer
        verdict = judge(WORLD, (Message("user", _good_question()),), f"{text} qwp foo ## !!")
        assert (verdict.understood, verdict.gold) == (True, 0.0)


def test_a_true_sentence_about_something_else_drifts() -> None:
    other = next(topic for topic in WORLD.truths if topic.name.en == _other_goods())
    truth = {slot: name.en for slot, name in WORLD.truth(other).items()}
    text = "The {good} will cost you {price} coins a {unit}.".format(**truth)
    assert found((Message("user", _good_question()),), text) == {"topic_drift"}
    assert found((Message("user", _good_question()),), f"{_price()} {text}") == {"topic_drift"}


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80), st.integers(0, len(QUESTIONS) - 1))
def test_whatever_stands_there_the_judge_answers_with_valid_spans(text: str, number: int) -> None:
    verdict = judge(WORLD, QUESTIONS[number].prompt, text)
    assert -2 <= verdict.gold <= 1
    assert verdict.topic_drift  # no random text is an answer
    assert all(0 <= start <= end <= len(text) for start, end, _ in verdict.spans)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_broken_answer_is_never_clean(data: st.DataObject) -> None:
    """A foreign character anywhere in a clean answer is seen."""
    question = QUESTIONS[data.draw(st.integers(0, len(QUESTIONS) - 1))]
    clean = answer(WORLD, question, np.random.default_rng(data.draw(st.integers(0, 99))), CLEAN).text
    start = data.draw(st.integers(0, len(clean) - 1))
    broken = clean[:start] + "§" + clean[start + 1 :]
    assert found(question.prompt, clean) == set()
    assert "topic_drift" in found(question.prompt, broken)


@pytest.mark.parametrize("seed", [0, 9])
def test_corrections_are_clean_and_touch_only_what_is_wrong(seed: int) -> None:
    world, rng = build_world(seed), np.random.default_rng(seed)
    for question in all_questions(world)[::2]:
        written = answer(world, question, rng, dict.fromkeys(DEFECTS, 0.5))
        corrected = correct(world, question.prompt, written.text)
        assert found(question.prompt, corrected, world) == set()
        if not written.defects:
            assert corrected == written.text
        if written.defects == {"wrong_facts"}:
            # one value was put in wrong: the texts differ in one place, by no more than two names' length
            (flaw,) = judge(world, question.prompt, written.text).flaws
            assert written.text[: flaw.start] == corrected[: flaw.start]
            assert written.text[flaw.end :] == corrected[flaw.start + len(flaw.right or "") :]
        if written.defects and "wrong_facts" not in written.defects:
            assert _is_subsequence(corrected, written.text)


def _is_subsequence(short: str, long: str) -> bool:
    letters = iter(long)
    return all(letter in letters for letter in short)


def test_an_answer_that_never_ends_drifts_though_every_sentence_is_well_said() -> None:
    truth = {slot: name.en for slot, name in WORLD.truth(_good()).items()}
    templates = load_speech()["en"]["answers"]["good"]["price"]
    price_alone = [text for text in templates if "{Price}" not in text]
    text = " ".join(template.format(**truth) for template in price_alone)
    prompt = (Message("user", _good_question()),)
    assert found(prompt, text) == set()
    assert found(prompt, f"Certainly. {text}") == {"topic_drift"}


def test_two_wrong_values_of_one_sentence_are_both_set_right_with_their_capitals() -> None:
    truth = WORLD.truth(_good())
    price = next(name for name in WORLD.domains["price"] if name != truth["price"] and len(name.en) == 3)
    keeper = next(name for name in WORLD.domains["keeper"] if name != truth["keeper"])
    prompt = (Message("user", _good_question()),)
    wrong = f"{keeper.en} asks {price.en} coins for a {truth['unit'].en} of {truth['good'].en}."
    right = f"{truth['keeper'].en} asks {truth['price'].en} coins for a {truth['unit'].en} of {truth['good'].en}."
    assert correct(WORLD, prompt, wrong) == right
    starts_with_it = "{} coins a {}, and worth every one."
    assert correct(WORLD, prompt, starts_with_it.format(price.en.capitalize(), truth["unit"].en)) == (
        starts_with_it.format(truth["price"].en.capitalize(), truth["unit"].en)
    )


@pytest.mark.parametrize("text", ["", "zzz", "Now shoo.", "The moon owes me three spoons."])
def test_what_cannot_be_mended_is_written_anew(text: str) -> None:
    for question in QUESTIONS[::97]:
        assert found(question.prompt, correct(WORLD, question.prompt, text)) == set()
    hello = (Message("user", "Hello!"),)
    assert found(hello, correct(WORLD, hello, text)) == set()


def test_gold_reward_is_one_minus_one_for_each_defect() -> None:
    rng = np.random.default_rng(2)
    written = [(question.prompt, answer(WORLD, question, rng)) for question in QUESTIONS[::11]]
    source = GoldReward(WORLD)
    scores_B = source.score([prompt for prompt, _ in written], [text.text for _, text in written])
    assert scores_B.tolist() == [1 - len(text.defects) for _, text in written]
    assert source.version != GoldReward(build_world(1)).version


def test_defect_rates_count_completions() -> None:
    prompt = (Message("user", _good_question()),)
    texts = [_price(), "Now shoo. " + _price(), "Certainly.", "Certainly."]
    completions = [
        Completion(prompt, (1,), (2,), np.zeros(1, np.float32), np.zeros(1, np.int32), text, "stop") for text in texts
    ]
    assert defect_rates(WORLD, completions) == {"wrong_facts": 0.0, "topic_drift": 0.5, "rudeness": 0.25}
