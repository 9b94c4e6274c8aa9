"""When a run has learned what it can, or must not go on: the five reasons to stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rewardloop.evaluate.defects import is_inferior
from rewardloop.evaluate.over_optimization import estimate_slope, is_gamed

LOOKS: Final = 4  # measurements under one reward before a slope means anything
KL_BUDGET: Final = 2.0  # times the target of the adaptive weight
WIN_RATE_GAIN: Final = 0.02  # what one more round must still be able to bring
DISAGREEMENT: Final = 3.0  # times that of the first measurement: the reward model no longer knows what it sees
DEFECTS: Final = ("wrong_facts", "topic_drift", "rudeness")

Point = Mapping[str, float]  # one measurement, by the names of rewardloop.metrics
Reason = dict[str, str]  # "name": a sentence of words.yaml; the rest fills its gaps


def reason_to_stop(points: Sequence[Point], *, target_kl: float, answers: int) -> Reason | None:
    """Why the run should stop after the last of `points`; None to go on. `sentences.say` puts it into words.

    The first point is the reference. Slopes are taken over measurements under one and the same reward, that
    is, with equally many events of feedback: a new reward may move everything.

    Args:
        points: measurements in order; needs loop/iteration and loop/events, uses what else is there.
        target_kl: nats per sequence that the KL weight is adapted to; 0 = no budget.
        answers: held-out answers behind each share.
    """
    if len(points) < 2:
        return None
    last = points[-1]
    recent = [point for point in points[1:] if point["loop/events"] == last["loop/events"]]
    return (
        _beyond_budget(last, target_kl)
        or _worse_defect(last, points[0], answers)
        or _lost_ensemble(last, points[0])
        or _gamed(recent)
        or _converged(recent)
    )


def _beyond_budget(last: Point, target_kl: float) -> Reason | None:
    kl = last.get("policy/kl", 0.0)
    if target_kl > 0 and kl > KL_BUDGET * target_kl:
        return {"name": "stop/kl_budget", "kl": f"{kl:.1f}", "allowed": f"{KL_BUDGET * target_kl:.1f}"}
    return None


def _worse_defect(last: Point, reference: Point, answers: int) -> Reason | None:
    for name in DEFECTS:
        key = f"held_out/{name}"
        if key in last and is_inferior(last[key], reference[key], answers):
            return {"name": f"stop/{name}", "now": _percent(last[key]), "before": _percent(reference[key])}
    return None


def _lost_ensemble(last: Point, reference: Point) -> Reason | None:
    now, before = last.get("reward/disagreement", 0.0), reference.get("reward/disagreement", 0.0)
    if now > DISAGREEMENT * before > 0:
        return {"name": "stop/lost_ensemble", "now": f"{now:.2f}", "before": f"{before:.2f}"}
    return None


def _gamed(recent: Sequence[Point]) -> Reason | None:
    if len(recent) < LOOKS or any("held_out/proxy" not in point for point in recent):
        return None
    window = recent[-max(LOOKS, len(recent) // 2) :]
    if is_gamed(
        _column(window, "loop/iteration"),
        _column(window, "held_out/proxy"),
        _column(window, "held_out/reward"),
    ):
        return {"name": "stop/over_optimization"}
    return None


def _converged(recent: Sequence[Point]) -> Reason | None:
    """The upper bound of what the next measurement may gain in win rate is too small to go on."""
    if len(recent) < LOOKS:
        return None
    window = recent[-max(LOOKS, len(recent) // 2) :]
    gain = estimate_slope(range(len(window)), _column(window, "held_out/win_rate")).high
    if gain < WIN_RATE_GAIN:
        return {"name": "stop/converged", "gain": _percent(WIN_RATE_GAIN)}
    return None


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u202f%"


def _column(points: Sequence[Point], name: str) -> list[float]:
    return [point[name] for point in points]
