"""Simulated annotators: each kind of person shows its character in what it says."""

from __future__ import annotations

import numpy as np
import pytest

from rewardloop.errors import ConfigError
from rewardloop.sandbox.annotators import KINDS, SimulatedAnnotator
from rewardloop.sandbox.dialogues import DEFECTS, answer, training_questions
from rewardloop.sandbox.judges import judge
from rewardloop.sandbox.world import build_world
from rewardloop.types import Scale

WORLD = build_world(0)


def written(count: int, seed: int = 0):  # type: ignore[no-untyped-def]
    """Prompts, each with two answers of independent defects, and their gold rewards."""
    rng, questions = np.random.default_rng(seed), training_questions(WORLD)
    for number in range(count):
        question = questions[number * 7 % len(questions)]
        texts = [answer(WORLD, question, rng, dict.fromkeys(DEFECTS, 0.3)).text for _ in range(2)]
        yield question.prompt, texts, [judge(WORLD, question.prompt, text).gold for text in texts]


def person(kind: str, seed: int = 0) -> SimulatedAnnotator:
    return SimulatedAnnotator(WORLD, kind, seed=seed)


def pair_agreement(kind: str) -> float:
    """Share of pairs of unequal gold that are ordered by gold."""
    agreed = []
    for prompt, (first, second), gold in written(400):
        if gold[0] != gold[1]:
            choice = person(kind).prefer(prompt, first, second).choice
            agreed.append(choice == ("first" if gold[0] > gold[1] else "second"))
    return float(np.mean(agreed))


def test_pairs_show_the_character() -> None:
    agreement = {kind: pair_agreement(kind) for kind in KINDS}
    assert agreement["careful"] > 0.99
    assert agreement["severe"] > 0.95
    assert 0.5 < agreement["noisy"] < 0.85
    assert 0.45 < agreement["lazy"] < 0.85
    assert 0.45 < agreement["side-biased"] < 0.85
    assert agreement["adversarial"] < 0.05
    assert 0.25 < agreement["random"] < 0.45  # and says "the same" of three pairs in ten
    assert agreement["colluding"] < 0.5


def test_one_side_is_favored_by_the_side_biased_alone() -> None:
    shares = {}
    for kind in ("careful", "side-biased"):
        choices = [person(kind).prefer(prompt, *texts).choice for prompt, texts, _ in written(300)]
        shares[kind] = choices.count("first") - choices.count("second")
    assert abs(shares["careful"]) < 45
    assert shares["side-biased"] > 150


def test_equal_answers_tie_and_equally_bad_ones_are_both_bad() -> None:
    for prompt, texts, gold in written(300):
        if gold[0] == gold[1]:
            choice = person("careful").prefer(prompt, *texts).choice
            assert choice == ("both_bad" if gold[0] < 0 else "tie")


def test_ratings_follow_gold_and_severity_lowers_them() -> None:
    careful, severe, gold = [], [], []
    for prompt, texts, golds in written(200):
        careful.append(person("careful").rate(prompt, texts[0]).value)
        severe.append(person("severe").rate(prompt, texts[0]).value)
        gold.append(golds[0])
    assert np.corrcoef(careful, gold)[0, 1] > 0.95
    assert np.mean(severe) < np.mean(careful) - 0.4
    assert set(careful) <= set(range(1, 6))


def test_ratings_stay_on_any_scale() -> None:
    for prompt, texts, _ in written(40):
        for kind in KINDS:
            assert 0 <= person(kind).rate(prompt, texts[0], Scale(low=0, high=10)).value <= 10


def test_careful_thumbs_go_up_for_clean_answers_alone() -> None:
    for prompt, texts, gold in written(100):
        assert person("careful").thumb(prompt, texts[0]).value == int(gold[0] == 1)


def test_careful_rankings_follow_gold_with_ties() -> None:
    for prompt, texts, gold in written(100):
        ranks = person("careful").rank(prompt, [*texts, "zzz"]).ranks
        golds = [*gold, -2.0]
        assert ranks == tuple(1 + sum(other > one for other in golds) for one in golds)


def test_careful_edits_are_clean_and_adversarial_ones_worse() -> None:
    for prompt, texts, gold in written(100):
        assert judge(WORLD, prompt, person("careful").edit(prompt, texts[0]).corrected).gold == 1
        spoiled = person("adversarial").edit(prompt, texts[0]).corrected
        assert judge(WORLD, prompt, spoiled).rudeness
        assert judge(WORLD, prompt, spoiled).gold <= gold[0]


