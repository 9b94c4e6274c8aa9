"""A whole training step against TRL: python benchmarks/step.py [--quick] [--json FILE]

Sample, reward, update: 32 sequences (4 prompts, groups of 8) of 32 + 96 tokens, one optimizer step, a Llama
of 15M parameters, a reward that costs nothing; in bfloat16, all in float32 where the hardware has no bfloat16.
GRPO and RLOO against the installed TRL's trainers, as they come and with malloc tuned; the default method, phi
its critic, against the PPOTrainer of TRL 1.12, the last release that has one, installed into a folder of its
own. Every contender is a process; they run in turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from contenders import work
from harness import (
    MALLOC_TUNED,
    OURS,
    Figure,
    Options,
    WorkerRun,
    alternate,
    cache_folder,
    common_precision,
    llama_15m,
    parse_options,
    precision_note,
    ratio,
    report,
    require,
    run_worker,
    spread,
)
from rewardloop.errors import RewardLoopError
from rewardloop.files import written_whole

ROUNDS: Final = 3
STEPS: Final = 4  # of each process; the first one tells how long a user waits, the others how long a step takes
PPO_RELEASE: Final = "1.12"


@dataclass(frozen=True, slots=True)
class Match:
    """One of our methods against one of TRL's trainers."""

    name: str
    ours: tuple[str, ...]  # module and its arguments
    theirs: tuple[str, ...]
    tuned_target: float | None
    environment: Mapping[str, str] | None = None  # of theirs


MATCHES: Final = (
    Match("grpo", ("contenders.ours", "grpo"), ("contenders.trl_group", "grpo"), 2.5),
    Match("rloo", ("contenders.ours", "rloo"), ("contenders.trl_group", "rloo"), 2.5),
    Match("ppo", ("contenders.ours", "default"), ("contenders.trl_ppo",), None),
)


def main(options: Options) -> None:
    require("trl", "accelerate", "datasets")
    # A minute is enough for GRPO alone: TRL needs a quarter of it to get through its first step.
    matches, notes = (MATCHES[:1], [QUICK_NOTE]) if options.quick else playable(MATCHES)
    rounds, steps = (1, 2) if options.quick else (ROUNDS, STEPS)
    contenders: dict[str, Callable[[], WorkerRun]] = {}
    for match in matches:
        contenders |= contenders_of(match, str(llama_15m()), steps, options)
    runs = alternate(contenders, rounds)
    figures = [figure for match in matches for figure in figures_of(match, runs)]
    settings = {
        "rounds": rounds,
        "steps": steps,
        "prompts": work.PROMPTS,
        "group_size": work.GROUP_SIZE,
        "prompt_tokens": work.PROMPT_TOKENS,
        "new_tokens": work.NEW_TOKENS,
        "trl_ppo": PPO_RELEASE,
        "malloc_tuned": MALLOC_TUNED,
        "computes_in": common_precision(),
    }
    report("A whole training step against TRL", figures, options, settings, [precision_note(), *notes])


QUICK_NOTE: Final = (
    "--quick: GRPO as it comes, one round. RLOO, PPO and malloc tuned are in the full run (about 15 minutes)."
)


def contenders_of(match: Match, model: str, steps: int, options: Options) -> dict[str, Callable[[], WorkerRun]]:
    """Ours, theirs, and in a full run theirs with malloc tuned."""
    run = partial(run_worker, threads=options.threads)
    theirs = dict(match.environment or {})
    contenders = {
        f"ours {match.name}": partial(run, *match.ours, model, steps, environment=OURS),
        f"trl {match.name}": partial(run, *match.theirs, model, steps, environment=theirs),
    }
    if not options.quick:
        contenders[f"trl {match.name} tuned"] = partial(
            run, *match.theirs, model, steps, environment=theirs | MALLOC_TUNED
        )
    return contenders


def figures_of(match: Match, runs: Mapping[str, Sequence[WorkerRun]]) -> list[Figure]:
    """Speed of a step, time to the end of the first one and peak memory, ours against theirs."""
    ours, theirs = runs[f"ours {match.name}"], runs[f"trl {match.name}"]
    tuned = runs.get(f"trl {match.name} tuned", ())
    figures = [
        ratio(f"{match.name}: step, times faster", step_seconds(theirs), step_seconds(ours), target=3.0),
        ratio(
            f"{match.name}: peak memory, share of TRL's",
            [run.peak_bytes for run in ours],
            [run.peak_bytes for run in theirs],
            target=0.45,
            better="lower",
        ),
        ratio(
            f"{match.name}: first step done, share of TRL's time",
            [run.first_step_s for run in ours],
            [run.first_step_s for run in theirs],
            target=0.5,
            better="lower",
        ),
    ]
    if tuned:
        name = f"{match.name}: step, times faster, malloc tuned"
        figures.insert(1, ratio(name, step_seconds(tuned), step_seconds(ours), target=match.tuned_target))
    for who, those in (("ours", ours), ("TRL", theirs), ("TRL, malloc tuned", tuned)):
        if those:
            figures += absolute_figures(f"{match.name}: {who}", those)
    return figures


def absolute_figures(name: str, runs: Sequence[WorkerRun]) -> list[Figure]:
    """What the ratios are made of."""
    return [
        spread(f"{name}, s/step", step_seconds(runs), better="lower"),
        spread(f"{name}, s to first step", [run.first_step_s for run in runs], better="lower"),
        spread(f"{name}, peak GB", [run.peak_bytes / 1e9 for run in runs], better="lower"),
    ]


def step_seconds(runs: Sequence[WorkerRun]) -> list[float]:
    return [seconds for run in runs for seconds in run.step_s]


# ---------------------------------------------------------------- the TRL that still has PPO


def playable(matches: Sequence[Match]) -> tuple[list[Match], list[str]]:
    """The matches whose competitor can be had, and a line for each that cannot."""
    try:
        folder = old_trl()
    except (RewardLoopError, OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        line = f"ppo skipped: TRL {PPO_RELEASE} could not be installed: {said.strip().splitlines()[-1]}"
        return [match for match in matches if match.name != "ppo"], [line]
    path = {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)}
    return [replace(match, environment=path) if match.name == "ppo" else match for match in matches], []


def old_trl() -> Path:
    """A folder with TRL 1.12 and nothing else; what it needs, torch above all, is in this environment.

    Two releases of TRL cannot live in one environment, and a second torch would cost a gigabyte.
    """
    folder = cache_folder() / f"trl-{PPO_RELEASE}"
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        with written_whole(folder) as unfinished:
            command += [str(unfinished), f"trl=={PPO_RELEASE}.*"]
            subprocess.run(command, check=True, capture_output=True, text=True)
    return folder


if __name__ == "__main__":
    main(parse_options(__doc__))
