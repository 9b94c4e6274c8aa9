"""Whom to trust, measured: real crowds with known truth, the town's simulated people, poison, and the time it takes.

    python benchmarks/quality.py [--quick] [--json FILE]

Accuracies of labels are against the truth of ../shared/data/crowd-labels, beside the majority's and crowd-kit's
Dawid-Skene (left out with --quick). Poison is product gate 20 on 30 texts, the losses in points of pair accuracy.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from harness import Figure, parse_options, report, spread, time_call
from rewardloop.feedback.dawid_skene import Labels, fit_labels, majority_belief
from rewardloop.feedback.evidence import gather_evidence
from rewardloop.feedback.reliability import ChannelFit, fit_channel, measure_people
from rewardloop.sandbox.annotators import KINDS, SimulatedAnnotator
from rewardloop.sandbox.dialogues import DEFECTS, answer, training_questions
from rewardloop.sandbox.world import build_world
from rewardloop.types import Feedback, Preference, Rating

CROWDS = Path(__file__).resolve().parents[2] / "shared" / "data" / "crowd-labels"
FEELINGS = (-100.5, -33.5, -0.5, 0.5, 33.5, 100.5)  # edges of five classes of the emotion scores, -100 to 100
TEXTS = 30
POISON = {
    "random": (4, 2.0),
    "inverted": (4, 3.0),
    "sybil": (2, 5.0),
}  # poisoners beside 38 honest; points they may cost


def main() -> None:
    options = parse_options(__doc__)
    figures: list[Figure] = []
    if CROWDS.is_dir():
        figures += [figure for name in ("dog", "face", "product", "emotion") for figure in crowd(name, options.quick)]
        figures += feelings()
    people, notes = town(seeds=1 if options.quick else 3)
    figures += [*people, *poison(seeds=3 if options.quick else 20), *seconds()]
    report("Quality of feedback", figures, options, notes=notes)


# ---------------------------------------------------------------- labels with known truth


def crowd(name: str, quick: bool) -> Iterator[Figure]:
    rows, truth = read_crowd(name)
    if name == "emotion":
        rows = [(item, person, feeling(label)) for item, person, label in rows]
        truth = {item: feeling(label) for item, label in truth.items()}
    columns = zip(*rows, strict=True)
    items, people, classes = ({value: n for n, value in enumerate(sorted(set(column)))} for column in columns)
    codes = np.array([(items[i], people[a], classes[label]) for i, a, label in rows])
    labels = Labels(*codes.T, len(items), len(people), len(classes))
    known = [item for item in truth if item in items]
    place, right = [items[item] for item in known], np.array([classes[truth[item]] for item in known])
    found = {
        "majority": majority_belief(labels).argmax(1),
        "Dawid-Skene": fit_labels(labels).truth,
        **({} if quick else {"crowd-kit's Dawid-Skene": by_crowd_kit(labels)}),
    }
    for method, guess in found.items():
        yield spread(f"{name}: accuracy of {method}", [float(np.mean(guess[place] == right))])


def by_crowd_kit(labels: Labels) -> np.ndarray:
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    frame = pd.DataFrame({"task": labels.item_E, "worker": labels.person_E, "label": labels.label_E})
    return np.asarray(DawidSkene(100).fit_predict(frame).reindex(range(labels.items)))


def feelings() -> Iterator[Figure]:
    """The emotion scores as ratings on five steps: how well their order follows the truth's."""
    rows, truth = read_crowd("emotion")
    ratings = [Rating(prompt=i, completion=i, annotator=a, value=int(feeling(v)) + 1) for i, a, v in rows]
    fit = measure_people(ratings)
    rewards = {text: reward for (_, text), reward in zip(fit.texts, fit.rewards_N, strict=True)}
    means = {item: np.mean([r.value for r in ratings if r.completion == item]) for item in truth}
    for method, values in (("mean rating", means), ("fitted reward", rewards)):
        order = spearmanr([float(truth[item]) for item in truth], [values[item] for item in truth]).statistic
        yield spread(f"emotion: rank correlation of {method}", [float(order)])


def feeling(score: str) -> str:
    return str(int(np.searchsorted(FEELINGS, float(score))) - 1)


def read_crowd(name: str) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    with (CROWDS / f"{name}_answers.csv").open(encoding="utf-8") as file:
        rows = [(row["question"], row["worker"], row["answer"]) for row in csv.DictReader(file)]
    with (CROWDS / f"{name}_truth.csv").open(encoding="utf-8") as file:
        return rows, {row["question"]: row["truth"] for row in csv.DictReader(file)}


# ---------------------------------------------------------------- the town's people


