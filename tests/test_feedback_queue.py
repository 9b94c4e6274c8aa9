"""What to ask whom: expected information by enumeration, shares, leases, and how many questions it saves (T6.7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm

from crowds import Person, ask
from rewardloop.errors import ConfigError
from rewardloop.feedback.information import (
    Reader,
    choose_questions,
    compute_information,
    inform_pairs,
    value_reader,
)
from rewardloop.feedback.queue import Item, Lease, QueueSettings, QueueState, close, grant, plan_next
from rewardloop.feedback.reliability import measure_people

# ---------------------------------------------------------------- information


def information_by_integration(mean: float, variance: float, reader: Reader) -> float:
    def entropy(p: float) -> float:
        return float(-p * np.log(p) - (1 - p) * np.log(1 - p))

    total = 0.0
    for side in (reader.side_bias, -reader.side_bias):

        def chance(gap: float, side: float = side) -> float:
            return float((1 - reader.lapse) * expit(reader.discrimination * gap + side) + reader.lapse / 2)

        def expect(f, side: float = side) -> float:  # type: ignore[no-untyped-def]
            spread = np.sqrt(variance)
            return float(quad(lambda x: f(mean + spread * x) * norm.pdf(x), -9, 9)[0])

        total += entropy(expect(chance)) - expect(lambda gap: entropy(chance(gap)))
    return total / 2


@pytest.mark.parametrize("reader", [Reader(), Reader(2.0, 0.0, 0.0), Reader(-1.0, 0.3, 0.8)])
def test_information_by_integration(reader: Reader) -> None:
    mean, variance = np.array([0.0, 1.0, -2.0]), np.array([2.0, 0.5, 4.0])
    expected = [information_by_integration(m, v, reader) for m, v in zip(mean, variance, strict=True)]
    assert compute_information(mean, variance, reader) == pytest.approx(expected, abs=5e-4)


def test_nothing_is_learned_from_guesses_and_from_what_is_known() -> None:
    wide, none = np.array([4.0]), np.array([0.0])
    assert compute_information(none, wide, Reader(0.0)) == pytest.approx(0, abs=1e-12)
    assert compute_information(none, none, Reader()) == pytest.approx(0, abs=1e-12)
    assert compute_information(none, wide, Reader(lapse=0.5)) < compute_information(none, wide, Reader(lapse=0.0))


def test_a_batch_does_not_ask_the_same_twice() -> None:
    """Texts 0 and 1 are one text almost: after (0, 2) the pair (1, 2) is nearly known, and (3, 4) comes first."""
    covariance = np.eye(5)
    covariance[0, 1] = covariance[1, 0] = 0.99
    covariance *= 2
    covariance[3, 3] = covariance[4, 4] = 1.8
    pairs = np.array([[0, 2], [1, 2], [3, 4]])
    chosen = choose_questions(np.zeros(5), covariance, pairs, 3, Reader())
    assert chosen == [0, 2, 1]


def test_texts_nobody_has_judged_teach_most() -> None:
    rng = np.random.default_rng(0)
    fit = measure_people(ask(rng, rng.normal(size=5), [Person("a"), Person("b")], 60))
    known, new = ("p", "0"), ("p", "new")
    nats = inform_pairs(fit, [(known, ("p", "1")), (known, new), (new, ("q", "new"))], Reader.of(fit, "a"))
    assert nats[0] < nats[1] < nats[2]
    assert Reader.of(fit, "somebody new") == Reader()


def test_information_of_pairs_uses_their_covariance() -> None:
    rng = np.random.default_rng(0)
    fit = measure_people(ask(rng, rng.normal(size=5), [Person("a"), Person("b")], 60))
    covariance = fit.covariance([0, 3])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    direct = compute_information(np.array([fit.rewards_N[0] - fit.rewards_N[3]]), np.array([variance]), Reader())
    assert inform_pairs(fit, [(fit.texts[0], fit.texts[3])], Reader()) == pytest.approx(direct, abs=1e-12)


def test_whom_to_ask() -> None:
    assert value_reader(Reader(2.0, 0.5), cost=4.0) == pytest.approx(2.0**2 * 0.5**2 / 4)


def learned(how: str, seed: int) -> dict[int, float]:
    """Accuracy on new pairs after so many questions: rewards linear in 8 features, 300 pairs to ask about."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(60, 8)) * np.exp(0.7 * rng.normal(size=(60, 1)))
    truth, new = rng.normal(size=8), rng.normal(size=(2000, 8))
    pairs = np.array([rng.choice(60, 2, replace=False) for _ in range(300)])
    gaps = features[pairs[:, 0]] - features[pairs[:, 1]]
    mean, covariance, asked, answers, accuracy = np.zeros(8), np.eye(8), list[int](), list[bool](), {}
    for count in range(1, 61):
        left = np.setdiff1d(np.arange(300), asked)
        if how == "random" or (how == "informative" and rng.random() < 0.2):
            chosen = int(rng.choice(left))
        elif how == "informative":
            texts = features @ mean, features @ covariance @ features.T
            chosen = int(left[choose_questions(*texts, pairs[left], 1, Reader(lapse=0.0))[0]])
        else:
            chosen = int(left[np.argmin(np.abs(gaps[left] @ mean))])
        asked.append(chosen)
        answers.append(bool(rng.random() < expit(gaps[chosen] @ truth)))
        mean, covariance = laplace(gaps[asked], np.array(answers, dtype=float))
        accuracy[count] = float(np.mean((new @ mean > 0) == (new @ truth > 0)))
    return accuracy


