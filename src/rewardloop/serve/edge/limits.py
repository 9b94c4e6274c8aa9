"""How much anybody may ask for in a time: token buckets, kept in memory."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rewardloop.serve.edge.errors import ApiError

MOST_BUCKETS: Final = 10_000  # the ones longest unused are forgotten; they would be full by then


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once, `per_minute` in the long run."""

    burst: int
    per_minute: float


LOGIN: Final = Rate(burst=5, per_minute=5)  # at most ten in any minute
JOIN: Final = Rate(burst=60, per_minute=30)  # links cannot be guessed; this only keeps the hasher free
FEEDBACK_TICKET: Final = Rate(burst=10, per_minute=30)
INFER: Final = Rate(burst=240, per_minute=1200)
FEEDBACK: Final = Rate(burst=20_000, per_minute=600_000)


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Limits:
    """One bucket for each rate and name."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[tuple[Rate, str], _Bucket] = OrderedDict()

    def take(self, rate: Rate, name: str) -> None:
        """Count one request. Raises ApiError 429 that says when the next one may come."""
        now = self._clock()
        bucket = self._buckets.pop((rate, name), None) or _Bucket(rate.burst, now)
        bucket.left = min(rate.burst, bucket.left + (now - bucket.at) * rate.per_minute / 60)
        bucket.at = now
        self._buckets[rate, name] = bucket
        while len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        if bucket.left < 1:
            wait_s = math.ceil((1 - bucket.left) * 60 / rate.per_minute)
            raise ApiError(
                429,
                f"too many requests; try again in {wait_s} s",
                code="rate_limit_exceeded",
                headers={"retry-after": str(wait_s)},
            )
        bucket.left -= 1
