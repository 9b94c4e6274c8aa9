"""Learning among unreliable people, measured: python benchmarks/robustness.py [--quick] [--json FILE] [--threads N]

From the built-in model, twenty simulated annotators give 300 judgments in turn: all careful; six of them bad (one
random, two who say the opposite, one lazy, two who collude to praise rudeness) and everybody's reliability fitted with
the reward; the same six with everybody taken for ordinary. The gold judge, which nothing was trained on, compares the
policy with the untouched reference on held-out prompts. Five seeds; a ratio compares runs of one seed.

--threads runs work side by side, each with one compute thread. With --json, finished runs are kept in FILE.runs: the
same command goes on after an interruption (after a change, delete it). --quick is one seed, 60 judgments, 6 iterations:
it shows that the benchmark works, and nothing else.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

from harness import Figure, parse_options, report, spread
from learning import Kept

SEEDS, EVENTS = 5, 300
CAREFUL = ("careful",) * 20
# Everybody is asked in turn, and every round of 25 begins with the first: six bad people give 96 of 300 judgments.
AMONG = {1: "adversarial", 4: "colluding", 8: "random", 11: "adversarial", 14: "lazy", 17: "colluding"}
BAD = tuple(AMONG.get(number, "careful") for number in range(20))
# whom the loop asks, and whether everybody is taken for ordinary
CONDITIONS = {
    "careful people": (CAREFUL, False),
    "30 % bad, reliability fitted": (BAD, False),
    "30 % bad, all alike": (BAD, True),
}
CLEAN, FITTED, ALIKE = CONDITIONS
QUICK = ("asking.events=60", "asking.every=2", "iterations=6", "evaluate_every=3", "reference_samples=128")
Result = dict[str, float]


def main() -> None:
    """Run every condition and seed, then report."""
    options = parse_options(__doc__)
    seeds = 1 if options.quick else SEEDS
    runs = [(condition, seed) for seed in range(seeds) for condition in CONDITIONS]
    kept = Kept(options.json.with_suffix(options.json.suffix + ".runs") if options.json else None, Path(__file__))
    with ThreadPoolExecutor(max_workers=max(1, options.threads)) as pool:
        asked = [json.dumps({"condition": c, "seed": seed, "quick": options.quick}) for c, seed in runs]
        results = list(pool.map(lambda argument: kept.result("run", argument), asked))
    found = {c: [r for (of, _), r in zip(runs, results, strict=True) if of == c] for c in CONDITIONS}
    report(
        "Learning among unreliable people",
        make_figures(found, claimed=not options.quick),
        options,
        settings={"seeds": seeds, "prompts": results[0]["prompts"], "runs": found},
    )


def make_figures(found: dict[str, list[Result]], *, claimed: bool) -> list[Figure]:
    """Gains and what they are of the clean ones; the targets stand where every seed was run (`claimed`).

    The ratio that has a target is that of the mean gains: the gain of one seed varies by a fifth by itself.
    """
    gains = {condition: [result["gain"] for result in results] for condition, results in found.items()}
    figures = [spread(f"{condition}: gain in gold reward", values) for condition, values in gains.items()]
    for condition in (FITTED, ALIKE):
        by_seed = [bad / clean for bad, clean in zip(gains[condition], gains[CLEAN], strict=True)]
        share = mean(gains[condition]) / mean(gains[CLEAN])
        target = 0.8 if claimed and condition == FITTED else None
        figures.append(Figure(f"{condition}: share of the clean gain", share, min(by_seed), max(by_seed), target))
    ahead = [with_it - without for with_it, without in zip(gains[FITTED], gains[ALIKE], strict=True)]
    figures.append(spread("what fitting reliability gains", ahead, target=0.0 if claimed else None))
    figures += [
        spread(f"{FITTED}: mean weight, {kind}", [result[f"weight {kind}"] for result in found[FITTED]])
        for kind in dict.fromkeys(BAD)
    ]
    figures += [spread(f"{condition}: seconds a seed", [r["seconds"] for r in rs]) for condition, rs in found.items()]
    return figures


# ---------------------------------------------------------------- one run, in a process of its own


def run(argument: str) -> dict[str, float]:
    """The gain of one seed under one condition, and how much people of each kind were trusted in the end."""
    from rewardloop.config import resolve_recipe
    from rewardloop.hardware import set_up_threads
    from rewardloop.loop.recipe import Recipe
    from rewardloop.loop.rewards import LearnedReward
    from rewardloop.loop.run import learn
    from rewardloop.loop.tasks import simulated_task
    from rewardloop.sandbox.builtin import builtin_model_folder
    from rewardloop.sandbox.world import build_world

    began, given = time.perf_counter(), json.loads(argument)
    kinds, alike = CONDITIONS[given["condition"]]
    settings = [f"seed={given['seed']}", f"asking.events={EVENTS}", "threads=1", *(QUICK if given["quick"] else ())]
    recipe = resolve_recipe(Recipe, None, settings)
    set_up_threads(recipe.threads)
    held_out = 40 if given["quick"] else None
    task = simulated_task(recipe, builtin_model_folder(), build_world(0), kinds, held_out=held_out)
    rewards = task.rewards
    assert isinstance(rewards, LearnedReward)
    rewards.alike = alike
    with tempfile.TemporaryDirectory() as folder:
        seen = learn(task, recipe, Path(folder), lambda _: None).measurement
    weights: dict[str, list[float]] = {kind: [] for kind in kinds}
    for name, traits in rewards.annotators.items():
        weights[name.rsplit("-", 1)[0]].append(traits.weight)
    return {
        "gain": seen.metrics["held_out/gain"],
        "low": seen.metrics["held_out/gain_low"],
        "high": seen.metrics["held_out/gain_high"],
        "prompts": len(seen.after.completions),
        "seconds": time.perf_counter() - began,
    } | {f"weight {kind}": mean(found) for kind, found in weights.items() if found}


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--run":
        print(json.dumps(run(sys.argv[2])))
    else:
        main()
