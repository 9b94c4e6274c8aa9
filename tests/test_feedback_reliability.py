"""Whom to trust: gradients, plain Bradley-Terry as a special case, planted people found, labels with known truth."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import check_grad

from crowds import Person, ask, kendall_tau
from rewardloop.errors import DataError
from rewardloop.feedback.channel import Layout, compute_loss, observe, start_free
from rewardloop.feedback.dawid_skene import Labels, fit_labels, majority_belief
from rewardloop.feedback.evidence import gather_evidence
from rewardloop.feedback.reliability import ChannelFit, compute_weight, fit_channel, measure_people
from rewardloop.types import Edit, Feedback, Preference, Ranking, Rating

with warnings.catch_warnings():  # what they import on the way is deprecated
    warnings.simplefilter("ignore")
    import choix

ITEMS = 30


def rewards_of(fit: ChannelFit, items: int = ITEMS) -> np.ndarray:
    rewards = np.zeros(items)
    for (_, text), reward in zip(fit.texts, fit.rewards_N, strict=True):
        rewards[int(text)] = reward
    return rewards


def bradley_terry(feedback: list[Preference], items: int = ITEMS) -> np.ndarray:
    """Plain Bradley-Terry by another library: everybody alike."""
    won = [(c.first, c.second) if c.choice == "first" else (c.second, c.first) for c in feedback]
    return np.asarray(choix.ilsr_pairwise(items, [(int(a), int(b)) for a, b in won], alpha=0.1))


def rate(
    rng: np.random.Generator, truth: np.ndarray, name: str, each: int, severity: float = 0.0, kappa: float = 1.0
) -> list[Rating]:
    return [
        Rating(
            prompt="p",
            completion=str(i),
            annotator=name,
            value=1 + int(np.searchsorted([-3.0, -1.0, 1.0, 3.0], kappa * (truth[i] - severity) + rng.logistic())),
        )
        for i in rng.integers(len(truth), size=each)
    ]


# ---------------------------------------------------------------- the function that is minimized


def test_gradient_agrees_with_finite_differences() -> None:
    """Choices, ties, rankings and ratings; a scale of two, three and five steps, own spacings included."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=8)
    feedback: list[Feedback] = [*ask(rng, truth, [Person("a"), Person("b", -1, side=0.5)], 12)]
    feedback += [*rate(rng, truth, "a", 40), *rate(rng, truth, "b", 10)]
    feedback.append(Preference(prompt="p", first="0", second="1", choice="tie", annotator="a"))
    feedback.append(Preference(prompt="p", first="0", second="1", choice="both_bad"))
    feedback.append(Ranking(prompt="p", completions=("0", "1", "2"), ranks=(2, 1, 3), annotator="b"))
    layout = Layout(observe(gather_evidence(feedback)))
    assert layout.own_steps == ((0, 1),)  # person 1 is "a"; 0 is nobody in particular
    start = start_free(layout)
    free = start + 0.3 * rng.normal(size=layout.size)
    error = check_grad(
        lambda x: compute_loss(x, layout, start)[0], lambda x: compute_loss(x, layout, start)[1], free, epsilon=1e-6
    )
    assert error < 1e-4


def test_a_choice_by_hand() -> None:
    """kappa 2, lapse .2, side .5, gap .7: P = .8 sigma(1.9) + .1; a tie is half of either."""
    evidence = gather_evidence(
        [Preference(prompt="p", first="x", second="y", choice=c, annotator="a") for c in ("first", "second", "tie")]  # type: ignore[arg-type]
    )
    layout = Layout(observe(evidence))
    start = start_free(layout)
    free, at = start.copy(), layout.slices
    free[at["reward"]] = [0.7, 0.0]
    free[at["kappa"]][1], free[at["side"]][1], free[at["lapse"]][1] = 2.0, 0.5, np.log(0.2 / 0.8)
    nothing = layout.observations
    nobody = Layout(
        type(nothing)(
            **{
                name: getattr(nothing, name)[:0] if name.endswith(("_E", "_E2")) else getattr(nothing, name)
                for name in nothing.__slots__
            }
        )
    )
    loss = compute_loss(free, layout, start)[0] - compute_loss(free, nobody, start)[0]
    p = 0.8 / (1 + np.exp(-1.9)) + 0.1
    assert loss == pytest.approx(-1.5 * np.log(p) - 1.5 * np.log(1 - p), abs=1e-12)