def laplace(gaps: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression with a N(0, 1) prior by Newton's steps, and its Gaussian posterior."""
    mean = np.zeros(gaps.shape[1])
    for _ in range(10):
        p = expit(gaps @ mean)
        curvature = gaps.T @ (gaps * (p * (1 - p))[:, None]) + np.eye(len(mean))
        mean = mean - np.linalg.solve(curvature, gaps.T @ (p - answers) + mean)
    return mean, np.linalg.inv(curvature)


def test_forty_informative_questions_do_what_sixty_random_ones_do() -> None:
    """T6.7, a fifth of them still at random; asking what is closest to 1/2 does no better than chance."""
    curves = {how: [learned(how, seed) for seed in range(8)] for how in ("random", "informative", "closest")}

    def mean(how: str, count: int) -> float:
        return float(np.mean([curve[count] for curve in curves[how]]))

    assert mean("informative", 40) >= mean("random", 60)
    assert mean("closest", 60) <= mean("random", 60) + 0.01
    assert mean("informative", 60) >= mean("closest", 60) + 0.01


# ---------------------------------------------------------------- the queue


def items(count: int, gold: int = 0) -> tuple[Item, ...]:
    plain = [Item(f"i{n}", "p", f"a{n}", f"b{n}") for n in range(count)]
    return (*plain, *(Item(f"g{n}", "p", f"c{n}", f"d{n}", gold="first") for n in range(gold)))


def work(state: QueueState, people: list[str], seed: int = 0, limit: int = 5000) -> tuple[QueueState, list[Lease]]:
    """Everybody answers in turn until nobody is asked any more."""
    done, now = [], 0.0
    for _ in range(limit):
        asked = [(name, plan_next(state, name, now, seed=seed)) for name in people]
        if not any(lease for _, lease in asked):
            return state, done
        for name, _ in asked:
            now += 1
            lease = plan_next(state, name, now, seed=seed)
            if lease is not None:
                state = close(grant(state, lease), lease)
                done.append(lease)
    raise AssertionError("the queue never ends")


def test_every_item_goes_to_as_many_people_as_asked_and_to_nobody_twice() -> None:
    state, done = work(QueueState(items(40, gold=8), settings=QueueSettings(overlap=3)), ["a", "b", "c", "d"])
    fresh = [lease for lease in done if lease.purpose in ("random", "informative")]
    assert Counter(lease.item for lease in fresh) == {f"i{n}": 3 for n in range(40)}
    assert len({(lease.item, lease.annotator) for lease in fresh}) == len(fresh)
    assert state.judged["i0"] == 3


def test_shares_of_gold_repeats_and_random_questions() -> None:
    """Among some 850 questions, within about three standard errors."""
    state, done = work(QueueState(items(700, gold=200), settings=QueueSettings(overlap=1)), ["a"])
    counts = Counter(lease.purpose for lease in done)
    assert counts["gold"] / len(done) == pytest.approx(0.1, abs=0.03)
    assert counts["repeat"] / len(done) == pytest.approx(0.075, abs=0.027)
    informed = QueueState(items(500), settings=QueueSettings(repeat_share=0, gold_share=0))
    purposes = []
    for _ in range(400):
        lease = plan_next(informed, "a", 0.0, lambda offered: np.arange(len(offered), dtype=float))
        assert lease is not None
        purposes.append(lease.purpose)
        informed = close(informed, lease)
    assert purposes.count("random") / 400 == pytest.approx(0.2, abs=0.06)
    assert state.by_key["g0"].gold == "first"


def test_repeats_are_swapped_later_and_once() -> None:
    _, done = work(QueueState(items(200), settings=QueueSettings(overlap=1, repeat_share=0.3)), ["a"])
    first: dict[str, int] = {}
    repeats = 0
    for turn, lease in enumerate(done):
        if lease.purpose == "repeat":
            repeats += 1
            assert turn - first[lease.item] > 10
            assert lease.swapped != done[first[lease.item]].swapped
        else:
            first[lease.item] = turn
    assert repeats > 30
    assert max(Counter(lease.item for lease in done).values()) == 2


def test_sides_are_drawn() -> None:
    _, done = work(QueueState(items(400), settings=QueueSettings(overlap=1, repeat_share=0)), ["a"])
    assert np.mean([lease.swapped for lease in done]) == pytest.approx(0.5, abs=0.08)


def test_a_held_question_is_given_again_and_one_that_expired_goes_to_another() -> None:
    state = QueueState(items(1), settings=QueueSettings(overlap=1, lease_s=60))
    lease = plan_next(state, "a", 100.0)
    assert lease is not None
    state = grant(grant(state, lease), lease)
    assert state.leases == (lease,)
    assert plan_next(state, "a", 159.9) == lease
    assert plan_next(state, "b", 159.9) is None
    other = plan_next(state, "b", 160.0)
    assert other is not None
    assert other.item == lease.item
    assert close(state, lease).answered[0].annotator == "a"  # late, and it counts


def test_a_skipped_item_goes_to_somebody_else() -> None:
    state = QueueState(items(1), settings=QueueSettings(overlap=1))
    lease = plan_next(state, "a", 0.0)
    assert lease is not None
    state = close(grant(state, lease), lease, skipped=True)
    assert plan_next(state, "a", 1.0) is None
    assert plan_next(state, "b", 1.0) is not None


def test_what_teaches_most_is_asked() -> None:
    state = QueueState(items(20), settings=QueueSettings(random_share=0, gold_share=0, repeat_share=0))
    lease = plan_next(state, "a", 0.0, lambda offered: np.array([item.key == "i7" for item in offered], dtype=float))
    assert lease is not None
    assert (lease.item, lease.purpose) == ("i7", "informative")


def test_of_equally_telling_items_one_is_drawn() -> None:
    state = QueueState(items(300), settings=QueueSettings(random_share=0, gold_share=0, repeat_share=0))
    weighed: list[int] = []

    def informing(offered: Sequence[Item]) -> np.ndarray:
        weighed.append(len(offered))
        return np.zeros(len(offered))

    leases = [plan_next(state, "a", 0.0, informing, seed) for seed in range(40)]
    assert len({lease.item for lease in leases if lease}) > 30
    assert set(weighed) == {32}  # of many, not all


def test_the_same_state_gives_the_same_question() -> None:
    state = QueueState(items(50, gold=5))
    assert plan_next(state, "a", 0.0, seed=3) == plan_next(state, "a", 0.0, seed=3)
    assert len({plan_next(state, "a", 0.0, seed=seed) for seed in range(20)}) > 5


@given(st.integers(1, 3), st.integers(0, 6), st.integers(1, 4), st.integers(0, 5))
def test_the_queue_always_ends_and_never_asks_too_often(overlap: int, count: int, people: int, seed: int) -> None:
    settings = QueueSettings(overlap=overlap, repeat_after=1, repeat_share=0.3)
    names = [f"{n}" for n in range(people)]
    _, done = work(QueueState(items(count, gold=2), settings=settings), names, seed)
    fresh = Counter(lease.item for lease in done if lease.purpose == "random")
    assert fresh == {f"i{n}": min(overlap, people) for n in range(count)}


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="shares"):
        QueueSettings(gold_share=0.8, repeat_share=0.3)
    with pytest.raises(ConfigError, match="overlap"):
        QueueSettings(overlap=0)


def test_texts_that_move_together_have_a_known_gap() -> None:
    """0 and 1 are both uncertain but hardly against each other; 2 and 3 are less so, and independent."""
    covariance = np.diag([4.0, 4.0, 1.0, 1.0])
    covariance[0, 1] = covariance[1, 0] = 3.9
    assert choose_questions(np.zeros(4), covariance, np.array([[0, 1], [2, 3]]), 1, Reader()) == [1]
