"""What Prometheus is told at /metrics. Names and units follow OpenTelemetry where it has one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Telemetry:
    """Counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "rewardloop_requests_total", "HTTP requests", ["method", "route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "rewardloop_request_seconds", "Time to the end of an answer", ["route"], buckets=_FAST, registry=registry
        )
        self.first_token_seconds = Histogram(
            "rewardloop_time_to_first_token_seconds", "From request to first token", buckets=_FAST, registry=registry
        )
        self.token_seconds = Histogram(
            "rewardloop_time_per_output_token_seconds", "Between tokens", buckets=_FAST, registry=registry
        )
        self.tokens = Counter("rewardloop_output_tokens_total", "Tokens spoken", registry=registry)
        self.streams = Gauge("rewardloop_streams", "Answers being spoken now", registry=registry)
        self.feedback = Counter("rewardloop_feedback_total", "Judgments stored", ["kind"], registry=registry)
        self.commit_seconds = Histogram(
            "rewardloop_commit_seconds", "From an event to its commit", buckets=_FAST, registry=registry
        )
        self.backlog = Gauge("rewardloop_write_backlog", "Writes that wait", registry=registry)
        self.sockets = Gauge("rewardloop_sockets", "Open pages", registry=registry)
        self.first_tokens: deque[tuple[float, float]] = deque(maxlen=5000)  # when, seconds; for the dashboard
        self.weight_version = Gauge(
            "rewardloop_weight_version", "Weights that spoke the newest token", registry=registry
        )

        self.policy_metric = Gauge(
            "rewardloop_policy_metric", "Of the newest version, as docs/metrics.md has it", ["name"], registry=registry
        )
        self.newest_version = Gauge("rewardloop_policy_newest_version", "Newest version there is", registry=registry)
        self.active_version = Gauge("rewardloop_policy_active_version", "Version that is served", registry=registry)
        self.paused = Gauge("rewardloop_learning_paused", "1 while learning rests", registry=registry)
        self.to_learn = Gauge("rewardloop_learner_backlog", "Settled judgments in no version yet", registry=registry)
        self._of_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # to look labels up is slow

    def saw_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered, `seconds` after it came."""
        key = (method, route, status)
        if (found := self._of_request.get(key)) is None:
            found = self.requests.labels(method, route, str(status)), self.request_seconds.labels(route)
            self._of_request[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def saw_first_token(self, seconds: float) -> None:
        self.first_token_seconds.observe(seconds)
        self.first_tokens.append((time.time(), seconds))

    def show_policy(
        self, metrics: Mapping[str, float | None], *, newest: int, active: int, paused: bool, to_learn: int
    ) -> None:
        """What is known of the newest version, and which one is served; `to_learn`: settled judgments in no version."""
        self.policy_metric.clear()
        for name, value in metrics.items():
            if value is not None:
                self.policy_metric.labels(name).set(value)
        self.newest_version.set(newest)
        self.active_version.set(active)
        self.paused.set(paused)
        self.to_learn.set(to_learn)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self.registry)