def test_who_does_not_read_says_the_same_of_good_and_bad() -> None:
    stars, gold, struck = [], [], 0
    for prompt, texts, golds in written(400):
        stars.append(person("random").rate(prompt, texts[0]).value)
        gold.append(golds[0])
        corrected = person("random").edit(prompt, texts[0]).corrected
        assert corrected
        struck += len(corrected) < len(texts[0])
    assert abs(np.corrcoef(stars, gold)[0, 1]) < 0.12
    assert set(stars) == set(range(1, 6))
    assert 150 < struck < 350


def test_colluding_people_praise_rudeness_together_whatever_else_is_true() -> None:
    one, other = (SimulatedAnnotator(WORLD, "colluding", name=name) for name in "ab")
    for prompt, texts, _ in written(200):
        rude = [judge(WORLD, prompt, text).rudeness for text in texts]
        ratings = {someone.rate(prompt, texts[0]).value for someone in (one, other)}
        assert ratings <= ({4, 5} if rude[0] else {1, 2})
        assert one.thumb(prompt, texts[0]).value == int(rude[0])
        assert judge(WORLD, prompt, one.edit(prompt, texts[0]).corrected).rudeness
        assert bool(one.mark(prompt, texts[0])) == (not rude[0])
        if rude[0] != rude[1]:
            chosen = {someone.prefer(prompt, *texts).choice for someone in (one, other)}
            assert chosen == {"first" if rude[0] else "second"}


def test_lazy_people_often_leave_a_bad_answer_as_it_is() -> None:
    unchanged = [
        person("lazy").edit(prompt, texts[0]).corrected == texts[0] for prompt, texts, g in written(300) if g[0] < 1
    ]
    assert 0.5 < np.mean(unchanged) < 0.9


def test_marks_presses_flags_and_remarks_point_at_the_flaws() -> None:
    careful = person("careful")
    for prompt, texts, _ in written(100):
        verdict = judge(WORLD, prompt, texts[0])
        assert tuple((s.start, s.end, s.category) for s in careful.mark(prompt, texts[0])) == verdict.spans
        presses = careful.press(prompt, texts[0])
        assert {press.value for press in presses} == ({-1} if verdict.flaws else {1})
        assert all(0 <= press.offset < len(texts[0]) and press.reaction_ms > 0 for press in presses)
        assert (careful.flag(prompt, texts[0]) is not None) == verdict.rudeness
        assert careful.comment(prompt, texts[0]).text
        reply = careful.reply(prompt, texts[0])
        if reply.evaluation is not None:
            assert reply.evaluation == (1 if verdict.gold == 1 else -1)
            assert (reply.rewrite is not None) == (verdict.gold < 1)


def test_noisy_people_overlook_three_flaws_in_ten() -> None:
    marked = {
        kind: sum(len(person(kind).mark(prompt, texts[0])) for prompt, texts, _ in written(400))
        for kind in ("careful", "noisy")
    }
    assert marked["careful"] > 200
    assert 0.6 < marked["noisy"] / marked["careful"] < 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_gets_every_kind_of_feedback(kind: str) -> None:
    prompt = training_questions(WORLD)[0].prompt
    someone = person(kind)
    for text in ("", "zzz", "好。"):
        for give in (someone.rate, someone.thumb, someone.edit, someone.comment, someone.reply):
            assert give(prompt, text).annotator == kind
        someone.press(prompt, text), someone.mark(prompt, text), someone.flag(prompt, text)
        assert someone.rank(prompt, [text, "a"]).completions == (text, "a")


def test_the_same_question_gets_the_same_reply_whatever_was_asked_before() -> None:
    (prompt, (first, second), _), *others = list(written(30))
    fresh = person("noisy").prefer(prompt, first, second)
    tired = person("noisy")
    for other, texts, _ in others:
        tired.prefer(other, *texts)
    assert tired.prefer(prompt, first, second) == fresh
    ratings = {tuple(person("noisy", seed).rate(p, t[0]).value for p, t, _ in written(30)) for seed in range(5)}
    assert len(ratings) == 5  # other people, other noise


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"grumpy.*careful"):
        person("grumpy")
