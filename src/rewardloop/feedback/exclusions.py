"""Whose judgments count, and how much: exclusions that can be taken back, quarantine, and a cap on any one account.

Nothing is deleted: a judgment of an excluded person weighs 0 until the exclusion is lifted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from rewardloop.feedback.monitoring import GoldRecord, decide_sequentially
from rewardloop.feedback.reliability import Reliability
from rewardloop.feedback.rulings import Ruling
from rewardloop.types import Feedback

CAP = 0.05  # share of a batch's weight that one account may have
QUARANTINE_JUDGMENTS = 10  # judgments of a newcomer that wait until somebody is known to read
USELESS = 0.25  # a weight that is surely below it is not worth asking for


def propose_exclusion(
    annotator: str, gold: Sequence[bool], reliability: Reliability | None, time_s: float
) -> Ruling | None:
    """The exclusion that the rules call for, or None. `gold`: right or wrong on gold items, in order."""
    record = GoldRecord(right=sum(gold), wrong=len(gold) - sum(gold))
    if record.failed:
        reason = f"{record.right} of {record.answers} gold items right; P(accuracy > 0.7) is {record.chance_good:.1%}"
        return Ruling(annotator, "exclude", reason, "gold", time_s)
    if decide_sequentially(gold) == "guessing":
        reason = f"{record.right} of {record.answers} gold items right, as one who guesses"
        return Ruling(annotator, "exclude", reason, "sequential test", time_s)
    if reliability is not None and reliability.interval[1] < USELESS:
        against = "says the opposite of the others" if reliability.discrimination < 0 else "agrees by chance alone"
        reason = f"after {reliability.judgments} judgments {against}: weight at most {reliability.interval[1]:.2f}"
        return Ruling(annotator, "exclude", reason, "reliability", time_s)
    return None


def is_quarantined(judgments: int, gold: Sequence[bool]) -> bool:
    """A newcomer's judgments wait until there are ten of them, or gold items have shown that they read."""
    return judgments < QUARANTINE_JUDGMENTS and decide_sequentially(gold) != "good"


def weigh_judgments(
    feedback: Sequence[Feedback],
    weights: Mapping[str, float],
    *,
    excluded: Collection[str] = (),
    quarantined: Collection[str] = (),
    cap: float = CAP,
) -> np.ndarray:
    """How much each judgment counts, weights_E in [0, 1]: reliability, 0 for the excluded and quarantined, capped.

    Who is not in `weights` counts 1. Judgments without a name count together as one account.
    """
    silent = {*excluded, *quarantined}
    names = [judgment.annotator or "" for judgment in feedback]
    weights_E = np.array([0.0 if name in silent else weights.get(name, 1.0) for name in names])
    return cap_accounts(weights_E, names, cap)


def cap_accounts(weights_E: np.ndarray, names: Sequence[str], cap: float = CAP) -> np.ndarray:
    """Scale down every account that has more than a share `cap` of the whole weight, to exactly that share.

    Among n accounts the share is at least 2/n: a handful of people cannot each have less than a twentieth, and twice
    an equal share is no flood. So one or two people are never capped.
    """
    if not len(weights_E):
        return weights_E
    accounts, account_E = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    totals_A = np.bincount(account_E, weights_E, len(accounts))
    share = max(cap, 2 / max(int((totals_A > 0).sum()), 1))
    most = _level(totals_A, share)
    scale_A = np.minimum(1.0, most / np.maximum(totals_A, 1e-300))
    return np.asarray(weights_E * scale_A[account_E])


def _level(totals_A: np.ndarray, share: float) -> float:
    """The largest total that is allowed: x with x = share * sum(min(totals_A, x)), or infinity."""
    falling = np.sort(totals_A)[::-1]
    for capped in range(len(falling)):
        if capped * share >= 1:
            break
        level = share * falling[capped:].sum() / (1 - capped * share)
        if falling[capped] <= level:
            return float(level) if capped else np.inf
    return np.inf
