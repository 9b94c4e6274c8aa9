"""Whether a version may be served: what it says to the canaries, against what the active version and the first one say.

The win rate is an e-process (evaluate.winrate): it may be looked at after every batch of answers, and lets one of a
line of versions that are no better than the active one pass in at most 5 % of all cases. What one candidate has won is
staked on the next, as long as the active version stays: several small steps add up to evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rewardloop.evaluate.convergence import KL_BUDGET
from rewardloop.evaluate.defects import is_inferior
from rewardloop.evaluate.winrate import BETS, e_process, log_wealth, win_outcomes, win_rate_interval
from rewardloop.types import Scale

PROMOTION_ALPHA: Final = 0.05
KILL_ALPHA: Final = 0.01
SHORTEST, LONGEST = 0.5, 1.75  # mean length of answers, as a share of the first version's
MOST_REPETITION: Final = 0.10  # share of repeated 3-grams beyond the first version's
HARMFUL: Final = frozenset(
    {"not_finite", "length", "repetition", "disagreement", "kl", "loses", "wrong_facts", "topic_drift", "rudeness"}
)  # reasons to go back to what is served; a version that is only not better yet is learned on from
MOST_DISAGREEMENT: Final = 3.0  # of the reward's ensemble, as a multiple of that on the first version's answers


Opinion = tuple[Scale, int]  # a rating, and the scale that it is on


@dataclass(frozen=True, eq=False)
class Look:
    """What one version said to B canary prompts, and what is thought of it."""

    judged_B: np.ndarray  # by the judge, which the policy never followed
    proxy_B: np.ndarray  # by the reward that it followed
    lengths_B: np.ndarray  # characters
    repetition_B: np.ndarray  # share of repeated 3-grams
    disagreement: float  # of the reward's ensemble, mean over the answers
    defects: Mapping[str, np.ndarray] = field(default_factory=dict)  # bool arrays of B, where the truth is known


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reasons` are names that the page puts into words; empty where the version passed."""

    passed: bool
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    wealth: tuple[float, ...]  # log, of each bet, for the next candidate


NOTHING_WON: Final = (0.0,) * len(BETS)


def judge_candidate(
    candidate: Look,
    active: Look,
    first: Look,
    *,
    kl: float,
    target_kl: float,
    wealth: Sequence[float] = NOTHING_WON,
) -> Verdict:
    """Whether `candidate` may take the place of `active`.

    All three looks are at answers to the same prompts, place by place; `first` is the untouched model's. `kl`: nats per
    sequence from it. `wealth`: what candidates before it have won against the same active version.
    """
    outcomes_B = win_outcomes(candidate.judged_B, active.judged_B)
    win_rate, low, high = win_rate_interval(outcomes_B)
    won_BL = np.array(wealth) + log_wealth(outcomes_B)
    evidence = float(np.exp(won_BL).mean(-1).max())
    metrics = {
        "gate/win_rate": win_rate,
        "gate/win_rate_low": low,
        "gate/win_rate_high": high,
        "gate/evidence": evidence,
        "gate/comparisons": float(len(outcomes_B)),
        "gate/length": _mean(candidate.lengths_B) / max(_mean(first.lengths_B), 1.0),
        "gate/repetition": _mean(candidate.repetition_B) - _mean(first.repetition_B),
        "gate/disagreement": candidate.disagreement / max(first.disagreement, 1e-9),
        "policy/kl": kl,
    }
    reasons = harms(candidate, active, first)
    if target_kl > 0 and not kl <= KL_BUDGET * target_kl:
        reasons.append("kl")
    if high < 0.5:
        reasons.append("loses")
    elif evidence < 1 / PROMOTION_ALPHA or win_rate < 0.5:
        reasons.append("not_better")
    return Verdict(not reasons, tuple(reasons), metrics, tuple(won_BL[-1].tolist()))


def harms(candidate: Look, active: Look, first: Look) -> list[str]:
    """What is wrong with `candidate`, whatever the judge says of it: the signs of a reward that is being gamed."""
    found = []
    if not all(np.isfinite(values).all() for values in (candidate.judged_B, candidate.proxy_B)):
        found.append("not_finite")
    ratio = _mean(candidate.lengths_B) / max(_mean(first.lengths_B), 1.0)
    if not SHORTEST <= ratio <= LONGEST:
        found.append("length")
    if not _mean(candidate.repetition_B) - _mean(first.repetition_B) <= MOST_REPETITION:
        found.append("repetition")
    if candidate.disagreement > MOST_DISAGREEMENT * first.disagreement > 0:
        found.append("disagreement")
    for name, present_B in candidate.defects.items():
        if is_inferior(float(present_B.mean()), float(active.defects[name].mean()), len(present_B)):
            found.append(name)
    return found


def is_worse(active: Look, before: Look) -> bool:
    """Whether the evidence says that `active` loses to the version before it, at the level of the kill switch."""
    outcomes_B = win_outcomes(before.judged_B, active.judged_B)
    return bool(e_process(outcomes_B).max() >= 1 / KILL_ALPHA)


def people_turn_away(active: Sequence[Opinion], before: Sequence[Opinion]) -> bool:
    """Whether what people say of the active version is evidence that they liked the one before better.

    Each opinion of the active version meets one of the version before on the same scale, the newest first, which were
    given under the most similar circumstances. The level is that of the kill switch, at every look together as long as
    nobody rates the version before anew: a late opinion of it changes who meets whom.
    """
    waiting: dict[Scale, list[int]] = defaultdict(list)
    for scale, value in before:
        waiting[scale].append(value)
    pairs_N2 = np.array([(waiting[scale].pop(), value) for scale, value in active if waiting[scale]], dtype=np.float64)
    if not len(pairs_N2):
        return False
    return bool(e_process(win_outcomes(pairs_N2[:, 0], pairs_N2[:, 1])).max() >= 1 / KILL_ALPHA)


def is_decided(candidate: Look, active: Look, wealth: Sequence[float] = NOTHING_WON) -> bool:
    """Whether more answers could not change much: promotion is earned, or out of reach."""
    outcomes_B = win_outcomes(candidate.judged_B, active.judged_B)
    win_rate, _, high = win_rate_interval(outcomes_B)
    evidence = float(np.exp(np.array(wealth) + log_wealth(outcomes_B)).mean(-1).max())
    return high < 0.5 or (evidence >= 1 / PROMOTION_ALPHA and win_rate >= 0.5)


def _mean(values_B: np.ndarray) -> float:
    return float(np.mean(values_B))
