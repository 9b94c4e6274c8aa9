"""`rewardloop simulate --live`: the whole product at work. A place is opened by `rewardloop up`, simulated people come
in by HTTP, the model learns while they speak; what came of it is measured with gold afterwards.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx2
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rewardloop.config import resolve_recipe
from rewardloop.errors import ConfigError, StoreError
from rewardloop.evaluate.defects import find_defects
from rewardloop.files import write_text
from rewardloop.loop.live.crowd import Crowd, median, move_in
from rewardloop.loop.manifests import WEIGHTS, active_version, read_manifest
from rewardloop.loop.measure import Measurer
from rewardloop.loop.recipe import Recipe
from rewardloop.loop.weights import open_part
from rewardloop.models.language_model import load_language_model
from rewardloop.rollout.engine import Engine
from rewardloop.sandbox.annotators import KINDS, SimulatedAnnotator
from rewardloop.sandbox.builtin import builtin_model_folder
from rewardloop.sandbox.dialogues import held_out_prompts, training_prompts
from rewardloop.sandbox.judges import GoldReward
from rewardloop.sandbox.world import World, build_world

READY_S: Final = 120.0
STOP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Visit:
    """How the crowd behaves, and for how long it is waited for."""

    annotators: str = "careful"
    events: int = 100
    per_second: float = 1.0
    longest_s: float = 600.0  # from the first question until it is measured, at most
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it."""

    gain: float  # gold, on held-out prompts, against the untouched model
    gain_low: float
    gain_high: float
    version: int  # that was served in the end
    events: int
    live: int  # events that a served version had learned from in the end
    median_learned_s: float | None
    median_live_s: float | None
    seconds: float
    metrics: dict[str, float]


def simulate_live(out: Path, visit: Visit, recipe_file: Path | None, console: Console) -> Found:
    """Run it in `out`, which must be new; `live.json` there says what came of it. Raises ConfigError, StoreError."""
    kinds = visit.annotators.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ConfigError(f"unknown annotators {', '.join(unknown)}; known: {', '.join(KINDS)}")
    if (out / "data").exists():
        raise ConfigError(f"{out / 'data'} is there already; a live run begins afresh, name another --out")
    recipe, world = resolve_recipe(Recipe, recipe_file), build_world(0)
    people = [
        SimulatedAnnotator(world, kind, name=f"{kind}-{at}", seed=visit.seed + at) for at, kind in enumerate(kinds)
    ]
    began = time.monotonic()
    with opened(out / "data", recipe_file, visit.seed) as (url, key):
        crowd = Crowd(url, key, people, training_prompts(world), visit.seed)
        with _shown(console, crowd, visit.events) as show:
            _meet(crowd, visit, began, show)
        seconds = time.monotonic() - began
    found = _measure(out / "data" / WEIGHTS, world, recipe, crowd, seconds)
    write_text(out / "live.json", json.dumps(asdict(found) | {"given": [asdict(each) for each in crowd.given]}))
    _tell(console, found)
    return found


