"""The likelihood of judgments: against enumeration, closed forms, finite differences, and recovered truths (T3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rewardloop.feedback.evidence import Evidence, gather_evidence
from rewardloop.reward.fitting import minimize
from rewardloop.reward.likelihood import (
    Annotators,
    Channel,
    build_channel,
    event_nll,
    judgment_nll,
    start_channel,
)
from rewardloop.types import (
    THUMB,
    Dialogue,
    Edit,
    Feedback,
    Flag,
    Preference,
    Ranking,
    Rating,
    Scale,
    Span,
)

PEOPLE = Annotators(
    severity_A=torch.tensor([0.0, 0.7], dtype=torch.float64),
    discrimination_A=torch.tensor([1.0, 1.6], dtype=torch.float64),
    lapse_A=torch.tensor([0.0, 0.2], dtype=torch.float64),
    side_bias_A=torch.tensor([0.0, 0.4], dtype=torch.float64),
)


def channel_of(evidence: Evidence, people: Annotators | None = None, shift: float = 0.3) -> Channel:
    return build_channel(start_channel(evidence) + shift, evidence, people)


def probabilities(evidence: Evidence, rewards: dict[str, float], channel: Channel) -> Tensor:
    scores_N = torch.tensor([rewards[text] for _, text in evidence.texts], dtype=torch.float64)
    return torch.exp(-event_nll(scores_N, evidence, channel))


@pytest.mark.parametrize(
    "choices",
    [("first", "second"), ("first", "second", "tie"), ("first", "second", "tie", "both_bad")],
)
def test_choices_of_a_pair_sum_to_one_for_odd_people_too(choices: Sequence[str]) -> None:
    evidence = gather_evidence(
        [Preference(prompt="p", first="a", second="b", choice=c, annotator="Ann") for c in choices]  # type: ignore[arg-type]
    )
    p = probabilities(evidence, {"a": 1.3, "b": -0.4}, channel_of(evidence, PEOPLE))
    assert p.sum().item() == pytest.approx(1, abs=1e-12)
    assert (p > 0.01).all()


def test_steps_of_a_scale_and_orders_of_a_ranking_sum_to_one() -> None:
    steps = [Rating(prompt="p", completion="a", value=v, annotator="Ann") for v in range(1, 6)]
    evidence = gather_evidence(steps)
    assert probabilities(evidence, {"a": 0.7}, channel_of(evidence, PEOPLE)).sum().item() == pytest.approx(1, abs=1e-12)

    orders = [
        Ranking(prompt="p", completions=("a", "b", "c", "d"), ranks=ranks, annotator="Ann")
        for ranks in itertools.permutations((1, 2, 3, 4))
    ]
    evidence = gather_evidence(orders)
    rewards = {"a": 0.7, "b": 0.1, "c": -2.0, "d": 1.0}
    assert probabilities(evidence, rewards, channel_of(evidence, PEOPLE)).sum().item() == pytest.approx(1, abs=1e-12)


def test_plackett_luce_is_a_sequence_of_choices() -> None:
    """By hand: P(b > c > a) = e^2/(e^2+e^1+e^0) * e^1/(e^1+e^0)."""
    evidence = gather_evidence([Ranking(prompt="p", completions=("a", "b", "c"), ranks=(3, 1, 2))])
    p = probabilities(evidence, {"a": 0.0, "b": 2.0, "c": 1.0}, channel_of(evidence))
    e = math.e
    assert p.item() == pytest.approx(e**2 / (e**2 + e + 1) * e / (e + 1), abs=1e-12)


def test_equal_ranks_say_nothing_about_each_other() -> None:
    """By hand: a and b before c, P = e^0/(e^0+e^1) * e^2/(e^2+e^1)."""
    evidence = gather_evidence([Ranking(prompt="p", completions=("a", "b", "c"), ranks=(1, 1, 2))])
    p = probabilities(evidence, {"a": 0.0, "b": 2.0, "c": 1.0}, channel_of(evidence))
    e = math.e
    assert p.item() == pytest.approx(1 / (1 + e) * e**2 / (e**2 + e), abs=1e-12)


def test_a_ranking_of_two_is_bradley_terry() -> None:
    evidence = gather_evidence(
        [
            Ranking(prompt="p", completions=("a", "b"), ranks=(1, 2)),
            Preference(prompt="p", first="a", second="b", choice="first"),
        ]
    )
    p = probabilities(evidence, {"a": 0.9, "b": -0.3}, channel_of(evidence))
    assert p[0].item() == pytest.approx(p[1].item(), abs=1e-12)
    assert p[1].item() == pytest.approx(1 / (1 + math.exp(-1.2)), abs=1e-12)


def test_two_stars_are_a_thumb() -> None:
    feedback: list[Feedback] = [
        Rating(prompt="p", completion="a", value=2, scale=Scale(low=1, high=2)),
        Rating(prompt="p", completion="a", value=1, scale=THUMB),
        Flag(prompt="p", completion="a", reason="rude"),
    ]
    evidence = gather_evidence(feedback)
    channel = channel_of(evidence)
    up_stars, up_thumb, flag = probabilities(evidence, {"a": 0.5}, channel)
    assert up_stars == up_thumb
    assert up_thumb.item() == pytest.approx(1 / (1 + math.exp(float(channel.cutpoints[0]) - 0.5)), abs=1e-12)
    assert flag.item() == pytest.approx(1 - up_thumb.item(), abs=1e-12)


def test_rao_kupper_ties_by_hand() -> None:
    """With strengths e^R and theta = e^tie: P(first) = s_a / (s_a + theta s_b)."""
    feedback = [Preference(prompt="p", first="a", second="b", choice=c) for c in ("first", "tie", "second")]  # type: ignore[arg-type]
    evidence = gather_evidence(feedback)
    channel = replace(channel_of(evidence), tie=torch.tensor(0.5, dtype=torch.float64))
    first, tie, second = probabilities(evidence, {"a": 0.2, "b": 1.0}, channel).tolist()
    strong_a, strong_b, theta = math.exp(0.2), math.exp(1.0), math.exp(0.5)
    assert first == pytest.approx(strong_a / (strong_a + theta * strong_b), abs=1e-12)
    assert second == pytest.approx(strong_b / (strong_b + theta * strong_a), abs=1e-12)
    assert tie == pytest.approx(1 - first - second, abs=1e-12)


def test_a_correction_must_win_by_a_margin_that_grows_with_the_change() -> None:
    feedback: list[Feedback] = [
        Edit(prompt="p", completion="the red cat sat", corrected="the blue cat sat"),
        Edit(prompt="p", completion="the red cat sat", corrected="no"),
        Dialogue(prompt="p", completion="the red cat sat", reply="No, write no!", rewrite="no"),
    ]
    evidence = gather_evidence(feedback)
    small, whole, rewrite = probabilities(
        evidence, {"the red cat sat": 0.0, "the blue cat sat": 0.0, "no": 0.0}, channel_of(evidence)
    ).tolist()
    assert whole < small < 0.5
    assert whole == rewrite
    assert whole == pytest.approx(1 / (1 + math.e), abs=0.02)  # nothing kept: margin m0 = 1


def test_sides_sway_choices_and_not_corrections() -> None:
    """Ann leans to the first text by 0.4 logits; a corrected text was not shown on a side."""
    feedback: list[Feedback] = [
        Preference(prompt="p", first="aaaa", second="bbbb", choice="second", annotator="Ann"),
        Edit(prompt="p", completion="aaaa", corrected="bbbb", annotator="Ann"),
    ]
    evidence = gather_evidence(feedback)
    people = replace(Annotators.alike(2), side_bias_A=torch.tensor([0.0, 0.4], dtype=torch.float64))
    choice, correction = probabilities(evidence, {"aaaa": 0.0, "bbbb": 0.0}, channel_of(evidence, people)).tolist()
    assert choice == pytest.approx(1 / (1 + math.exp(0.4)), abs=1e-12)
    assert correction == pytest.approx(1 / (1 + math.e), abs=1e-12)  # margin 1: nothing was kept


def test_marks_of_one_person_are_one_judgment() -> None:
    marks = [
        Span(
            prompt="p",
            completion="abc def",
            start=i,
            end=i + 3,
            category="fact",
            annotator="Ann",
            severity=-0.25,
        )
        for i in (0, 4)
    ]
    evidence = gather_evidence(marks)
    assert evidence.ordinals.weight_E.tolist() == [0.5]
    assert evidence.ordinals.category_E.tolist() == [0]


def mixed_feedback() -> list[Feedback]:
    return [
        Preference(prompt="p", first="a", second="b", choice="first", annotator="Ann"),
        Preference(prompt="p", first="a", second="c", choice="tie"),
        Preference(prompt="p", first="c", second="b", choice="both_bad", annotator="Ann"),
        Ranking(prompt="p", completions=("a", "b", "c"), ranks=(1, 3, 1), annotator="Ann"),
        Ranking(prompt="p", completions=("c", "b"), ranks=(2, 1)),
        Rating(prompt="p", completion="a", value=4, annotator="Ann"),
        Rating(prompt="p", completion="b", value=1),
        Rating(prompt="p", completion="c", value=5),
        Rating(prompt="p", completion="c", value=1, scale=THUMB),
        Edit(prompt="p", completion="a", corrected="b", annotator="Ann"),
        Dialogue(prompt="p", completion="a", reply="hm", evaluation=0),
    ]


def test_gradients_agree_with_finite_differences() -> None:
    evidence = gather_evidence(mixed_feedback())
    scores_N = torch.tensor([0.4, -0.8, 1.1], dtype=torch.float64, requires_grad=True)
    free_C = (start_channel(evidence) + 0.1).requires_grad_()
    people = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True)
        for v in ([0.1, 0.7], [1.0, 1.6], [0.05, 0.2], [0.0, 0.4])
    ]

    def nll(scores_N: Tensor, free_C: Tensor, *people: Tensor) -> Tensor:
        return judgment_nll(scores_N, evidence, build_channel(free_C, evidence, Annotators(*people)))

    assert torch.autograd.gradcheck(nll, (scores_N, free_C, *people), eps=1e-6, atol=1e-7)


def test_gradients_are_finite_with_people_who_never_lapse() -> None:
    evidence = gather_evidence(mixed_feedback())
    scores_N = torch.tensor([40.0, -80.0, 1.1], dtype=torch.float64, requires_grad=True)
    free_C = start_channel(evidence).requires_grad_()
    judgment_nll(scores_N, evidence, build_channel(free_C, evidence)).backward()
    assert scores_N.grad is not None
    assert free_C.grad is not None
    assert scores_N.grad.isfinite().all()
    assert free_C.grad.isfinite().all()


def test_heads_are_independent_and_weights_multiply_events() -> None:
    evidence = gather_evidence(mixed_feedback())
    channel = channel_of(evidence)
    scores_HN = torch.tensor([[0.4, -0.8, 1.1], [0.0, 2.0, -1.0]], dtype=torch.float64)
    weights_HE = torch.rand(2, evidence.events, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = judgment_nll(scores_HN, evidence, channel, weights_HE)
    alone = [(event_nll(scores_HN[h], evidence, channel) * weights_HE[h]).sum() for h in range(2)]
    assert together.tolist() == pytest.approx([float(value) for value in alone], abs=1e-12)


# ---------------------------------------------------------------- recovery of a known truth (T3.2, T3.3)

ITEMS = 30


def kendall_tau(x: np.ndarray, y: np.ndarray) -> float:
    i, j = np.triu_indices(len(x), 1)
    return float(np.mean(np.sign(x[i] - x[j]) * np.sign(y[i] - y[j])))


def fit_scores(feedback: Sequence[Feedback], *, severities: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """MAP rewards of the items "0".."29" and severities, both with N(0, 2^2) and N(0, 1) priors."""
    evidence = gather_evidence(feedback)
    count, people = len(evidence.texts), len(evidence.annotators)
    start_C = start_channel(evidence)

    def objective(free: Tensor) -> Tensor:
        scores_N, severity_A, free_C = free[:count], free[count : count + people], free[count + people :]
        alike = Annotators.alike(people)
        annotators = replace(alike, severity_A=severity_A) if severities else alike
        nll = judgment_nll(scores_N, evidence, build_channel(free_C, evidence, annotators))
        prior = scores_N.square().sum() / 8 + severity_A.square().sum() / 2
        return nll + prior + (free_C - start_C).square().sum() / 8

    free = minimize(objective, torch.cat([torch.zeros(count + people, dtype=torch.float64), start_C])).numpy()
    scores = np.zeros(ITEMS)
    for (_, text), value in zip(evidence.texts, free, strict=False):
        scores[int(text)] = value
    severity = {name: free[count + number] for number, name in enumerate(evidence.annotators)}
    return scores, np.array([severity[name] for name in sorted(severity) if name])


def choose(rng: np.random.Generator, truth: np.ndarray, count: int) -> list[Feedback]:
    pairs = [rng.choice(ITEMS, 2, replace=False) for _ in range(count)]
    return [
        Preference(
            prompt="p",
            first=str(i),
            second=str(j),
            choice="first" if rng.random() < 1 / (1 + np.exp(truth[j] - truth[i])) else "second",
        )
        for i, j in pairs
    ]


def rate(rng: np.random.Generator, truth: np.ndarray, severity: np.ndarray, each: int) -> list[Feedback]:
    """Every person rates `each` random items on five steps, through logistic noise."""
    return [
        Rating(
            prompt="p",
            completion=str(i),
            value=1 + int(np.searchsorted([-3.0, -1.0, 1.0, 3.0], truth[i] - severe + rng.logistic())),
            annotator=f"{person:02d}",
        )
        for person, severe in enumerate(severity)
        for i in rng.choice(ITEMS, each, replace=False)
    ]


def test_known_scores_come_back_from_twenty_choices_an_item() -> None:
    """Scores of deviation 2.5; 20 comparisons an item: mean Kendall tau over seeds at least 0.9 (T3.2)."""
    taus = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        truth = np.linspace(-6, 6, ITEMS)[rng.permutation(ITEMS)]
        taus.append(kendall_tau(fit_scores(choose(rng, truth, 20 * ITEMS))[0], truth))
    assert np.mean(taus) >= 0.9


def test_severity_comes_back_and_leaving_it_out_is_worse() -> None:
    """T3.2 severity r >= .8; T3.3 the control without severity orders the items worse."""
    correlations, with_severity, without = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        truth, severity = rng.normal(0, 1.5, ITEMS), rng.normal(0, 1.5, 12)
        feedback = rate(rng, truth, severity - severity.mean(), each=8)
        scores, found = fit_scores(feedback, severities=True)
        correlations.append(np.corrcoef(found, severity)[0, 1])
        with_severity.append(kendall_tau(scores, truth))
        without.append(kendall_tau(fit_scores(feedback)[0], truth))
    assert np.mean(correlations) >= 0.8
    assert np.mean(with_severity) > np.mean(without) + 0.03


def test_kinds_together_beat_each_alone() -> None:
    """T3.2: choices and stars of the same items, 12 seeds."""
    alone_choices, alone_stars, together = [], [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, 1.5, ITEMS)
        choices, stars = choose(rng, truth, 90), rate(rng, truth, np.zeros(6), each=15)
        alone_choices.append(kendall_tau(fit_scores(choices)[0], truth))
        alone_stars.append(kendall_tau(fit_scores(stars)[0], truth))
        together.append(kendall_tau(fit_scores([*choices, *stars])[0], truth))
    assert np.mean(together) > max(np.mean(alone_choices), np.mean(alone_stars)) + 0.02