def test_steps_of_a_scale_follow_severity_in_the_middle() -> None:
    """The chance of every step sums to one, and a person's own spacings leave the middle cutpoint alone."""
    rng = np.random.default_rng(1)
    layout = Layout(observe(gather_evidence(rate(rng, rng.normal(size=6), "a", 40))))
    start = start_free(layout)
    own = start.copy()
    own[layout.own_gaps()] = 0.7
    cuts = layout.cutpoints(own)
    assert cuts.shape == (2, 6)
    assert (np.diff(cuts, axis=1) > 0).all()
    assert cuts[1, 2] == cuts[0, 2]
    assert np.diff(cuts[1, 1:5]) == pytest.approx(np.diff(cuts[0, 1:5]) * np.exp(0.7))


# ---------------------------------------------------------------- planted people

HONEST = [Person(f"honest {n}") for n in range(6)]
ODD = [Person("opposite 1", -1), Person("opposite 2", -1), Person("guess 1", 0), Person("guess 2", 0)]


def test_odd_people_are_found_and_the_order_of_the_texts_saved() -> None:
    """T6.4: tau at least .1 above plain Bradley-Terry; those who say the opposite, and they alone, have kappa < 0."""
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, 1.5, ITEMS)
        feedback = ask(rng, truth, HONEST + ODD, 60)
        fit = measure_people(feedback)
        gains.append(kendall_tau(rewards_of(fit), truth) - kendall_tau(bradley_terry(feedback), truth))
        people = {person.annotator: person for person in fit.reliabilities()}
        for name, person in people.items():
            assert (person.discrimination + 2 * person.discrimination_sd < 0) == name.startswith("opposite")
            assert person.interval[0] <= person.weight <= person.interval[1]
            assert person.judgments == 60
        honest = [people[person.name].weight for person in HONEST]
        odd = [people[person.name].weight for person in ODD]
        assert min(honest) > max(0.5, *odd)
        assert np.mean(odd) < 0.2
    assert np.mean(gains) >= 0.1


def test_honest_people_lose_nothing() -> None:
    """T6.5: where everybody is ordinary, |delta tau| < .02 against plain Bradley-Terry."""
    changes = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0, 1.5, ITEMS)
        feedback = ask(rng, truth, [Person(f"honest {n}") for n in range(10)], 60)
        changes.append(
            kendall_tau(rewards_of(measure_people(feedback)), truth) - kendall_tau(bradley_terry(feedback), truth)
        )
    assert abs(np.mean(changes)) < 0.02


def test_side_bias_comes_back() -> None:
    """T6.6: within .2 logits on average over seeds, 400 choices each."""
    planted = {"left": 1.0, "right": -0.7, "neither": 0.0}
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        people = [Person(name, side=side) for name, side in planted.items()]
        fit = measure_people(ask(rng, rng.normal(0, 1.5, ITEMS), people, 400))
        errors.append([person.side_bias - planted[person.annotator] for person in fit.reliabilities()])
    assert np.abs(np.mean(errors, axis=0)).max() < 0.2


def test_severity_comes_back_and_ratings_find_the_opposite_too() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, ITEMS)
    severities = rng.normal(0, 1, 8)
    feedback = [
        judgment for n, severity in enumerate(severities) for judgment in rate(rng, truth, f"{n}", 60, severity)
    ]
    feedback += rate(rng, truth, "opposite", 60, kappa=-1.0)
    fit = measure_people(feedback)
    found = {person.annotator: person for person in fit.reliabilities()}
    assert np.corrcoef(severities, [found[f"{n}"].severity for n in range(8)])[0, 1] > 0.9
    assert found["opposite"].discrimination < 0
    assert all(found[f"{n}"].discrimination > 0.5 for n in range(8))


def test_a_lapsing_person_weighs_less_than_a_careful_one() -> None:
    rng = np.random.default_rng(2)
    people = [*HONEST, Person("sleepy", lapse=0.7)]
    fit = measure_people(ask(rng, rng.normal(0, 1.5, ITEMS), people, 150))
    weights = {person.annotator: person.weight for person in fit.reliabilities()}
    assert weights["sleepy"] == min(weights.values())
    assert weights["sleepy"] < 0.6