def town(seeds: int) -> tuple[list[Figure], list[str]]:
    """Three careful people and one of every other kind; 100 choices and 40 ratings each, of the same answers."""
    fits = [measure_people(list(said_in_town(seed))) for seed in range(seeds)]
    figures = [
        spread(f"weight of the {kind}", [fit.weight_A[fit.annotators.index(kind)] for fit in fits]) for kind in KINDS
    ]
    rows = [
        f"{row.annotator:<12}{row.weight:.2f} [{row.interval[0]:.2f}, {row.interval[1]:.2f}]"
        f"{row.discrimination:>9.2f}{row.lapse:>8.2f}{row.side_bias:>+8.2f}{row.severity:>+10.2f}"
        for row in fits[0].reliabilities()
    ]
    return figures, ["            weight [95 %]        kappa   lapse    side  severity", *rows]


def said_in_town(seed: int) -> Iterator[Feedback]:
    world, rng = build_world(0), np.random.default_rng(seed)
    questions = training_questions(world)
    people = [SimulatedAnnotator(world, kind, seed=seed) for kind in KINDS]
    people += [SimulatedAnnotator(world, "careful", f"careful {n}", seed=seed) for n in (2, 3)]
    for number in range(100):
        question = questions[number * 7 % len(questions)]
        texts = [answer(world, question, rng, dict.fromkeys(DEFECTS, 0.3)).text for _ in range(2)]
        for person in people:
            first, second = texts if rng.random() < 0.5 else texts[::-1]
            yield person.prefer(question.prompt, first, second)
            if number % 5 < 2:
                yield person.rate(question.prompt, texts[0])


# ---------------------------------------------------------------- poison


def poison(seeds: int) -> Iterator[Figure]:
    for kind, (count, allowed) in POISON.items():
        losses, ranks = zip(*(poisoned(kind, count, seed) for seed in range(seeds)), strict=True)
        mean_loss = float(np.mean(losses))
        yield Figure(f"{kind}: points lost, mean", mean_loss, min(losses), max(losses), allowed, "lower")
        yield Figure(f"{kind}: AUC of poisoners, mean", float(np.mean(ranks)), min(ranks), max(ranks), 0.9)


def poisoned(kind: str, count: int, seed: int) -> tuple[float, float]:
    """Points of pair accuracy lost by the poison, and the AUC of 1 - weight for finding who gave it."""
    rng = np.random.default_rng(seed)
    truth, wrong = rng.normal(0, 1.5, TEXTS), rng.normal(0, 1.5, TEXTS)
    believed = {"random": 0 * truth, "inverted": -truth, "sybil": 4 * wrong}[kind]
    clean = choices(rng, truth, [f"honest {n}" for n in range(38)], 50)
    fit = measure_people([*clean, *choices(rng, believed, [f"poison {n}" for n in range(count)], 50)])
    honest, bad = (
        [row.weight for row in fit.reliabilities() if row.annotator.startswith(name)] for name in ("honest", "poison")
    )
    found = np.mean([(b < h) + (b == h) / 2 for h in honest for b in bad])
    return 100 * (accuracy(measure_people(clean), truth) - accuracy(fit, truth)), float(found)


def choices(rng: np.random.Generator, worth: np.ndarray, names: Sequence[str], each: int) -> list[Preference]:
    said: list[Preference] = []
    for name in names:
        for _ in range(each):
            i, j = rng.choice(len(worth), 2, replace=False)
            first = rng.random() < 1 / (1 + np.exp(worth[j] - worth[i]))
            choice = "first" if first else "second"
            said.append(Preference(prompt="p", first=str(i), second=str(j), choice=choice, annotator=name))
    return said


def accuracy(fit: ChannelFit, truth: np.ndarray) -> float:
    rewards = {text: reward for (_, text), reward in zip(fit.texts, fit.rewards_N, strict=True)}
    reward_N = np.array([rewards.get(str(n), 0.0) for n in range(len(truth))])
    i, j = np.triu_indices(len(truth), 1)
    return float(np.mean((reward_N[i] > reward_N[j]) == (truth[i] > truth[j])))


# ---------------------------------------------------------------- time


def seconds() -> Iterator[Figure]:
    """300 texts, 30 people, 3,000 choices: from nothing, and again after 20 more."""
    rng = np.random.default_rng(0)
    said = choices(rng, rng.normal(0, 1.5, 300), [f"{n}" for n in range(30)], 101)
    before, after = gather_evidence(said[:3000]), gather_evidence(said[:3020])
    fit = fit_channel(before)
    yield spread("seconds of a fit", [time_call(lambda: fit_channel(before)) for _ in range(5)], better="lower")
    again = [time_call(lambda: fit_channel(after, start=fit)) for _ in range(5)]
    yield spread("seconds of a refit after 20 more", again, target=0.5, better="lower")


if __name__ == "__main__":
    main()
