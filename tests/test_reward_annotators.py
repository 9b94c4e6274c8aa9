"""People fitted with the reward: against planted truths, densities, finite differences, and counts by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from crowds import Person
from rewardloop.feedback.evidence import gather_evidence
from rewardloop.loop.people import MIXED
from rewardloop.loop.rewards import LearnedReward
from rewardloop.models.language_model import load_language_model
from rewardloop.reward import fitting
from rewardloop.reward.annotators import (
    Crowd,
    compute_loss,
    fit_annotators,
    gather_crowd,
    start_free,
    turn_around,
)
from rewardloop.reward.features import FeatureExtractor
from rewardloop.reward.fitting import fit_head
from rewardloop.reward.likelihood import Annotators, build_channel, event_nll, start_channel
from rewardloop.reward.model import RewardModel
from rewardloop.sandbox.annotators import SimulatedAnnotator
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.dialogues import DEFECTS, answer, held_out_questions, training_questions
from rewardloop.sandbox.judges import GoldReward
from rewardloop.sandbox.world import build_world
from rewardloop.types import (
    THUMB,
    Comment,
    Completion,
    Edit,
    Feedback,
    Preference,
    Ranking,
    Rating,
    Rollout,
    Span,
)
from test_reward_fitting import Known, mixed

TEXTS = 400


def crowd_of(feedback: Sequence[Feedback]) -> Crowd:
    crowd = gather_crowd(feedback, gather_evidence(feedback))
    assert crowd is not None
    return crowd


def ask(known: Known, people: Sequence[Person], each: int, seed: int, sharpness: float = 3.0) -> list[Feedback]:
    """`each` choices of every person between texts of known quality, in no order."""
    rng = np.random.default_rng(seed)
    truth = sharpness * known.quality([str(i) for i in range(TEXTS)])
    feedback: list[Feedback] = []
    for person in people:
        for _ in range(each):
            i, j = rng.choice(TEXTS, 2, replace=False)
            feedback.append(replace(person.choose(rng, truth, int(i), int(j)), prompt=f"p{min(i, j)}"))
    return [feedback[i] for i in rng.permutation(len(feedback))]


def turned(choice: Feedback) -> Preference:
    """The choice the other way round."""
    assert isinstance(choice, Preference)
    return replace(choice, choice="second" if choice.choice == "first" else "first")


def find(known: Known, feedback: Sequence[Feedback], sharpness: float = 3.0) -> tuple[Crowd, Annotators]:
    """The people, given true rewards up to their unit."""
    crowd = crowd_of(feedback)
    texts = [text for _, text in crowd.evidence.texts]
    scores_1N = torch.from_numpy(0.5 * sharpness * known.quality(texts)[None])
    ones_1E = torch.ones(1, crowd.evidence.events, dtype=torch.float64)
    return crowd, fit_annotators(scores_1N, ones_1E, crowd, start_channel(crowd.evidence))


def rank_correlation(model: RewardModel, known: Known) -> float:
    fresh = [str(i) for i in range(4000, 4500)]
    return float(stats.spearmanr(model.score(fresh, fresh), known.quality(fresh))[0])


# ---------------------------------------------------------------- who is left as they are


@pytest.mark.parametrize("name", [None, "Ann"])
def test_one_person_and_people_without_names_are_fitted_as_ordinary(name: str | None) -> None:
    known = Known()
    feedback = [replace(judgment, annotator=name) for judgment in mixed(known, np.random.default_rng(0), 60)]
    feedback += [*feedback[:9], feedback[0]]  # repeats are no crowd
    found, alike = fit_head(feedback, known, seed=1), fit_head(feedback, known, seed=1, alike=True)
    assert found.version == alike.version
    assert found.length_slope == alike.length_slope
    assert found.annotators == {}


def test_a_crowd_is_fitted_to_the_same_bits_and_alike_knows_nobody() -> None:
    known = Known()
    feedback = ask(known, [Person("a"), Person("b"), Person("c", kappa=-1)], 15, seed=0)
    one, two = fit_head(feedback, known, seed=1), fit_head(feedback, known, seed=1)
    assert one.version == two.version
    assert one.annotators == two.annotators
    alike = fit_head(feedback, known, seed=1, alike=True)
    assert alike.version != one.version
    assert alike.annotators == {}


# ---------------------------------------------------------------- the posterior


def test_the_loss_is_likelihood_times_the_named_densities() -> None:
    feedback: list[Feedback] = [
        Preference(prompt="p", first="1", second="2", choice="first", annotator="Ann"),
        Rating(prompt="p", completion="1", value=4, annotator="Ben"),
    ]
    crowd = crowd_of(feedback)
    start_C = start_channel(crowd.evidence)
    scores_1N, ones_1E = torch.tensor([[0.3, -0.8]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)

    def parts(kappa: float, lapse: float, side: float, severity: float) -> tuple[float, float]:
        """The loss, and -log of likelihood times priors from scipy, where Ben is so and Ann is ordinary."""
        free = start_free(crowd, start_C)
        at = 1 + len(start_C)
        free[at + 1], free[at + 3] = kappa, np.log(lapse / (1 - lapse))
        free[at + 5], free[at + 7] = side, severity
        people = Annotators(*(torch.tensor([0.0, 0.0, x], dtype=torch.float64) for x in (severity, kappa, lapse, side)))
        people.discrimination_A[1], people.lapse_A[1] = 1.0, 0.1
        nll = event_nll(scores_1N, crowd.evidence, build_channel(start_C, crowd.evidence, people)).sum()
        humps = 0.95 * stats.norm.pdf(kappa, 1, 0.5) + 0.05 * stats.norm.pdf(kappa, -1, 0.5)
        prior = np.log(humps) + stats.beta.logpdf(lapse, 1, 9) + np.log(lapse * (1 - lapse))  # density of the logit
        prior += stats.norm.logpdf(side, 0, 0.5) + stats.norm.logpdf(severity, 0, 1)
        return float(compute_loss(free, scores_1N, ones_1E, crowd, start_C)), float(nll - prior)

    here = parts(1.0, 0.1, 0.0, 0.0)
    for traits in ((-0.7, 0.2, 0.4, 1.1), (0.1, 0.6, -1.0, -0.3), (2.0, 0.02, 0.0, 2.0)):
        there = parts(*traits)
        assert there[0] - here[0] == pytest.approx(there[1] - here[1], abs=1e-9)


def test_gradients_of_the_loss_agree_with_finite_differences() -> None:
    feedback: list[Feedback] = [
        Preference(prompt="p", first="a", second="b", choice="first", annotator="Ann"),
        Preference(prompt="p", first="a", second="c", choice="tie"),
        Preference(prompt="p", first="c", second="b", choice="both_bad", annotator="Ben"),
        Ranking(prompt="p", completions=("a", "b", "c"), ranks=(1, 3, 1), annotator="Ann"),
        Rating(prompt="p", completion="b", value=1, annotator="Ann"),
        Rating(prompt="p", completion="c", value=5, annotator="Ben"),
        Edit(prompt="p", completion="a", corrected="b", annotator="Ben"),
    ]
    crowd = crowd_of(feedback)
    start_C = start_channel(crowd.evidence)
    generator = torch.Generator().manual_seed(0)
    scores_HN = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    weights_HE = torch.rand(2, len(feedback), generator=generator, dtype=torch.float64)
    free = start_free(crowd, start_C)
    free = (free + 0.3 * torch.randn(free.shape, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda free: compute_loss(free, scores_HN, weights_HE, crowd, start_C), (free,), eps=1e-6, atol=1e-6
    )


# ---------------------------------------------------------------- recovery of planted people


def test_planted_people_come_back_from_two_hundred_choices_each() -> None:
    """True rewards in half their unit. Gaps of 8 logits tell lapses from a lack of discrimination."""
    people = [Person(f"ok{i}", lapse=0.05) for i in range(5)]
    people += [Person("adversary", kappa=-1, lapse=0.05), Person("lazy", lapse=0.4), Person("sleepy", lapse=0.2)]
    people += [Person("leaning", side=1.0, lapse=0.05), Person("guessing", kappa=0.0)]
    errors = []
    for seed in range(4):
        known = Known(seed)
        feedback = ask(known, people, 200, seed, sharpness=6.0)
        crowd, found = find(known, feedback, sharpness=6.0)
        traits = crowd.describe(found)
        assert traits["adversary"].discrimination < -0.5
        assert abs(traits["guessing"].discrimination) < 0.2
        assert all(traits[f"ok{i}"].discrimination > 0.5 for i in range(5))
        assert [name for name, one in traits.items() if one.weight < 0.3] == ["adversary", "guessing"]
        assert {one.judgments for one in traits.values()} == {200}
        for person in people:
            if person.kappa:
                errors.append(abs(traits[person.name].lapse - person.lapse))
    assert max(errors) < 0.1


def test_a_side_that_sways_comes_back_where_texts_are_close() -> None:
    """T6.6, texts that differ by a logit or two: within .25 of .8, drawn to 0 by its prior."""
    known = Known(0)
    people = [Person(f"ok{i}") for i in range(5)] + [Person("leaning", side=0.8)]
    found = [find(known, ask(known, people, 300, seed, sharpness=1.5), 1.5) for seed in range(4)]
    sides = [crowd.describe(annotators)["leaning"].side_bias for crowd, annotators in found]
    assert np.mean(sides) == pytest.approx(0.8, abs=0.25)


def test_severities_come_back_and_have_mean_0_and_the_middle_kappa_is_1() -> None:
    known, rng = Known(0), np.random.default_rng(0)
    severity = np.array([-1.2, -0.6, 0.0, 0.6, 1.2])
    feedback: list[Feedback] = []
    for i in rng.integers(0, TEXTS, 300):
        person = int(rng.integers(5))
        felt = 3 * known.quality([str(i)])[0] - severity[person] + rng.logistic()
        stars = 1 + int(np.searchsorted([-3, -1, 1, 3], felt))
        feedback.append(Rating(prompt=f"p{i}", completion=str(i), value=stars, annotator=f"a{person}"))
    crowd, found = find(known, feedback)
    traits = crowd.describe(found)
    back = [traits[f"a{person}"].severity for person in range(5)]
    assert np.mean(back) == pytest.approx(0, abs=1e-9)
    assert np.corrcoef(back, severity)[0, 1] > 0.9
    assert np.median([one.discrimination for one in traits.values()]) == pytest.approx(1)


def test_few_judgments_leave_a_person_near_the_prior() -> None:
    known = Known(0)
    people = [Person(f"ok{i}") for i in range(5)]
    feedback = ask(known, people, 60, seed=0) + ask(known, [Person("new", kappa=-1)], 2, seed=1)
    crowd, found = find(known, feedback)
    new = crowd.describe(found)["new"]
    assert new.judgments == 2
    assert new.discrimination > 0.4
    assert new.lapse == pytest.approx(0.1, abs=0.06)
    many = ask(known, people, 60, seed=0) + ask(known, [Person("new", kappa=-1)], 30, seed=1)
    crowd, found = find(known, many)
    assert crowd.describe(found)["new"].discrimination < -0.3


def test_nobody_in_particular_stays_ordinary_and_is_what_others_are_compared_with() -> None:
    known = Known(0)
    nameless = [replace(judgment, annotator=None) for judgment in ask(known, [Person("x", lapse=0.3)], 200, seed=0)]
    crowd, found = find(known, nameless + ask(known, [Person("opposed", kappa=-1)], 60, seed=1))
    assert list(crowd.describe(found)) == ["opposed"]
    assert crowd.describe(found)["opposed"].discrimination < -0.4
    at = crowd.evidence.annotators.index("")
    numbers = (found.severity_A, found.discrimination_A, found.lapse_A, found.side_bias_A)
    assert [float(values[at]) for values in numbers] == [0, 1, 0, 0]


def test_six_choices_are_enough_to_see_that_they_say_the_opposite() -> None:
    """The other hump of the prior is better by 1.8 nats here; from an ordinary person on, a search does not find it."""
    known = Known(0)
    people = [*(Person(f"ok{i}") for i in range(5)), Person("adversary", kappa=-1)]
    crowd, found = find(known, ask(known, people, 6, seed=0))
    assert crowd.describe(found)["adversary"].discrimination < -0.5


def test_people_are_compared_with_rewards_that_were_learned_without_what_they_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One choice the other way round: the rewards that foretell it stay as they were, but for the channel's part."""
    known = Known(0)
    feedback = ask(known, [Person("a"), Person("b"), Person("c")], 20, seed=0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def listening(scores_HN: torch.Tensor, weights_HE: torch.Tensor, *given: Any) -> Annotators:
        seen.append((scores_HN, weights_HE))
        return fit_annotators(scores_HN, weights_HE, *given)

    monkeypatch.setattr(fitting, "fit_annotators", listening)
    said: list[torch.Tensor] = []
    for judgments in (feedback, [turned(feedback[0]), *feedback[1:]]):
        seen.clear()
        fit_head(judgments, known, prior=1.0, heads=0)
        said.append(seen[0][0])
    foretells_H = seen[0][1][:, 0] > 0
    moved_H = (said[1] - said[0]).abs().amax(1)
    assert moved_H[foretells_H].max() < 0.02 * moved_H[~foretells_H].min()


def test_people_and_reward_together_find_the_adversary_and_order_texts_better() -> None:
    """T6.4: Spearman's correlation with the quality of fresh texts; with 3 bad of 10, 30 choices each."""
    people = [Person(f"ok{i}") for i in range(7)]
    people += [Person("guessing", kappa=0), Person("adversary", kappa=-1), Person("opposed", kappa=-1.2)]
    together, alike, clean = [], [], []
    for seed in range(3):
        known = Known(seed)
        feedback = ask(known, people, 30, seed)
        model = fit_head(feedback, known, seed=seed, heads=0)
        traits = model.annotators
        assert (
            list(traits)[:2] in (["adversary", "opposed"], ["opposed", "adversary"]) or traits["guessing"].weight < 0.1
        )
        assert max(traits[name].discrimination for name in ("adversary", "opposed")) < -0.3
        assert min(traits[f"ok{i}"].weight for i in range(7)) > 0.4
        honest = [judgment for judgment in feedback if (judgment.annotator or "").startswith("ok")]
        together.append(rank_correlation(model, known))
        alike.append(rank_correlation(fit_head(feedback, known, seed=seed, heads=0, alike=True), known))
        clean.append(rank_correlation(fit_head(honest, known, seed=seed, heads=0, alike=True), known))
    assert np.mean(together) > np.mean(clean) - 0.03
    assert np.mean(alike) < np.mean(together) - 0.05


# ---------------------------------------------------------------- how much a judgment weighs


def test_what_weighs_nothing_teaches_no_head_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ben says the same or the opposite: without weight, it is all one."""
    known = Known(0)
    ann, ben = (ask(known, [Person(name)], 20, seed) for seed, name in enumerate(("Ann", "Ben")))
    opposed = [turned(each) for each in ben]
    monkeypatch.setattr(fitting, "fit_annotators", lambda *_: Annotators.alike(3))
    fresh = [str(i) for i in range(4000, 4100)]

    def moved(weight: float) -> np.ndarray:
        weights = {"Ann": 1.0, "Ben": weight}
        monkeypatch.setattr(Crowd, "weigh", lambda crowd, *_: np.array([weights[name] for name in crowd.names]))
        models = [fit_head([*ann, *said], known, prior=1.0, heads=2) for said in (ben, opposed)]
        one, other = (model.scorer.raw_scores(fresh, fresh) for model in models)
        return np.asarray(np.abs(one - other).max(1))

    assert moved(0.0).max() < 1e-6
    assert moved(1.0).min() > 0.1


def test_judgments_of_one_and_the_same_weigh_one_together() -> None:
    def choose(name: str | None, first: str = "a", second: str = "b", criterion: str = "overall") -> Preference:
        return Preference(prompt="p", first=first, second=second, choice="first", annotator=name, criterion=criterion)

    feedback: list[Feedback] = [
        choose("Ann"),
        choose("Ben", "b", "a"),  # the same two on other sides
        choose("Ann"),  # once more
        choose("Ann", criterion="tone"),
        choose("Ann", "a", "c"),
        Rating(prompt="p", completion="a", value=4, annotator="Ann"),
        Rating(prompt="p", completion="a", value=1, annotator="Ben"),
        Rating(prompt="p", completion="a", value=1, annotator=None),
        Rating(prompt="p", completion="a", value=1, scale=THUMB, annotator="Ben"),
        Ranking(prompt="p", completions=("a", "b", "c"), ranks=(1, 2, 3), annotator="Ann"),
        Ranking(prompt="p", completions=("c", "b", "a"), ranks=(3, 2, 1), annotator="Ben"),
        Comment(prompt="p", completion="a", text="hm", annotator="Ann"),
        Edit(prompt="p", completion="a", corrected="a", annotator="Ben"),  # changes nothing: no evidence
        *(Span(prompt="p", completion="b", start=i, end=i + 1, category="x", annotator="Ann") for i in range(2)),
        Span(prompt="p", completion="b", start=0, end=1, category="x", annotator="Ben"),
    ]
    crowd = crowd_of(feedback)
    third = 1 / 3
    equally = [0.25, 0.5, 0.25, 1, 1, third, third, third, 1, 0.5, 0.5, 0, 0, 0.5, 0, 0.5]
    weights_E = _uncapped(crowd, None)
    assert weights_E == pytest.approx(equally)
    # Ben, who says the opposite half of the time, has the smaller part of what both judged, and all of his own
    ben = crowd.evidence.annotators.index("Ben")
    lapse_A = torch.zeros(3, dtype=torch.float64).index_fill(0, torch.tensor([ben]), 0.5)
    people = replace(Annotators.alike(3), lapse_A=lapse_A)
    weights_E = _uncapped(crowd, people)
    assert weights_E[[0, 2, 9]] == pytest.approx([third, third, 2 * third])
    assert weights_E[[1, 10, 3, 8]] == pytest.approx([third, third, 1, 1])
    assert weights_E[5:8] == pytest.approx([0.4, 0.2, 0.4])


def _uncapped(crowd: Crowd, annotators: Annotators | None) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rewardloop.reward.annotators.cap_accounts", lambda weights_E, names: weights_E)
        return crowd.weigh(annotators)


def _flooded(honest: int, each: int, flood: int) -> list[Feedback]:
    known = Known(0)
    feedback = ask(known, [Person(f"ok{i}") for i in range(honest)], each, seed=0)
    return feedback + ask(known, [Person("flood", kappa=-1)], flood, seed=1)


@pytest.mark.parametrize(("honest", "share"), [(4, 2 / 5), (19, 2 / 20), (44, 0.05)])
def test_no_account_has_more_than_its_cap(honest: int, share: float) -> None:
    """Twice an equal share, 5 % from 40 people on; whoever is below it counts whole."""
    feedback = _flooded(honest, 6, 2000)
    weights_E = crowd_of(feedback).weigh()
    flooding_E = np.array([judgment.annotator == "flood" for judgment in feedback])
    assert weights_E[flooding_E].sum() / weights_E.sum() == pytest.approx(share)
    assert weights_E[~flooding_E].max() == 1


def test_a_flood_of_the_opposite_does_not_turn_the_reward_around() -> None:
    """One account gives two thirds of all choices, and says the opposite."""
    feedback, known = _flooded(10, 20, 400), Known(0)
    model = fit_head(feedback, known, heads=0)
    assert rank_correlation(model, known) > 0.6
    assert rank_correlation(fit_head(feedback, known, heads=0, alike=True), known) < 0
    assert next(iter(model.annotators)) == "flood"
    assert model.annotators["flood"].discrimination < 0


# ---------------------------------------------------------------- the majority says what is good


def test_more_than_half_of_the_weight_is_never_read_as_the_opposite() -> None:
    feedback: list[Feedback] = [
        Rating(prompt="p", completion=str(i), value=1 + i % 5, annotator=name)
        for name, count in (("Ann", 3), ("Ben", 3), ("Eve", 4))
        for i in range(count)
    ]
    crowd = crowd_of(feedback)
    signs = {"": 1.0, "Ann": -0.8, "Ben": -1.2, "Eve": 0.9}
    kappas = torch.tensor([signs[name] for name in crowd.evidence.annotators], dtype=torch.float64)
    people = replace(
        Annotators.alike(4), discrimination_A=kappas, severity_A=torch.tensor([0.0, 0.3, -0.7, 0.4]).double()
    )
    turned = turn_around(people, crowd, np.ones(len(feedback)))
    assert turned.discrimination_A.tolist() == [1.0, 0.8, 1.2, -0.9]
    # the same channel for rewards turned around
    scores_N = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[
        : len(crowd.evidence.texts)
    ]
    start_C = start_channel(crowd.evidence)
    before = event_nll(scores_N, crowd.evidence, build_channel(start_C, crowd.evidence, people))
    after = event_nll(-scores_N, crowd.evidence, build_channel(start_C, crowd.evidence, turned))
    assert after.tolist() == pytest.approx(before.tolist())
    # Eve has more than half of the weight: what she calls good is good
    heavy_E = np.array([9.0 if judgment.annotator == "Eve" else 1.0 for judgment in feedback])
    assert turn_around(people, crowd, heavy_E) is people


# ---------------------------------------------------------------- the town: T6.4, T6.5

WORLD = build_world(0)
BAD = ("random", "adversarial", "adversarial", "lazy", "colluding", "colluding")


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor(load_language_model(builtin_model_folder()))


def _judged(kinds: Sequence[str], count: int, seed: int) -> list[Feedback]:
    """`count` judgments of mixed kinds, everybody in turn, each of another answer."""
    rng, questions = np.random.default_rng(seed), training_questions(WORLD)
    people = [SimulatedAnnotator(WORLD, kind, name=f"{kind}-{i}", seed=seed) for i, kind in enumerate(kinds)]
    feedback: list[Feedback] = []
    for turn, kind in enumerate(rng.choice(list(MIXED), size=count, p=list(MIXED.values()))):
        question, person = questions[int(rng.integers(len(questions)))], people[turn % len(people)]
        first, second = (answer(WORLD, question, rng, dict.fromkeys(DEFECTS, 0.35)).text for _ in range(2))
        if kind == "preference" and first != second:
            feedback.append(person.prefer(question.prompt, first, second))
        else:
            give = {"rating": person.rate, "thumb": person.thumb}.get(str(kind), person.edit)
            feedback.append(give(question.prompt, first))
    return feedback


def _fresh(count: int) -> tuple[list[object], list[str]]:
    rng, questions = np.random.default_rng(99), held_out_questions(WORLD)
    asked = [questions[int(i)] for i in rng.integers(len(questions), size=count)]
    return [q.prompt for q in asked], [answer(WORLD, q, rng, dict.fromkeys(DEFECTS, 0.35)).text for q in asked]


def test_a_town_with_bad_people_in_it_teaches_nearly_as_well(extractor: FeatureExtractor) -> None:
    """T6.4, T6.5: 300 judgments by 20 people, 6 of them bad, against 20 careful ones; correlation with gold."""
    prompts, texts = _fresh(400)
    gold = GoldReward(WORLD).score(prompts, texts)  # type: ignore[arg-type]

    def correlation(feedback: Sequence[Feedback], seed: int, *, alike: bool = False) -> float:
        model = fit_head(feedback, extractor, seed=seed, heads=0, alike=alike)
        if not alike and any((judgment.annotator or "").startswith("adv") for judgment in feedback):
            found.append(model)
        return float(stats.spearmanr(model.score(prompts, texts), gold)[0])  # type: ignore[arg-type]

    found: list[RewardModel] = []
    clean, honest, known, alike = [], [], [], []
    for seed in range(3):
        good = _judged(["careful"] * 20, 300, seed)
        bad = _judged(["careful"] * 14 + list(BAD), 300, seed)
        clean.append(correlation(good, seed, alike=True))
        honest.append(correlation(good, seed))
        known.append(correlation(bad, seed))
        alike.append(correlation(bad, seed, alike=True))
    assert np.mean(honest) > np.mean(clean) - 0.02
    assert np.mean(known) > np.mean(clean) - 0.03
    assert np.mean(alike) < np.mean(known) - 0.05
    for model in found:
        weights = {name: traits.weight for name, traits in model.annotators.items()}
        assert max(weight for name, weight in weights.items() if name.startswith(("adv", "coll"))) < 0.2
        assert np.mean([weight for name, weight in weights.items() if name.startswith("careful")]) > 0.8


# ---------------------------------------------------------------- the reward of a run


def test_a_generation_keeps_what_was_found_about_people(extractor: FeatureExtractor) -> None:
    prompts, texts = _fresh(40)
    nothing = np.zeros(1, dtype=np.float32)
    pool = Rollout(
        tuple(
            Completion(
                prompt=prompt,  # type: ignore[arg-type]
                prompt_ids=(0,),
                token_ids=(0,),
                logprobs_T=nothing,
                weight_versions_T=nothing.astype(np.int32),
                text=text,
                finish_reason="stop",
            )
            for prompt, text in zip(prompts, texts, strict=True)
        ),
        tuple(range(40)),
    )
    rewards = LearnedReward(extractor, seed=0)
    assert rewards.annotators == {}
    feedback = _judged(["careful", "careful", "adversarial"], 60, seed=0)
    feedback += [replace(judgment, annotator="蜜-3") for judgment in _judged(["careful"], 10, seed=1)]
    rewards.refit(feedback, pool)
    weights = {name: traits.weight for name, traits in rewards.annotators.items()}
    assert set(weights) == {"careful-0", "careful-1", "adversarial-2", "蜜-3"}
    assert min(weights, key=weights.__getitem__) == "adversarial-2"
    assert rewards.metrics["people/worst_weight"] == weights["adversarial-2"]
    assert rewards.metrics["people/weight_mean"] == pytest.approx(np.mean(list(weights.values())))

    stored = rewards.tensors()
    again = LearnedReward(extractor, seed=0)
    again.restore(stored, len(feedback))
    assert again.annotators == rewards.annotators
    assert list(again.annotators) == list(rewards.annotators)
    assert again.source is not None
    assert rewards.source is not None
    assert again.source.version == rewards.source.version
    restored = again.tensors()
    assert restored.keys() == stored.keys()
    assert all(torch.equal(restored[name], stored[name]) for name in stored)

    rewards.refit([judgment for judgment in feedback if judgment.annotator == "careful-0"], pool)
    assert rewards.annotators == {}
    assert not any(name.startswith("people") for name in (*rewards.metrics, *rewards.tensors()))
