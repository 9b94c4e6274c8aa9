"""Versions replaced under load: python benchmarks/swaps.py [--quick] [--json FILE]

The gateway and the engine with the built-in model, in processes of their own; fifty clients stream answers without a
pause, while a hundred versions are activated one after the other over HTTP. Counted: answers that were refused, cut, or
mixed. An answer is mixed where the log-prob of a token in the event log is not that of a full forward pass under the
version that the log names for this token (float32, within 1e-3 nats). Measured, at the clients:

    pause       the longest time between two tokens of one stream from the request for an activation until a moment
                after its answer, over all streams; and in windows of the same length without a swap
    activation  from the request to the answer: read, verified, replaced, recorded, on the disk
    roll-back   the same for POST /api/policy/rollback
"""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np
import torch
from torch import Tensor

from harness import Figure, parse_options, report, spread
from rewardloop.feedback.log.arrays import Sampled
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.hardware import set_up_threads
from rewardloop.loop.manifests import POLICY, WEIGHTS
from rewardloop.loop.weights import publish_version
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.models.packed import forward_completions
from rewardloop.sandbox.dialogues import training_prompts
from rewardloop.sandbox.world import build_world
from rewardloop.types import Message, Prompt
from serving import HOST, Place, RefusedError, builtin, connection, percentile, running_gateway, single

CLIENTS: Final = 50
VERSIONS: Final = 8  # beside the untouched model; activated in turn
ROUGHNESS: Final = 0.05  # of a version: standard deviation of what is added, in those of the tensor
MOST_TOKENS: Final = 120
PAUSE_S: Final = 0.1  # between two activations
AFTER_S: Final = 0.1  # the first step under new weights computes the keys and values of all streams anew
TOGETHER_S: Final = 0.001  # tokens of one stream that come closer than this came at once
TOLERANCE: Final = 1e-3  # nats
OTHERS: Final = 200  # answers that are also looked at under another version

Weights = dict[str, Tensor]


def main() -> None:
    options = parse_options(__doc__)
    swaps, rollbacks, calm_s = (20, 3, 3.0) if options.quick else (100, 10, 10.0)
    set_up_threads(options.threads)
    lm = load_language_model(builtin())
    with running_gateway("engine", keys=CLIENTS) as place:
        versions = publish(place.data / WEIGHTS, lm)
        seen = asyncio.run(under_swaps(place, swaps, rollbacks, calm_s))
        with LogReader(data_url(place.data)) as log:
            record = dict(finished(log))
    figures = [
        *count(seen, record),
        *reproduce(lm, versions, [each for each, _ in record.values()]),
        *pauses(seen),
        spread("activation, ms", [1000 * (end - start) for start, end in seen.swaps]),
        single("activation, ms, p95", 1000 * percentile([end - start for start, end in seen.swaps], 0.95)),
        spread("roll-back, s", [end - start for start, end in seen.rollbacks], target=2.0, better="lower"),
    ]
    settings = {"clients": CLIENTS, "swaps": swaps, "versions": VERSIONS, "max_tokens": MOST_TOKENS}
    report("Versions replaced under load", figures, options, settings)


def publish(registry: Path, lm: LanguageModel) -> dict[int, Weights]:
    """Versions that differ a little from the untouched model and from each other; 0 is the untouched one."""
    given = copied(lm)
    versions = {0: given}
    for version in range(1, VERSIONS + 1):
        lm.model.load_state_dict(given)
        draw = torch.Generator().manual_seed(version)
        with torch.no_grad():
            for weight in lm.model.parameters():  # each once, also where one is used in two places
                weight += ROUGHNESS * weight.std() * torch.randn(weight.shape, generator=draw)
        versions[version] = copied(lm)
        publish_version(registry, version, {POLICY: versions[version]}, model="builtin")
    return versions


def copied(lm: LanguageModel) -> Weights:
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


# ---------------------------------------------------------------- at the clients


@dataclass
class Heard:
    """One answer as its client heard it."""

    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)  # of the weights, one for each token
    times: list[float] = field(default_factory=list)  # seconds, when each token came
    finish_reason: str | None = None


