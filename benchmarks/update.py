"""How fast a policy is updated: python benchmarks/update.py [--quick] [--json FILE]

One step of the optimizer on 32 sequences of 32 + 96 tokens, and on 32 of varying length (mean 48 of at most
96), in groups of 8 to a prompt as benchmarks/step.py samples them, and on 32 that share no prompt; 15M Llama
shape, bfloat16 over float32 weights where the hardware has bfloat16; against the same step written with
transformers, as it comes and with malloc tuned. Extra memory is the peak above model and optimizer. Every
contender is a process; they run in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from harness import (
    MALLOC_TUNED,
    OURS,
    Figure,
    Options,
    WorkerRun,
    alternate,
    common_precision,
    llama_15m,
    parse_options,
    precision_note,
    ratio,
    report,
    run_worker,
    spread,
)

TARGETS: Final = {"equal": 1.5, "varying": 2.0, "ungrouped": 1.5}  # times faster
MEMORY_TARGET: Final = 1 / 8


def main(options: Options) -> None:
    rounds, steps = (1, 2) if options.quick else (3, 4)
    figures: list[Figure] = []
    for kind in TARGETS:
        run = partial(run_worker, "contenders.update", threads=options.threads)
        arguments = (kind, llama_15m(), steps)
        contenders = {
            "ours": partial(run, "ours", *arguments, environment=OURS),
            "transformers": partial(run, "transformers", *arguments),
        }
        if not options.quick:
            tuned = partial(run, "transformers", *arguments, environment=MALLOC_TUNED)
            contenders["transformers, malloc tuned"] = tuned
        figures += figures_of(kind, alternate(contenders, rounds))
    settings = {"rounds": rounds, "steps": steps, "computes_in": common_precision()}
    report("One update of the policy", figures, options, settings, [precision_note()])


def figures_of(kind: str, runs: Mapping[str, Sequence[WorkerRun]]) -> list[Figure]:
    """Speed and extra memory, ours against each other contender; then what the ratios are made of."""
    figures = []
    for name in [name for name in runs if name != "ours"]:
        target = TARGETS[kind] if name == "transformers" else None
        versus = f"{kind}, against {name}"
        figures.append(ratio(f"{versus}: times faster", seconds(runs[name]), seconds(runs["ours"]), target=target))
        if name == "transformers":
            figures.append(
                ratio(
                    f"{versus}: share of its extra memory",
                    extra_megabytes(runs["ours"]),
                    extra_megabytes(runs[name]),
                    target=MEMORY_TARGET,
                    better="lower",
                )
            )
    for name, those in runs.items():
        figures.append(spread(f"{kind}, {name}: s/step", seconds(those), better="lower"))
        figures.append(spread(f"{kind}, {name}: extra MB", extra_megabytes(those), better="lower"))
    return figures


def seconds(runs: Sequence[WorkerRun]) -> list[float]:
    """Of every step but the first of its size, which faults its memory in."""
    return [each for run in runs for each in run.step_s[1:]]


def extra_megabytes(runs: Sequence[WorkerRun]) -> list[float]:
    return [(run.peak_bytes - run.first_peak_bytes) / 1e6 for run in runs]


if __name__ == "__main__":
    main(parse_options(__doc__))