@contextmanager
def opened(data: Path, recipe: Path | None, seed: int, password: str | None = None) -> Iterator[tuple[str, str]]:
    """A place that is served and learns, in processes of its own: its address and a key. Raises StoreError.

    Its owner is called Simulation; without `password` nobody can come in as such.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "from rewardloop.cli import main; main()", "up", "--data", str(data)]
    command += ["--port", str(port), "--seed", str(seed), *(("--recipe", str(recipe)) if recipe else ())]
    process = subprocess.Popen(  # noqa: S603
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # within one session, its learner would yield to everything that is done here
    )
    try:
        token = _setup_token(process)
        threading.Thread(target=process.communicate, daemon=True).start()  # nobody else reads what it says
        url = f"http://127.0.0.1:{port}"
        yield url, move_in(url, token, password)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()


def _setup_token(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said: list[str] = []
    timer = threading.Timer(READY_S, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            said.append(line)
            if (found := re.search(r"/setup#(\S+)", line)) is not None:
                return found[1]
    finally:
        timer.cancel()
    raise StoreError(f"`rewardloop up` did not come up: {''.join(said[-3:]).strip() or 'it said nothing'}")


def _meet(crowd: Crowd, visit: Visit, began: float, show: Callable[[], None]) -> None:
    """Let the crowd speak, and wait until the last word is live, nothing more is learned, or time is up."""
    over = threading.Event()
    watcher = threading.Thread(target=partial(crowd.follow, lambda: not over.is_set()), daemon=True)
    watcher.start()

    def in_time() -> bool:
        show()
        return time.monotonic() - began < visit.longest_s

    try:
        speaker = threading.Thread(target=partial(crowd.speak, visit.events, visit.per_second, in_time), daemon=True)
        speaker.start()
        while speaker.is_alive() and in_time():
            speaker.join(0.5)
        with httpx2.Client(base_url=crowd.url, headers={"authorization": f"Bearer {crowd.key}"}, timeout=60) as client:
            while in_time() and not _at_rest(client, crowd):
                time.sleep(1.0)
    finally:
        over.set()
        watcher.join(5)


def _at_rest(client: httpx2.Client, crowd: Crowd) -> bool:
    """Whether the learner has heard everything and waits for more."""
    try:
        progress = client.get("/api/policy").json().get("progress") or {}
    except (httpx2.HTTPError, ValueError):
        return False
    heard = (progress.get("last_seq") or 0) >= max((each.seq for each in crowd.given), default=0)
    return bool(progress.get("phase") == "waiting" and heard and crowd.given)


@contextmanager
def _shown(console: Console, crowd: Crowd, events: int) -> Iterator[Callable[[], None]]:
    """A bar of judgments that are given, learned from, and live."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as bars:
        tasks = {name: bars.add_task(name, total=events) for name in ("saved", "learned", "live")}

        def show() -> None:
            given = list(crowd.given)
            bars.update(tasks["saved"], completed=len(given))
            bars.update(tasks["learned"], completed=sum(each.learned_s is not None for each in given))
            bars.update(tasks["live"], completed=sum(each.live_s is not None for each in given))

        yield show


def _measure(registry: Path, world: World, recipe: Recipe, crowd: Crowd, seconds: float) -> Found:
    """Gold on held-out prompts: what is served now against the untouched model."""
    lm = load_language_model(builtin_model_folder())
    engine = Engine(lm, slots=recipe.sampling.slots)
    measurer = Measurer(held_out_prompts(world), GoldReward(world), recipe, find_defects=partial(find_defects, world))
    measurer.prepare(engine)
    before = {name: float(present_B.mean()) for name, present_B in measurer.reference.defects.items()}
    version = active_version(registry) or 0
    if version:
        engine.load_weights(open_part(read_manifest(registry / f"v{version}.json")), version)
    metrics = measurer.measure(engine, None, version).metrics
    metrics |= {f"before/{name}": share for name, share in before.items()}
    return Found(
        gain=metrics["held_out/gain"],
        gain_low=metrics["held_out/gain_low"],
        gain_high=metrics["held_out/gain_high"],
        version=version,
        events=len(crowd.given),
        live=sum(each.live_s is not None for each in crowd.given),
        median_learned_s=median([each.learned_s for each in crowd.given]),
        median_live_s=median([each.live_s for each in crowd.given]),
        seconds=seconds,
        metrics=metrics,
    )


def _tell(console: Console, found: Found) -> None:
    console.print(
        f"{found.events} judgments, {found.live} of them live in v{found.version} after {found.seconds:.0f} s; "
        f"median {_seconds(found.median_learned_s)} until learned, {_seconds(found.median_live_s)} until served.",
        highlight=False,
    )
    console.print(
        f"gold reward on held-out prompts {found.gain:+.3f} [{found.gain_low:+.3f}, {found.gain_high:+.3f}]",
        style="bold green" if found.gain_low > 0 else "bold",
        highlight=False,
    )
    for name in ("wrong_facts", "topic_drift", "rudeness"):
        before, after = found.metrics[f"before/{name}"], found.metrics[f"held_out/{name}"]
        console.print(f"{name.replace('_', ' '):12s} {100 * before:.0f} % -> {100 * after:.0f} %", highlight=False)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} s"