@dataclass
class Seen:
    """What all clients saw, and when versions were replaced; times by time.perf_counter, seconds."""

    answers: dict[str, Heard] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    swaps: list[tuple[float, float]] = field(default_factory=list)
    rollbacks: list[tuple[float, float]] = field(default_factory=list)
    calm: list[tuple[float, float]] = field(default_factory=list)


async def under_swaps(place: Place, swaps: int, rollbacks: int, calm_s: float) -> Seen:
    """Stream answers, first in peace, then while versions are replaced, then in peace again, then rolled back."""
    seen, over = Seen(), asyncio.Event()
    prompts = training_prompts(build_world(0))
    clients = [
        asyncio.create_task(stream_answers(place, number, prompts, seen, over)) for number in range(len(place.keys))
    ]
    headers = {"authorization": f"Bearer {place.operator}"}
    async with httpx2.AsyncClient(base_url=f"http://{HOST}:{place.port}", headers=headers, timeout=60) as operator:
        await asyncio.sleep(2.0)  # until all of them speak
        seen.calm.append(await rest(calm_s))
        for number in range(swaps):
            body = {"version": 1 + number % VERSIONS, "reason": "benchmark"}
            seen.swaps.append(await steer(operator, "/api/policy/activate", body))
        seen.calm.append(await rest(calm_s))
        for _ in range(rollbacks):
            seen.rollbacks.append(await steer(operator, "/api/policy/rollback", {"reason": "benchmark"}))
    over.set()
    await asyncio.gather(*clients)
    return seen


async def rest(seconds: float) -> tuple[float, float]:
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    return began, time.perf_counter()


