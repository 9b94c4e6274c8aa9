"""Heads on frozen features, calibration, baselines, rules and sums: against known truths and slow counts."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from rewardloop.errors import ConfigError, DataError, TrainingError
from rewardloop.feedback.edits import Credit
from rewardloop.feedback.evidence import FIRST, gather_evidence
from rewardloop.reward.alignment import text_credit, token_credit
from rewardloop.reward.baselines import BagOfWords, longer_wins
from rewardloop.reward.calibration import (
    calibration_error,
    calibration_floor,
    estimate_mean,
    fit_sharpness,
)
from rewardloop.reward.fitting import fit_head, fit_length, length_covariate
from rewardloop.reward.model import RewardModel
from rewardloop.reward.sources import Rule, Saturated, WeightedSum, length_rule, phrase_rule, repetition_rule
from rewardloop.types import (
    THUMB,
    Dialogue,
    Edit,
    Feedback,
    Preference,
    Prompt,
    Ranking,
    Rating,
    RewardSource,
    Span,
)

WIDTH = 64


class Known:
    """Features drawn once for each text, so that the truth is a direction in them."""

    digest = "known"
    summaries = 0

    def __init__(self, seed: int = 0, spread: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = spread * torch.randn(5000, WIDTH, generator=generator)
        self.truth_D = torch.randn(WIDTH, generator=generator)

    def features(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Tensor:
        return self.table[[int(text.split()[0]) for text in completions]]

    def quality(self, completions: Sequence[str]) -> np.ndarray:
        return (self.features(completions, completions) @ self.truth_D).numpy() / WIDTH**0.5


def choices(known: Known, rng: np.random.Generator, count: int, first_text: int = 0) -> list[Feedback]:
    texts = [(str(first_text + 2 * i), str(first_text + 2 * i + 1)) for i in range(count)]
    return [choose(known, rng, first, second) for first, second in texts]


def choose(known: Known, rng: np.random.Generator, first: str, second: str) -> Preference:
    a, b = 3 * known.quality([first, second])
    won = rng.random() < 1 / (1 + np.exp(b - a))
    return Preference(prompt="p", first=first, second=second, choice="first" if won else "second")


def mixed(known: Known, rng: np.random.Generator, count: int) -> list[Feedback]:
    """A hundred or so judgments of all kinds, each in keeping with the known quality."""
    feedback: list[Feedback] = choices(known, rng, count // 4)
    for text in map(str, range(1000, 1000 + count // 4)):
        stars = 1 + int(np.searchsorted([-3, -1, 1, 3], 3 * known.quality([text])[0] + rng.logistic()))
        feedback.append(Rating(prompt="p", completion=text, value=stars))
    for text in map(str, range(2000, 2000 + count // 4)):
        up = int(3 * known.quality([text])[0] + rng.logistic() > 0)
        feedback.append(Rating(prompt="p", completion=text, value=up, scale=THUMB))
    for at in range(3000, 3000 + count // 4 * 2, 2):
        better, worse = sorted([str(at), str(at + 1)], key=lambda text: -known.quality([text])[0])
        feedback.append(Edit(prompt="p", completion=worse, corrected=better))
    return feedback


def test_few_judgments_of_all_kinds_give_a_reward_in_under_a_second() -> None:
    known = Known()
    feedback = mixed(known, np.random.default_rng(0), 120)
    fit_head(feedback[:8], known)  # libraries load parts of themselves at first use
    start = time.process_time()
    model = fit_head(feedback, known, seed=1)
    assert time.process_time() - start < 1.0
    fresh = [str(i) for i in range(4000, 4500)]
    assert np.corrcoef(model.score(fresh, fresh), known.quality(fresh))[0, 1] > 0.6
    assert isinstance(model, RewardSource)


def test_the_same_seed_gives_the_same_bits_and_another_another_ensemble() -> None:
    known = Known()
    feedback = mixed(known, np.random.default_rng(0), 60)
    one, two = fit_head(feedback, known, seed=1), fit_head(feedback, known, seed=1)
    other = fit_head(feedback, known, seed=2)
    texts = ["4000", "4001"]
    assert one.version == two.version != other.version
    assert (one.score(texts, texts) == two.score(texts, texts)).all()
    assert (one.disagreement(texts, texts) != other.disagreement(texts, texts)).all()


def test_the_ensemble_disagrees_where_it_knows_little_and_less_with_more_feedback() -> None:
    known = Known()
    rng = np.random.default_rng(0)
    few, many = fit_head(choices(known, rng, 30), known), fit_head(choices(known, rng, 600), known)
    near = [str(i) for i in range(100)]
    known.table[4000:4100] *= 4
    far = [str(i) for i in range(4000, 4100)]
    assert few.disagreement(far, far).mean() > 2 * few.disagreement(near, near).mean()

    def in_logits(model: RewardModel) -> float:
        return float(model.disagreement(near, near).mean() * model.scale)

    assert in_logits(many) < 0.8 * in_logits(few)


def test_the_best_estimate_has_no_part_in_the_lottery_of_the_ensemble() -> None:
    known = Known()
    feedback = choices(known, np.random.default_rng(0), 60)
    texts = [str(i) for i in range(4000, 4200)]
    alone, first = (fit_head(feedback, known, heads=heads).scorer.raw_scores(texts, texts)[0] for heads in (0, 5))
    assert first == pytest.approx(alone, abs=1e-3)


def test_uncertainty_counts_against_a_text() -> None:
    known = Known()
    model = fit_head(choices(known, np.random.default_rng(0), 60), known)
    texts = [str(i) for i in range(4000, 4200)]
    raw_HB = model.scorer.raw_scores(texts, texts)
    assert model.score(texts, texts) == pytest.approx(raw_HB[0] - 0.5 * raw_HB[1:].var(axis=0))


def test_standardized_scores_have_mean_0_and_variance_1_and_the_same_order() -> None:
    known = Known()
    model = fit_head(choices(known, np.random.default_rng(0), 60), known)
    texts = [str(i) for i in range(4000, 4600)]
    before = model.score(texts, texts)
    after = model.standardize(before)
    scores = after.score(texts, texts)
    assert (scores.mean(), scores.std()) == pytest.approx((0, 1), abs=1e-9)
    assert (np.argsort(scores) == np.argsort(before)).all()
    assert after.version != model.version
    again = after.standardize(5 + 2 * scores)  # as if the reference had scored 5 higher and twice as wide
    assert again.score(texts, texts) == pytest.approx((scores - 5) / 2)
    assert after.choice_logits(["p"], ["1"], ["2"]) == pytest.approx(model.choice_logits(["p"], ["1"], ["2"]))


def test_what_cannot_be_standardized_or_fitted_is_refused() -> None:
    known = Known()
    model = fit_head(choices(known, np.random.default_rng(0), 20), known, heads=0)
    with pytest.raises(TrainingError, match="the same or not finite on all 600"):
        model.standardize(np.zeros(600))
    with pytest.raises(ConfigError, match="too few"):
        model.standardize(np.arange(3.0))
    with pytest.raises(ConfigError, match="single head"):
        model.disagreement(["p"], ["1"])
    known.table[7] = torch.nan
    with pytest.raises(TrainingError, match="the reward of completion 1 is not finite: '7'"):
        model.score(["p", "p"], ["1", "7"])
    with pytest.raises(DataError, match="say nothing"):
        fit_head([Edit(prompt="p", completion="1", corrected="1")], known)
    with pytest.raises(ConfigError, match="prior"):
        fit_head(choices(known, np.random.default_rng(0), 20), known, prior=0)


def test_length_that_sways_people_stays_out_of_the_reward() -> None:
    """T3.6: people like long texts, and a feature shows the length. Correlation with quality, 6 seeds."""

    def correlation(sway: float, seed: int) -> float:
        known = Known(seed)
        rng = np.random.default_rng(seed)
        lengths = rng.integers(0, 400, 4200)
        # a feature that shows the length, as any model's does
        known.table[:4200, 0] = torch.from_numpy((lengths - 200) / 100.0)
        known.truth_D[0] = 0.0
        texts = [f"{i} " + "x" * lengths[i] for i in range(4200)]
        feedback: list[Feedback] = []
        for i in range(0, 800, 2):
            a, b = 3 * known.quality(texts[i : i + 2]) + sway * np.log(lengths[i : i + 2] + 5)
            won = rng.random() < 1 / (1 + np.exp(b - a))
            choice = "first" if won else "second"
            feedback.append(Preference(prompt="p", first=texts[i], second=texts[i + 1], choice=choice))
        model = fit_head(feedback, known, heads=0)
        fresh = texts[4000:]
        return float(np.corrcoef(model.score(fresh, fresh), known.quality(fresh))[0, 1])

    # .91 and .93; .74 where the covariate is left out
    swayed = np.mean([correlation(3.0, seed) for seed in range(6)])
    unswayed = np.mean([correlation(0.0, seed) for seed in range(6)])
    assert swayed > unswayed - 0.08


# ---------------------------------------------------------------- calibration (T3.4)


def test_the_slope_of_length_is_that_of_logistic_regression() -> None:
    """Without ties, choices by length alone are a logistic regression on the difference, with a normal prior."""
    rng = np.random.default_rng(0)
    lengths_B2 = rng.integers(1, 60, size=(200, 2))
    longer_B = rng.random(200) < 1 / (1 + np.exp(-1.5 * np.log(lengths_B2[:, 0] / lengths_B2[:, 1])))
    feedback: list[Feedback] = [
        Preference(prompt=f"p{i}", first="a" * n, second="b" * m, choice="first" if won else "second")
        for i, ((n, m), won) in enumerate(zip(lengths_B2.tolist(), longer_B, strict=True))
        if n != m
    ]
    evidence = gather_evidence(feedback)
    length_N = length_covariate([text for _, text in evidence.texts])
    slope, _ = fit_length(evidence, length_N)
    texts_E2 = evidence.comparisons.texts_E2
    difference_E1 = (length_N[texts_E2[:, 0]] - length_N[texts_E2[:, 1]]).numpy()[:, None]
    won_E = evidence.comparisons.choice_E == FIRST
    # On both sides of every pair, so that both classes are there whichever was written first.
    both_E1, won_2E = np.concatenate([difference_E1, -difference_E1]), np.concatenate([won_E, ~won_E])
    library = LogisticRegression(fit_intercept=False, C=0.5, tol=1e-10).fit(both_E1, won_2E)
    assert float(slope) == pytest.approx(library.coef_[0, 0], rel=1e-4)


def test_calibration_error_by_hand() -> None:
    probability = np.array([0.1, 0.1, 0.9, 0.9])
    happened = np.array([False, True, True, True])
    # two bins: |1/2 - .1| = .4 and |1 - .9| = .1, each half the mass
    assert calibration_error(probability, happened, bins=2) == pytest.approx(0.25)


def test_a_true_model_is_calibrated_and_a_sharp_one_is_after_a_refit() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 8000)
    happened = rng.random(8000) < 1 / (1 + np.exp(-logits))
    assert calibration_error(1 / (1 + np.exp(-logits)), happened) < 0.03

    sharp = 3 * logits
    assert calibration_error(1 / (1 + np.exp(-sharp)), happened) > 0.1
    factor = fit_sharpness(sharp[:4000], happened[:4000])
    assert factor == pytest.approx(1 / 3, rel=0.1)
    assert calibration_error(1 / (1 + np.exp(-factor * sharp[4000:])), happened[4000:]) < 0.05


def test_the_floor_is_what_a_true_model_shows() -> None:
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(100):
        probability = rng.uniform(0.2, 0.8, 300)
        errors.append(calibration_error(probability, rng.random(300) < probability))
    assert calibration_floor(probability) == pytest.approx(np.mean(errors), abs=0.01)
    assert calibration_floor(probability) > 0.05


def test_intervals_by_prompt_cover_the_truth() -> None:
    """Judgments of a prompt share an offset; the interval must cover the mean in about 95 % of worlds."""
    rng = np.random.default_rng(0)
    covered, covered_naive = [], []
    for seed in range(150):
        offsets = rng.normal(0, 1, 40)
        values = np.repeat(offsets, 10) + rng.normal(0, 1, 400)
        estimate = estimate_mean(values, list(np.repeat(np.arange(40), 10)), seed)
        covered.append(estimate.low <= 0 <= estimate.high)
        if seed < 40:
            naive = estimate_mean(values, list(range(400)), seed)
            covered_naive.append(naive.low <= 0 <= naive.high)
    assert 0.89 <= np.mean(covered) <= 0.99
    assert np.mean(covered_naive) < 0.75


# ---------------------------------------------------------------- baselines


def test_bag_of_words_learns_words_in_english_and_chinese() -> None:
    rng = np.random.default_rng(0)
    for good, bad, filler in (
        ("kind", "rude", ["the", "a", "of", "shop"]),
        ("友好", "粗鲁", ["的", "一", "是", "店"]),
    ):
        joined = " " if filler[0] == "the" else ""

        def text(word: str, filler: list[str] = filler, joined: str = joined) -> str:
            return joined.join([*rng.choice(filler, 5), word, *rng.choice(filler, 3)])

        feedback: list[Feedback] = [
            Preference(prompt="p", first=text(good), second=text(bad), choice="first") for _ in range(60)
        ]
        model = fit_head(feedback, BagOfWords(feedback), heads=0, prior=0.3)
        prompts = ["p"] * 50
        logits = model.choice_logits(prompts, [text(good) for _ in prompts], [text(bad) for _ in prompts])
        assert (logits > 0).all()


def test_longer_wins() -> None:
    assert longer_wins(["abc", "a"], ["ab", "a"]).tolist() == [1, 0]


# ---------------------------------------------------------------- rules and sums


def test_rules_and_sums() -> None:
    texts = ["a b c a b c a b c", "all of this differs", "damn"]
    prompts = [""] * 3
    repetition = repetition_rule(2)
    # 8 pairs of words, of which (a b) (b c) (c a) differ; no pair occurs twice in the others
    assert repetition.score(prompts, texts).tolist() == pytest.approx([3 / 8 - 1, 0, 0])
    assert length_rule(5, 10).score(prompts, ["12345", "1" * 15, ""]).tolist() == [0, -0.5, -1]
    assert phrase_rule(["DAMN"]).score(prompts, texts).tolist() == [0, 0, -1]
    total = WeightedSum(((2.0, repetition), (0.5, phrase_rule(["damn"]))))
    assert total.score(prompts, texts).tolist() == pytest.approx([2 * (3 / 8 - 1), 0, -0.5])
    assert isinstance(total, RewardSource)
    assert total.version != WeightedSum(((2.0, repetition), (0.4, phrase_rule(["damn"])))).version
    saturated = Saturated(length_rule(0, 1), 0.0).score([""], ["x"])
    assert saturated.tolist() == pytest.approx([math.log(0.5)])
    with pytest.raises(TrainingError, match="rule odd gave nan for 'x'"):
        Rule("odd", lambda prompt, completion: math.nan).score([""], ["x"])
    with pytest.raises(ConfigError):
        WeightedSum(())
    with pytest.raises(ConfigError):
        length_rule(5, 4)


# ---------------------------------------------------------------- characters to tokens


def test_marked_characters_reach_their_tokens() -> None:
    credits = (Credit(0, 4, 0.0, 0.1), Credit(4, 6, -1.0), Credit(6, 8, 0.0, 0.1))
    # tokens: "ab", "cd", "ef" (blamed), "gh"; then one across the border, one split sign, the end token
    offsets = [(0, 2), (2, 4), (4, 6), (6, 8), (3, 5), (4, 5), (4, 5), (8, 8)]
    values_T, weights_T = token_credit(credits, offsets)
    assert values_T.tolist() == pytest.approx([0, 0, -1, 0, -1 / 1.1, -1, -1, 0])
    assert weights_T.tolist() == pytest.approx([0.1, 0.1, 1, 0.1, 0.55, 1, 1, 0])
    assert token_credit((), offsets)[1].sum() == 0
    # half of the token blamed at weight .5, half praised at weight 1: (-1 * .5 + 1 * 1) / 1.5
    values_T, weights_T = token_credit((Credit(0, 2, -1.0, 0.5), Credit(2, 4, 1.0)), [(0, 4)])
    assert (values_T.item(), weights_T.item()) == pytest.approx((1 / 3, 0.75))


def test_judgments_that_mark_characters() -> None:
    completion = "The shop opens at nine today."
    edit = Edit(prompt="p", completion=completion, corrected=completion.replace("nine", "ten"))
    blamed = [credit for credit in text_credit(edit) if credit.value]
    assert blamed == [Credit(18, 22, -1.0)]
    rewrite = Dialogue(prompt="p", completion=completion, reply="No!", rewrite=edit.corrected)
    assert text_credit(rewrite) == text_credit(edit)
    span = Span(prompt="p", completion=completion, start=4, end=8, category="drift", severity=-0.5)
    assert text_credit(span) == (Credit(4, 8, -0.5),)
    assert text_credit(Ranking(prompt="p", completions=("a", "b"), ranks=(1, 2))) == ()