def test_intervals_hold_what_they_promise() -> None:
    """Posterior deviations of kappa: the truth within two of them in 85 to 100 % of 120 fits (90 % to 99 asked)."""
    inside = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kappas = np.clip(rng.normal(1, 0.4, 10), 0.2, None)
        people = [Person(f"{n}", float(kappa)) for n, kappa in enumerate(kappas)]
        fit = measure_people(ask(rng, rng.normal(0, 1.5, ITEMS), people, 80))
        unit = np.median(kappas)
        for person in fit.reliabilities():
            away = abs(person.discrimination - kappas[int(person.annotator)] / unit)
            inside.append(away < 2 * person.discrimination_sd)
    assert 0.85 < np.mean(inside) <= 1


def test_covariance_is_the_inverse_of_the_information() -> None:
    """Against a dense inverse; texts of two prompts do not know of each other."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=6)
    feedback: list[Feedback] = [*ask(rng, truth, HONEST[:2], 20)]
    feedback += [
        Preference(prompt="q", first="x", second="y", choice="first", annotator="honest 1"),
        Rating(prompt="q", completion="x", value=4, annotator="honest 1"),
    ]
    fit = measure_people(feedback)
    whole = np.linalg.inv(fit.precision_NN.toarray())
    other = [n for n, text in enumerate(fit.texts) if text[0] == "q"]
    chosen = [3, 0, *other]
    assert fit.covariance(chosen) == pytest.approx(whole[np.ix_(chosen, chosen)], abs=1e-10)
    assert (fit.covariance(chosen)[0, 2:] == 0).all()


def test_a_later_fit_goes_on_from_an_earlier_one() -> None:
    """From the start or from an earlier fit: the same answer; texts and people may be new."""
    rng = np.random.default_rng(3)
    truth = rng.normal(0, 1.5, ITEMS)
    early, late = ask(rng, truth, HONEST + ODD, 40), ask(rng, truth, [*HONEST, Person("new")], 10)
    earlier = fit_channel(gather_evidence(early))
    evidence = gather_evidence([*late, *early])
    assert rewards_of(fit_channel(evidence, start=earlier)) == pytest.approx(
        rewards_of(fit_channel(evidence)), abs=0.02
    )


def test_other_units_leave_every_chance_alone() -> None:
    """Rewards and discriminations are reported in other units than they are fitted in; their product is the same."""
    rng = np.random.default_rng(4)
    feedback: list[Feedback] = [*ask(rng, rng.normal(0, 1.5, 12), [Person(f"{n}", 2.0) for n in range(4)], 60)]
    feedback += rate(rng, rng.normal(0, 1.5, 12), "0", 20, severity=1.0)
    layout = Layout(observe(gather_evidence(feedback)))
    fit = measure_people(feedback)
    assert fit.unit > 1.1
    scaled, back, at = start_free(layout), start_free(layout), layout.slices
    scaled[at["reward"]], scaled[at["kappa"]], scaled[at["severity"]] = (
        fit.rewards_N,
        fit.discrimination_A,
        fit.severity_A,
    )
    scaled[at["side"]] = fit.side_bias_A
    scaled[at["lapse"]] = np.log(fit.lapse_A / (1 - fit.lapse_A))
    scaled[at["steps"]] = fit.steps
    back[:] = scaled
    back[at["kappa"]] *= fit.unit
    back[at["reward"]] = (scaled[at["reward"]] + fit.origin) / fit.unit
    back[at["severity"]] = (scaled[at["severity"]] + fit.origin) / fit.unit
    assert np.abs(compute_loss(back, layout, start_free(layout))[1]).max() < 0.05  # the maximum: no slope is left


def test_same_judgments_same_bits() -> None:
    rng = np.random.default_rng(0)
    feedback = ask(rng, rng.normal(size=ITEMS), HONEST, 20)
    assert measure_people(feedback).reliabilities() == measure_people(feedback).reliabilities()


def test_weight_of_ordinary_guessing_and_opposite_people() -> None:
    kappa, lapse, side = np.array([1.0, 0.0, -1.0, 1.0, 9.0]), np.array([0, 0, 0, 0.5, 0]), np.zeros(5)
    assert compute_weight(kappa, lapse, side) == pytest.approx([1, 0, 0, 0.5, 1])
    assert compute_weight(np.array([1.0]), np.array([0.0]), np.array([3.0]))[0] < 0.6


def test_criteria_are_measured_apart_and_corrections_say_nothing() -> None:
    choice = Preference(prompt="p", first="x", second="y", choice="first", annotator="a", criterion="facts")
    assert [r.judgments for r in measure_people([choice], "facts").reliabilities()] == [1]
    with pytest.raises(DataError, match="say nothing"):
        measure_people([choice], "tone")
    edit = Edit(prompt="p", completion="x", corrected="y", annotator="b")
    assert [person.annotator for person in measure_people([choice, edit]).reliabilities()] == ["a"]


# ---------------------------------------------------------------- labels


def crowd(rng: np.random.Generator, items: int = 400) -> tuple[Labels, np.ndarray]:
    """Five good people, ten who guess nine times of ten, two who always say 0; each judges a third of the items."""
    truth = rng.integers(4, size=items)
    found = []
    for person, accuracy in enumerate([0.85] * 5 + [0.1] * 10 + [0.0] * 2):
        for item in np.flatnonzero(rng.random(items) < 1 / 3):
            right = rng.random() < accuracy
            guess = rng.integers(4) if accuracy else 0
            found.append((item, person, truth[item] if right else guess))
    item, person, label = np.array(found).T
    return Labels(item, person, label, items, 17, 4), truth


def test_dawid_skene_beats_the_majority_by_ten_points() -> None:
    """T6.3, with the objective never falling."""
    gains = []
    for seed in range(5):
        labels, truth = crowd(np.random.default_rng(seed))
        fit = fit_labels(labels)
        assert (np.diff(fit.objective) > -1e-9).all()
        gains.append(np.mean(fit.truth == truth) - np.mean(majority_belief(labels).argmax(1) == truth))
        weights = fit.weights
        assert weights[:5].min() > 0.6
        assert weights[15:].max() < 0.15
    assert np.mean(gains) >= 0.10


def test_dawid_skene_goes_on_from_an_earlier_fit() -> None:
    labels, _ = crowd(np.random.default_rng(0))
    fit = fit_labels(labels)
    again = fit_labels(labels, start=fit)
    assert len(again.objective) < 5
    assert again.belief_IK == pytest.approx(fit.belief_IK, abs=5e-3)


def test_labels_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match=r"label_E has 1 numbers; expected 1, each in 0\.\.1"):
        Labels(np.array([0]), np.array([0]), np.array([2]), 1, 1, 2)


def read_crowd(folder: Path, name: str) -> tuple[Labels, np.ndarray, np.ndarray]:
    """Labels, the numbers of the items whose truth is known, and that truth."""
    with (folder / f"{name}_answers.csv").open(encoding="utf-8") as file:
        rows = [(row["question"], row["worker"], row["answer"]) for row in csv.DictReader(file)]
    with (folder / f"{name}_truth.csv").open(encoding="utf-8") as file:
        truth = {row["question"]: row["truth"] for row in csv.DictReader(file)}
    items, people, classes = ({value: n for n, value in enumerate(sorted(set(c)))} for c in zip(*rows, strict=True))
    item, person, label = (
        np.array([numbers[row[at]] for row in rows]) for at, numbers in enumerate((items, people, classes))
    )
    labels = Labels(item, person, label, len(items), len(people), len(classes))
    known = [question for question in truth if question in items]
    return labels, np.array([items[q] for q in known]), np.array([classes[truth[q]] for q in known])


@pytest.mark.data
@pytest.mark.parametrize(("name", "gain"), [("dog", 0.02), ("face", 0.005), ("product", 0.035)])
def test_real_crowds_with_known_truth(shared: Path, name: str, gain: float) -> None:
    """Accuracy above the majority's by at least what was measured, and the objective never falls."""
    labels, items, truth = read_crowd(shared / "data" / "crowd-labels", name)
    fit = fit_labels(labels)
    assert np.mean(fit.truth[items] == truth) - np.mean(majority_belief(labels).argmax(1)[items] == truth) >= gain
    assert (np.diff(fit.objective) > -1e-6).all()


@pytest.mark.data
def test_another_library_finds_the_same_truth(shared: Path) -> None:
    """crowd-kit's Dawid-Skene, which has no prior on the confusions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        from crowdkit.aggregation import DawidSkene

        labels, _, _ = read_crowd(shared / "data" / "crowd-labels", "dog")
        frame = pd.DataFrame({"task": labels.item_E, "worker": labels.person_E, "label": labels.label_E})
        theirs = DawidSkene(30).fit_predict(frame).reindex(range(labels.items)).to_numpy()
    assert np.mean(theirs == fit_labels(labels).truth) > 0.99