async def steer(operator: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> tuple[float, float]:
    """From the request to its answer; a little is waited afterwards."""
    began = time.perf_counter()
    reply = await operator.post(path, json=body)
    ended = time.perf_counter()
    assert reply.status_code == 200, reply.text
    await asyncio.sleep(PAUSE_S)
    return began, ended


async def stream_answers(place: Place, number: int, prompts: Sequence[Prompt], seen: Seen, over: asyncio.Event) -> None:
    """One client: an answer after the other, each heard to its end."""
    rng = random.Random(number)
    for turn in itertools.count():
        if over.is_set():
            return
        prompt = rng.choice(prompts)
        messages = [{"role": each.role, "content": each.content} for each in prompt if isinstance(each, Message)]
        asked = {"model": place.model, "messages": messages, "max_tokens": MOST_TOKENS, "logprobs": True}
        async with connection(place, secret=place.keys[number]) as talk:
            try:
                async for event in talk.events({**asked, "seed": 100_000 * number + turn}):
                    hear(seen, event)
            except RefusedError as error:
                seen.refused.append(str(error))
                await asyncio.sleep(0.1)
            except (OSError, EOFError, ValueError) as error:
                seen.broken.append(repr(error))


def hear(seen: Seen, event: dict[str, Any]) -> None:
    if "error" in event:
        seen.broken.append(event["error"]["message"])
        return
    heard = seen.answers.setdefault(event["id"], Heard())
    for choice in event["choices"]:
        for token in (choice["logprobs"] or {"content": []})["content"]:
            heard.logprobs.append(token["logprob"])
            heard.versions.append(int(event["system_fingerprint"].removeprefix("v")))
            heard.times.append(time.perf_counter())
        heard.finish_reason = choice["finish_reason"] or heard.finish_reason


def pauses(seen: Seen) -> list[Figure]:
    """What a swap costs a reader, against the time between two tokens without one."""
    gaps = [
        (before, after)
        for heard in seen.answers.values()
        for before, after in pairwise(heard.times)
        if after - before > TOGETHER_S
    ]
    starts, ends = np.array(gaps).T
    taken = ends - starts
    peace = np.zeros(len(gaps), bool)
    for begin, end in seen.calm:
        peace |= (starts >= begin) & (ends <= end)
    step = float(np.median(taken[peace]))

    def longest(begin: float, end: float) -> float:
        return float(taken[(starts < end) & (ends > begin)].max(initial=0.0))

    width = statistics.median(end - begin for begin, end in seen.swaps) + AFTER_S
    around = [longest(begin, end + AFTER_S) for begin, end in seen.swaps]
    without = [longest(at, at + width) for begin, end in seen.calm for at in np.arange(begin, end - width, width)]
    extra = (statistics.median(around) - statistics.median(without)) / step
    return [
        single("time between tokens without swaps, ms, median", 1000 * step),
        single("time between tokens without swaps, ms, p95", 1000 * float(np.quantile(taken[peace], 0.95))),
        spread("longest pause around a swap, ms", [1000 * each for each in around]),
        spread("longest pause in as long a time without a swap, ms", [1000 * each for each in without]),
        single("pause that a swap adds, in times between tokens", extra, target=1.0, better="lower"),
    ]


# ---------------------------------------------------------------- in the record


def finished(log: LogReader) -> Iterator[tuple[str, tuple[Sampled, str]]]:
    """Every answer of the log: its id, what was sampled, how it ended."""
    after = 0
    while events := log.read(after, ("completion.finished",)):
        for event in events:
            sampled = log.sampled(event.seq)
            assert sampled is not None
            yield str(event.target_id), (sampled, event.body["finish_reason"])
        after = events[-1].seq


def count(seen: Seen, record: dict[str, tuple[Sampled, str]]) -> list[Figure]:
    cut = [name for name, heard in seen.answers.items() if heard.finish_reason not in ("stop", "length")]
    cut += [name for name, (_, reason) in record.items() if reason not in ("stop", "length") and name not in cut]
    otherwise = sum(name not in record or differs(heard, record[name][0]) for name, heard in seen.answers.items())
    spanning = sum(len(set(sampled.weight_versions_T.tolist())) > 1 for sampled, _ in record.values())
    return [
        single("answers", len(seen.answers)),
        single("answers that span versions", spanning),
        single("answers refused", len(seen.refused), 0, "lower"),
        single("answers cut", len(cut) + len(seen.broken), 0, "lower"),
        single("answers recorded otherwise than they were heard", otherwise, 0, "lower"),
    ]


def differs(heard: Heard, sampled: Sampled) -> bool:
    """Whether log-probs or versions in the stream are others than in the log."""
    same = np.array_equal(np.array(heard.logprobs, np.float32), sampled.logprobs_T)
    return not same or heard.versions != sampled.weight_versions_T.tolist()


def reproduce(lm: LanguageModel, versions: dict[int, Weights], answers: Sequence[Sampled]) -> list[Figure]:
    """Every token under its version, by full forward passes; and some under a version that is not theirs."""
    worst = np.zeros(len(answers))
    tokens, elsewhere = 0, []
    for version, weights in versions.items():
        lm.model.load_state_dict(weights)
        rows = [row for row, sampled in enumerate(answers) if (sampled.weight_versions_T == version).any()]
        for row, difference_T in zip(rows, differences(lm, [answers[row] for row in rows]), strict=True):
            own_T = answers[row].weight_versions_T == version
            tokens += int(own_T.sum())
            worst[row] = max(worst[row], float(difference_T[own_T].max()))
        others = [
            sampled for sampled in answers if len(sampled.token_ids_T) and version not in sampled.weight_versions_T
        ]
        elsewhere += [float(each.max()) for each in differences(lm, others[: OTHERS // len(versions)])]
    return [
        single("tokens reproduced", tokens),
        single("answers mixed", int((worst > TOLERANCE).sum()), 0, "lower"),
        single("largest difference of a log-prob, nats", float(worst.max()), TOLERANCE, "lower"),
        spread("the same under another version: largest difference in an answer, nats", elsewhere),
    ]


def differences(lm: LanguageModel, answers: Sequence[Sampled]) -> list[np.ndarray]:
    """|log-prob as recorded - log-prob under the present weights| of every token."""
    if not answers:
        return []
    token_ids = [sampled.token_ids_T.tolist() for sampled in answers]
    told_BT = forward_completions(lm.model, [each.prompt_ids_P.tolist() for each in answers], token_ids).logprobs_BT
    return [np.abs(told_BT[row, : len(ids)].numpy() - answers[row].logprobs_T) for row, ids in enumerate(token_ids)]


if __name__ == "__main__":
    main()
