"""Learning from few judgments, measured: python benchmarks/learning.py [--quick] [--json FILE] [--threads N]

    python benchmarks/learning.py --picture FILE     the curve in a --json FILE: docs/learning.svg, and a table

From the built-in model, careful simulated annotators give 0, 30, 100 or 300 judgments; the gold judge, which nothing
was trained on, compares the policy with the untouched reference on held-out prompts about held-out facts. Ten seeds;
rewards dense (phi) and, for 100 judgments, all at the last token. `attainable` is the best of 64 answers of the
reference by gold, less their mean: what choosing alone could reach.

--threads runs work side by side, each with one compute thread, so that N processors do N seeds at a time. With --json,
finished runs are kept in FILE.runs: the same command goes on after an interruption (after a change, delete it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from threading import Lock

from harness import Figure, Options, parse_options, report, spread
from rewardloop.files import append_line

PICTURE = Path(__file__).parent.parent / "docs" / "learning.svg"
BEST_OF = 64
# judgments, whether every token is rewarded, iterations (None: as many as the recipe gives to so many judgments); the
# last one has few judgments and as many iterations as 300 are given: what of their gain is due to those alone
CONDITIONS: list[tuple[int, bool, int | None]] = [
    (0, True, None),
    (30, True, None),
    (100, True, None),
    (300, True, None),
    (100, False, None),
    (30, True, 68),
]


@dataclass(frozen=True)
class Run:
    """One seed under one condition."""

    events: int
    dense: bool
    seed: int
    iterations: int | None = None  # None: as many as the recipe gives to so many judgments

    @property
    def condition(self) -> str:
        longer = "" if self.iterations is None else f", {self.iterations} iterations"
        return f"{self.events} judgments, {'dense' if self.dense else 'terminal'}{longer}"


def main() -> None:
    """Run every condition and seed, then report."""
    options = parse_options(__doc__)
    seeds, conditions = (1, [(30, True, None)]) if options.quick else (10, CONDITIONS)
    runs = [Run(events, dense, seed, iterations) for seed in range(seeds) for events, dense, iterations in conditions]
    kept = Kept(options.json.with_suffix(options.json.suffix + ".runs") if options.json else None)
    with ThreadPoolExecutor(max_workers=max(1, options.threads)) as pool:
        attainable = pool.submit(kept.result, "attainable", str(8 if options.quick else BEST_OF))
        results = list(pool.map(lambda run: kept.result("run", json.dumps(vars(run) | {"quick": options.quick})), runs))
    report(
        "Learning from few judgments",
        _figures(runs, results, float(attainable.result()["gain"]), options),
        options,
        settings={
            "seeds": seeds,
            "prompts": results[0]["prompts"],
            "curves": _curves(runs, results),
            "runs": _rows(runs, results),
        },
        notes=_notes(runs, results),
    )


def _figures(runs: list[Run], results: list[dict[str, float]], attainable: float, options: Options) -> list[Figure]:
    figures = [Figure("attainable gain", attainable, attainable, attainable)]
    for condition in dict.fromkeys(run.condition for run in runs):
        done = [result for run, result in zip(runs, results, strict=True) if run.condition == condition]
        claimed = condition == "100 judgments, dense" and not options.quick
        figures += [
            spread(f"{condition}: gain in gold reward", [r["gain"] for r in done]),
            spread(f"{condition}: share of the attainable", [r["gain"] / attainable for r in done]),
            _count(f"{condition}: seeds with a gain", [r["gain"] > 0 for r in done], len(done) if claimed else None),
            _count(
                f"{condition}: seeds with an interval above 0", [r["low"] > 0 for r in done], 9 if claimed else None
            ),
        ]
        for name in ("wrong_facts", "topic_drift", "rudeness"):
            figures.append(
                spread(
                    f"{condition}: change of {name}",
                    [r[name] for r in done],
                    target=0.0 if claimed else None,
                    better="lower",
                )
            )
        figures.append(
            spread(f"{condition}: seconds a seed", [r["seconds"] for r in done], target=240.0, better="lower")
        )
    return figures


def _count(name: str, hits: list[bool], target: int | None) -> Figure:
    value = float(sum(hits))
    return Figure(name, value, value, value, target)


def _rows(runs: list[Run], results: list[dict[str, float]]) -> list[dict[str, float]]:
    """Every run with its figures, without its way there."""
    return [
        vars(run) | {name: value for name, value in result.items() if name != "points"}
        for run, result in zip(runs, results, strict=True)
    ]


def _curves(runs: list[Run], results: list[dict[str, float]]) -> dict[str, list[list[float]]]:
    """Mean gain over seeds at each measurement: [iteration, judgments so far, gain]."""
    curves: dict[str, list[list[float]]] = {}
    for condition in dict.fromkeys(run.condition for run in runs):
        points = [r["points"] for run, r in zip(runs, results, strict=True) if run.condition == condition]
        curves[condition] = [
            [round(mean(column), 4) for column in zip(*at, strict=True)] for at in zip(*points, strict=False)
        ]
    return curves


def _notes(runs: list[Run], results: list[dict[str, float]]) -> list[str]:
    lines = ["mean gain by iteration:"]
    for condition, points in _curves(runs, results).items():
        lines.append(f"  {condition:24s} " + "  ".join(f"{int(i)}: {gain:+.2f}" for i, _, gain in points))
    return lines


# ---------------------------------------------------------------- one run, in a process of its own


class Kept:
    """Results by what was asked, in a file that grows; None keeps nothing. `script` is what answers."""

    def __init__(self, path: Path | None, script: Path = Path(__file__)) -> None:
        self._path, self._script, self._lock = path, script, Lock()
        lines = path.read_text(encoding="utf-8").splitlines() if path and path.exists() else []
        self._known = {tuple(asked): result for asked, result in map(json.loads, lines)}

    def result(self, verb: str, argument: str) -> dict[str, float]:
        """What a process of its own says, or said before."""
        if (verb, argument) not in self._known:
            result = _in_process(self._script, verb, argument)
            with self._lock:
                self._known[verb, argument] = result
                if self._path:
                    append_line(self._path, json.dumps([[verb, argument], result]))
        return self._known[verb, argument]


def _in_process(script: Path, verb: str, argument: str) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, str(script), f"--{verb}", argument]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    print(f"{verb} {argument}: done", file=sys.stderr, flush=True)
    return json.loads(ended.stdout.splitlines()[-1])


def _run(argument: str) -> dict[str, object]:
    from rewardloop.config import resolve_recipe
    from rewardloop.hardware import set_up_threads
    from rewardloop.loop.recipe import Recipe
    from rewardloop.loop.run import learn
    from rewardloop.loop.tasks import simulated_task
    from rewardloop.sandbox.builtin import builtin_model_folder
    from rewardloop.sandbox.world import build_world

    began, given = time.perf_counter(), json.loads(argument)
    settings = [f"seed={given['seed']}", f"asking.events={given['events']}", "threads=1"]
    settings += [f"immediate.dense={str(given['dense']).lower()}", f"iterations={given['iterations'] or 'null'}"]
    settings += (
        ["iterations=6", "evaluate_every=3", "reference_samples=128", "asking.every=2"] if given["quick"] else []
    )
    recipe = resolve_recipe(Recipe, None, settings)
    set_up_threads(recipe.threads)
    task = simulated_task(
        recipe, builtin_model_folder(), build_world(0), ["careful"], held_out=40 if given["quick"] else None
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = learn(task, recipe, Path(folder), lambda _: None)
    seen, points = outcome.measurement, outcome.journal.progress.points
    change = {
        name: float(after.mean() - seen.before.defects[name].mean()) for name, after in seen.after.defects.items()
    }
    return {
        "gain": seen.metrics["held_out/gain"],
        "low": seen.metrics["held_out/gain_low"],
        "high": seen.metrics["held_out/gain_high"],
        "prompts": len(seen.after.completions),
        "seconds": time.perf_counter() - began,
        "points": [[p["loop/iteration"], p["loop/events"], p["held_out/gain"]] for p in points],
    } | change


def _attainable(argument: str) -> dict[str, float]:
    import numpy as np

    from rewardloop.models.language_model import load_language_model
    from rewardloop.rollout.engine import Engine
    from rewardloop.rollout.sampling import sample_rollout
    from rewardloop.sandbox.builtin import builtin_model_folder
    from rewardloop.sandbox.dialogues import held_out_prompts
    from rewardloop.sandbox.judges import GoldReward
    from rewardloop.sandbox.world import build_world

    world, count = build_world(0), int(argument)
    engine = Engine(load_language_model(builtin_model_folder()), slots=64)
    rollout = sample_rollout(engine, held_out_prompts(world), group_size=count, max_tokens=64, seed=0)
    gold_GN = (
        GoldReward(world)
        .score([c.prompt for c in rollout.completions], [c.text for c in rollout.completions])
        .reshape(-1, count)
    )
    return {"gain": float(np.mean(gold_GN.max(-1)) - gold_GN.mean())}


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in ("--run", "--attainable"):
        print(json.dumps(_run(sys.argv[2]) if sys.argv[1] == "--run" else _attainable(sys.argv[2])))
    elif len(sys.argv) == 3 and sys.argv[1] == "--picture":
        from learning_curve import draw_learning

        print(draw_learning(Path(sys.argv[2]), PICTURE))
    else:
        main()
