"""Agreement: published vectors, other libraries, labels that are random, and repeats worked by hand (T6.1, T6.2)."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from rewardloop.feedback.agreement import (
    Level,
    compute_ac1,
    compute_alpha,
    compute_cohen,
    compute_fleiss,
    compute_same,
    measure_agreement,
    measure_consistency,
    wilson_interval,
)
from rewardloop.types import THUMB, Comment, Dialogue, Edit, Feedback, Live, Preference, Ranking, Rating, Span

# Krippendorff (2011): four observers, twelve units, values 1 to 5; 0 is missing.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
)
# Fleiss (1971) as in the common example: ten subjects, fourteen people, five classes.
FLEISS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def counts_of(ratings_AI: np.ndarray, values: int) -> np.ndarray:
    return np.array([[(unit == value).sum() for value in range(1, values + 1)] for unit in ratings_AI.T])


@pytest.mark.parametrize(
    ("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849), ("ratio", 0.797)]
)
def test_krippendorffs_own_example(level: Level, alpha: float) -> None:
    assert compute_alpha(counts_of(OBSERVERS, 5), np.arange(1.0, 6.0), level) == pytest.approx(alpha, abs=5e-4)


def test_cohen_and_fleiss_examples() -> None:
    first = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    second = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert compute_cohen(first, second) == pytest.approx(0.40, abs=1e-12)
    assert compute_fleiss(FLEISS) == pytest.approx(0.2099, abs=5e-5)


def test_kappas_are_those_of_other_libraries() -> None:
    with warnings.catch_warnings():  # what it imports on the way is deprecated
        warnings.simplefilter("ignore")
        from statsmodels.stats.inter_rater import fleiss_kappa
    rng = np.random.default_rng(0)
    first, second = rng.integers(4, size=60), rng.integers(4, size=60)
    second[:30] = first[:30]
    assert compute_cohen(first, second) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    counts = np.array([rng.multinomial(7, rng.dirichlet(np.ones(3))) for _ in range(20)])
    assert compute_fleiss(counts) == pytest.approx(fleiss_kappa(counts), abs=1e-12)


def test_ac1_stays_where_kappa_collapses() -> None:
    """By hand: 98 of 100 items "1" by both, 2 items split. Same .98; q = .99; chance 2 * .99 * .01 = .0198."""
    counts = np.array([[0, 2]] * 98 + [[1, 1]] * 2)
    assert compute_ac1(counts) == pytest.approx((0.98 - 0.0198) / (1 - 0.0198), abs=1e-12)
    kappa = compute_fleiss(counts)
    assert kappa is not None
    assert kappa < 0


def test_alpha_of_random_labels_is_zero() -> None:
    """T6.2: fifty sets of 200 items, 5 people, 4 classes, unevenly frequent: mean alpha within 2 standard errors."""
    rng = np.random.default_rng(1)
    for level in ("nominal", "ordinal", "interval"):
        alphas = [
            compute_alpha(rng.multinomial(5, [0.5, 0.3, 0.1, 0.1], size=200), np.arange(4.0), level) for _ in range(50)
        ]
        found = np.array(alphas, dtype=float)
        assert abs(found.mean()) < 3 * found.std() / np.sqrt(50)
        assert found.std() < 0.05


def test_same_is_the_share_of_meetings() -> None:
    """By hand: an item with votes 2 and 1 has 1 of 3 meetings alike, one with 2 and 0 has 1 of 1."""
    assert compute_same(np.array([[2, 1], [2, 0]])) == pytest.approx(2 / 4)


def test_whoever_chooses_the_same_text_agrees_whatever_its_side() -> None:
    feedback = []
    for number in range(20):
        good, bad = f"good {number}", f"bad {number}"
        feedback += [
            Preference(prompt="p", first=good, second=bad, choice="first", annotator="Ann"),
            Preference(prompt="p", first=bad, second=good, choice="second", annotator="Bo"),
        ]
    (agreement,) = measure_agreement(feedback)
    assert (agreement.same, agreement.items, agreement.people, agreement.judgments) == (1.0, 20, 2, 40)
    assert agreement.alpha is None  # by alphabet "bad" is first, and it never won: there is one answer only


def test_alpha_of_choices_sees_opposites() -> None:
    feedback = []
    for number in range(20):
        texts = f"a {number}", f"b {number}"
        won = texts[number % 2]
        side: Literal["first", "second"] = "first" if won == texts[0] else "second"
        feedback += [  # on the same side, so the other text
            Preference(prompt="p", first=texts[0], second=texts[1], annotator="Ann", choice=side),
            Preference(prompt="p", first=texts[1], second=texts[0], annotator="Bo", choice=side),
        ]
    (agreement,) = measure_agreement(feedback)
    assert agreement.same == 0
    assert agreement.alpha is not None
    assert agreement.alpha < -0.9


def test_every_kind_has_its_level_and_words_have_none() -> None:
    feedback: list[Feedback] = []
    for name in ("Ann", "Bo"):
        common = {"prompt": "p", "annotator": name}
        feedback += [
            Rating(completion="x", value=3, **common),
            Rating(completion="x", value=1, scale=THUMB, **common),
            Ranking(completions=("x", "y", "z"), ranks=(1, 2, 3), **common),
            Edit(completion="the cat sat", corrected="the dog sat", **common),
            Dialogue(completion="x", reply="ok", evaluation=1, **common),
            Dialogue(completion="x", reply="and?", **common),
            Span(completion="xyz", start=0, end=1, category="fact", severity=-0.5, **common),
            Live(completion="xyz", offset=1, value=-1, reaction_ms=500, **common),
            Comment(completion="x", text="hm", **common),
        ]
    levels = {found.question.kind: found.question.level for found in measure_agreement(feedback)}
    assert levels == {
        "rating 1-5": "ordinal",
        "rating 0-1": "nominal",
        "ranking of 3": "ordinal",
        "edit": "interval",
        "dialogue": "ordinal",
        "marks": "interval",
    }


def test_criteria_and_scales_are_not_mixed() -> None:
    feedback = [
        Rating(prompt="p", completion="x", value=3, annotator="Ann", criterion="facts"),
        Rating(prompt="p", completion="x", value=3, annotator="Bo", criterion="tone"),
    ]
    assert measure_agreement(feedback) == ()


def test_repeats_with_sides_swapped() -> None:
    """By hand. Ann chose text a, then a on the other side, then b: 1 of 2 repeats the same; Bo stayed on his side."""

    def choice(name: str, first: str, second: str, side: str) -> Preference:
        return Preference(prompt="p", first=first, second=second, choice=side, annotator=name)  # type: ignore[arg-type]

    feedback = [
        choice("Ann", "a", "b", "first"),
        choice("Bo", "a", "b", "first"),
        choice("Ann", "b", "a", "second"),
        choice("Ann", "a", "b", "second"),
        choice("Bo", "b", "a", "first"),
        choice("Cy", "a", "b", "first"),
    ]
    ann, bo = measure_consistency(feedback)
    assert (ann.annotator, ann.repeats, ann.same, ann.swapped, ann.kept_side) == ("Ann", 2, 0.5, 1, 0.0)
    assert (bo.annotator, bo.repeats, bo.same, bo.swapped, bo.kept_side) == ("Bo", 1, 0.0, 1, 1.0)


def test_wilson_interval_of_a_textbook() -> None:
    """15 of 50 (statsmodels, method "wilson")."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from statsmodels.stats.proportion import proportion_confint
    assert wilson_interval(15, 50) == pytest.approx(proportion_confint(15, 50, method="wilson"), abs=1e-4)


def test_quality_needs_no_torch() -> None:
    """The gateway measures people and must start in about a second."""
    names = ("agreement", "reliability", "dawid_skene", "monitoring", "exclusions", "queue", "information")
    code = "import sys\n" + "\n".join(f"import rewardloop.feedback.{name}" for name in names)
    code += "\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
