"""Guards: published run lengths and error rates by simulation, records worked by hand (T6.8, T6.9), gate on poison."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, norm

from crowds import Person, ask
from rewardloop.feedback.exclusions import (
    cap_accounts,
    is_quarantined,
    propose_exclusion,
    weigh_judgments,
)
from rewardloop.feedback.monitoring import (
    GoldRecord,
    decide_sequentially,
    detect_drift,
    find_straight_lines,
    surprise_points,
)
from rewardloop.feedback.reliability import ChannelFit, measure_people
from rewardloop.feedback.rulings import Ruling, standing_exclusions
from rewardloop.types import Feedback, Preference, Rating

# ---------------------------------------------------------------- gold and the sequential test


def test_gold_by_the_beta_distribution() -> None:
    """Ten gold items: with Beta(4 + 5, 1 + 5), P(accuracy > .7) is .22; with 3 right it is below .05."""
    assert GoldRecord(5, 5).chance_good == pytest.approx(1 - beta.cdf(0.7, 9, 6), abs=1e-12)
    assert not GoldRecord(5, 5).failed
    assert GoldRecord(3, 7).failed
    assert not GoldRecord(1, 8).failed  # nine answers are too few


def test_sequential_test_by_hand() -> None:
    """log 1.6 = .470 a right answer, log .4 = -.916 a wrong one; the bounds are +-2.944: 7 right, or 4 wrong."""
    assert decide_sequentially([True] * 6) is None
    assert decide_sequentially([True] * 7) == "good"
    assert decide_sequentially([False] * 3) is None
    assert decide_sequentially([False] * 4) == "guessing"
    assert decide_sequentially([False] * 4 + [True] * 100) == "guessing"  # the first decision stands


def test_good_people_are_hardly_ever_called_guessing() -> None:
    """T6.8: at accuracy .8, at most 5 % of 4000; guessing at .5 is called good in at most 5 % too."""
    rng = np.random.default_rng(0)
    decided = {
        accuracy: [decide_sequentially(list(rng.random(200) < accuracy)) for _ in range(4000)]
        for accuracy in (0.8, 0.5)
    }
    assert decided[0.8].count("guessing") / 4000 <= 0.05
    assert decided[0.5].count("good") / 4000 <= 0.05
    assert decided[0.5].count("guessing") / 4000 > 0.9


# ---------------------------------------------------------------- drift


def test_drift_alarms_are_rare_without_drift() -> None:
    """T6.9: mean run to a false alarm at least 400 points (465 for a two-sided chart with k = .5, h = 5)."""
    rng = np.random.default_rng(0)
    runs = [detect_drift(norm.ppf(rng.random(6000)).tolist()).alarm for _ in range(150)]
    assert np.mean([6000 if run is None else run + 1 for run in runs]) >= 400


def test_a_shift_of_one_deviation_is_found_soon() -> None:
    """Published mean run 10.4 points; both directions are named."""
    rng = np.random.default_rng(1)
    found = [detect_drift((rng.standard_normal(200) - 1).tolist()) for _ in range(300)]
    assert np.mean([drift.alarm + 1 for drift in found if drift.alarm is not None]) == pytest.approx(10.4, abs=1)
    assert {drift.direction for drift in found} == {"worse"}
    assert detect_drift([3.0] * 3).direction == "better"
    assert detect_drift([3.0] * 3).alarm == 2  # by hand: 2.5, 5.0, 7.5


def test_somebody_who_stops_reading_is_found_by_their_surprises() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, 20)
    feedback = ask(rng, truth, [Person(f"{n}") for n in range(6)] + [Person("tired")], 150)
    fit = measure_people(feedback)
    later = ask(rng, truth, [Person("tired", 0.0)], 400)
    assert detect_drift(surprise_points(feedback, "0", fit)).alarm is None
    drift = detect_drift(surprise_points([*feedback, *later], "tired", fit))
    assert drift.direction == "worse"
    assert drift.alarm is not None
    assert drift.alarm >= 15  # 150 answers, ten a point, were as expected
    points = surprise_points(ask(rng, truth, [Person("0")], 3000), "0", fit)
    assert len(points) == 300
    assert np.std(points) == pytest.approx(1, abs=0.15)


# ---------------------------------------------------------------- straight lines


def test_a_run_on_one_side_is_suspicious_and_chance_is_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=20)
    feedback: list[Feedback] = [*ask(rng, truth, [Person(f"{n}") for n in range(5)], 60)]
    feedback += [
        Preference(prompt="p", first=f"{n}", second=f"{n + 1}", choice="first", annotator="lazy") for n in range(18)
    ]
    lines = find_straight_lines(feedback)
    assert [line.annotator for line in lines if line.suspicious] == ["lazy"]
    assert (lines[0].answer, lines[0].length) == ("first", 18)


def test_chance_of_a_run_by_hand() -> None:
    """Others gave 5 in 1 of 4 ratings: share (1 + 1) / (4 + 5); four of them in six answers: 3 * (2/9)^4."""
    said = {"others": (5, 1, 2, 3), "Ann": (1, 5, 5, 5, 5, 1)}
    feedback = [
        Rating(prompt="p", completion=f"{n}", value=value, annotator=name)
        for name, values in said.items()
        for n, value in enumerate(values)
    ]
    line = next(line for line in find_straight_lines(feedback) if line.annotator == "Ann")
    assert (line.answer, line.length) == ("5", 4)
    assert line.chance == pytest.approx(3 * (2 / 9) ** 4)


# ---------------------------------------------------------------- exclusions, quarantine, floods


def test_the_last_ruling_holds_in_whatever_order_they_come() -> None:
    rulings = [
        Ruling("Ann", "exclude", "gold", "gold", 1.0),
        Ruling("Bo", "exclude", "spam", "the owner", 2.0),
        Ruling("Ann", "restore", "talked with her", "the owner", 3.0),
    ]
    for order in (rulings, rulings[::-1]):
        assert set(standing_exclusions(order)) == {"Bo"}
    assert standing_exclusions(rulings)["Bo"].reason == "spam"


def test_exclusions_are_proposed_with_a_reason() -> None:
    rng = np.random.default_rng(0)
    people = [Person(f"{n}") for n in range(6)] + [Person("opposite", -1.0), Person("guess", 0.0)]
    fit = measure_people(ask(rng, rng.normal(0, 1.5, 20), people, 150))
    found = {r.annotator: propose_exclusion(r.annotator, [], r, 5.0) for r in fit.reliabilities()}
    assert {name for name, ruling in found.items() if ruling} == {"opposite", "guess"}
    assert "opposite of the others" in str(found["opposite"])
    assert propose_exclusion("x", [False] * 10, None, 0.0) == Ruling(
        "x", "exclude", "0 of 10 gold items right; P(accuracy > 0.7) is 0.0%", "gold", 0.0
    )
    assert propose_exclusion("x", [False] * 4, None, 0.0).by == "sequential test"  # type: ignore[union-attr]
    assert propose_exclusion("x", [True] * 12, None, 0.0) is None


def test_newcomers_wait_until_they_are_known() -> None:
    assert is_quarantined(3, [])
    assert not is_quarantined(10, [])
    assert not is_quarantined(8, [True] * 7)


def test_a_flood_weighs_a_twentieth_of_the_batch() -> None:
    """1,000 judgments of one account among 60 with ten each."""
    names = ["flood"] * 1000 + [f"{n}" for n in range(60) for _ in range(10)]
    weights = cap_accounts(np.ones(len(names)), names)
    assert weights[:1000].sum() / weights.sum() == pytest.approx(0.05)
    assert (weights[1000:] == 1).all()


def test_several_floods_are_each_capped_and_small_groups_are_not_starved() -> None:
    names = ["a"] * 500 + ["b"] * 300 + [f"{n}" for n in range(40) for _ in range(10)]
    weights = cap_accounts(np.ones(len(names)), names)
    shares = [weights[np.array(names) == name].sum() / weights.sum() for name in ("a", "b", "0")]
    assert shares[:2] == pytest.approx([0.05, 0.05])
    assert max(shares) <= 0.05 + 1e-12
    assert (cap_accounts(np.ones(7), ["only"] * 7) == 1).all()
    assert (cap_accounts(np.ones(7), ["one"] * 6 + ["two"]) == 1).all()
    four = cap_accounts(np.ones(100), ["a"] * 97 + ["b", "c", "d"])
    assert four[:97].sum() == pytest.approx(3)  # four people: half of the whole at most


def test_weights_of_judgments() -> None:
    feedback = [Preference(prompt="p", first="x", second="y", choice="first", annotator=n) for n in "abcd"]
    weights = weigh_judgments(feedback, {"a": 0.5, "b": 0.9}, excluded=["b"], quarantined=["c"])
    assert weights.tolist() == [0.5, 0, 0, 1]


# ---------------------------------------------------------------- poison: product gate 20, on items


def accuracy(fit: ChannelFit, truth: np.ndarray) -> float:
    rewards = np.zeros(len(truth))
    for (_, text), reward in zip(fit.texts, fit.rewards_N, strict=True):
        rewards[int(text)] = reward
    i, j = np.triu_indices(len(truth), 1)
    return float(np.mean((rewards[i] > rewards[j]) == (truth[i] > truth[j])))


def poisoned(kind: str, seed: int) -> tuple[float, float, list[float]]:
    """Accuracy clean and poisoned, and the weights: the last are those of the poisoners."""
    rng = np.random.default_rng(seed)
    truth, wrong = rng.normal(0, 1.5, 30), rng.normal(0, 1.5, 30)
    honest, bad = [Person(f"h{n:02}") for n in range(38)], [Person(f"z{n}") for n in range(2 if kind == "sybil" else 4)]
    clean = ask(rng, truth, honest, 50)
    believed = {"random": 0 * truth, "inverted": -truth, "sybil": 4 * wrong}[kind]
    fit = measure_people([*clean, *ask(rng, believed, bad, 50)])
    weights = [person.weight for person in sorted(fit.reliabilities(), key=lambda person: person.annotator)]
    return accuracy(measure_people(clean), truth), accuracy(fit, truth), weights


@pytest.mark.parametrize(("kind", "loss"), [("random", 0.02), ("inverted", 0.03), ("sybil", 0.05)])
def test_poison_costs_little_and_poisoners_are_flagged(kind: str, loss: float) -> None:
    """A tenth at random, a tenth inverted, a twentieth colluding; 50 judgments each: AUC of 1 - weight at least .9."""
    losses, ranks = [], []
    for seed in range(3):
        clean, dirty, weights = poisoned(kind, seed)
        losses.append(clean - dirty)
        honest, bad = weights[:38], weights[38:]
        ranks += [np.mean([(b < h) + (b == h) / 2 for h in honest]) for b in bad]
    assert np.mean(losses) <= loss
    assert np.mean(ranks) >= 0.9
