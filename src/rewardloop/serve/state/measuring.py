"""The measurement behind `People`: agreement, reliability, drift. Imported when it is first asked for, with scipy."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial

from rewardloop.errors import DataError
from rewardloop.feedback.agreement import measure_agreement, measure_consistency
from rewardloop.feedback.information import Reader, inform_pairs
from rewardloop.feedback.log.settled import SettledFeedback
from rewardloop.feedback.monitoring import detect_drift, find_straight_lines, surprise_points
from rewardloop.feedback.queue import Informing
from rewardloop.feedback.reliability import ChannelFit, Reliability, measure_people
from rewardloop.serve.state.people import DAY_S, DAYS, NAMELESS, Measured
from rewardloop.types import Feedback


def measure(newest: Sequence[SettledFeedback]) -> Measured:
    """What `newest` says about those who passed it."""
    feedback = [each.feedback for each in newest]
    by_kind: dict[str, Counter[str]] = defaultdict(Counter)
    daily: dict[str, list[int]] = defaultdict(lambda: [0] * DAYS)
    today = int(time.time() // DAY_S)
    for each in newest:
        by_kind[each.annotator or NAMELESS][type(each.feedback).__name__.lower()] += 1
        if 0 <= (age := today - int(each.ts // DAY_S)) < DAYS:  # below 0: the clock was set back since
            daily[each.annotator or NAMELESS][DAYS - 1 - age] += 1
    fit = _fit(feedback)
    reliability, drifting = ({}, frozenset[str]()) if fit is None else _trust(feedback, fit)
    return Measured(
        at=time.time(),
        agreement=measure_agreement(feedback),
        reliability=reliability,
        consistency={each.annotator: each for each in measure_consistency(feedback)},
        straight={line.annotator: line for line in find_straight_lines(feedback) if line.suspicious},
        drifting=drifting,
        by_kind=dict(by_kind),
        daily=dict(daily),
        informing=None if fit is None else partial(_informing, fit),
    )


def _fit(feedback: Sequence[Feedback]) -> ChannelFit | None:
    try:
        return measure_people(feedback)
    except DataError:  # the judgments say nothing about which texts are better
        return None


def _trust(feedback: Sequence[Feedback], fit: ChannelFit) -> tuple[dict[str, Reliability], frozenset[str]]:
    """Everybody's numbers, and whose have changed."""
    known = {each.annotator: each for each in fit.reliabilities()}
    drifting = {name for name in known if detect_drift(surprise_points(feedback, name, fit)).alarm is not None}
    return known, frozenset(drifting)


def _informing(fit: ChannelFit, annotator: str) -> Informing:
    """Nats of asking this person to choose."""
    reader = Reader.of(fit, annotator)
    return lambda items: inform_pairs(fit, [((i.prompt, i.first), (i.prompt, i.second)) for i in items], reader)
