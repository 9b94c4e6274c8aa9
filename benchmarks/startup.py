"""How long a user waits: python benchmarks/startup.py [--quick] [--json FILE]

`rewardloop --help` and `import rewardloop` in a process of their own, both without torch; and from the start
of a process to the end of its first training step, against TRL (the work of benchmarks/step.py).
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Final

from harness import (
    OURS,
    Figure,
    Options,
    alternate,
    common_precision,
    llama_15m,
    parse_options,
    precision_note,
    ratio,
    report,
    require,
    run_worker,
    spread,
    time_call,
)
from step import MATCHES, Match, playable

IMPORT: Final = "import rewardloop"
HELP: Final = """
import sys
from rewardloop.cli import main
sys.argv = ["rewardloop", "--help"]
try:
    main()
except SystemExit:
    pass
"""
WITHOUT_TORCH: Final = "\nimport sys\nassert 'torch' not in sys.modules, 'it imports torch'"


# What is run, and the seconds it may take.
PROGRAMS: Final = {"rewardloop --help": (HELP, 0.5), "import rewardloop": (IMPORT, 0.3)}


def main(options: Options) -> None:
    require("trl", "accelerate", "datasets")
    matches, notes = playable(MATCHES) if not options.quick else (MATCHES[:1], ["--quick: GRPO only"])
    figures = wait_for_programs(rounds=5 if options.quick else 20)
    for match in matches:
        figures += wait_for_first_step(match, options)
    settings = {"computes_in": common_precision()}
    report("How long a user waits", figures, options, settings, [precision_note(), *notes])


def wait_for_programs(rounds: int) -> list[Figure]:
    """Wall seconds of whole processes; fails where one of them imports torch."""
    for program, _ in PROGRAMS.values():
        run_python(program + WITHOUT_TORCH)  # also fills the cache of compiled files
    runs = {name: partial(time_call, partial(run_python, program)) for name, (program, _) in PROGRAMS.items()}
    waits = alternate(runs, rounds)
    return [spread(f"{name}, s", waits[name], target=PROGRAMS[name][1], better="lower") for name in runs]


def wait_for_first_step(match: Match, options: Options) -> list[Figure]:
    """From the start of a process to the end of its first training step, ours and theirs in turn."""
    run = partial(run_worker, threads=options.threads)
    contenders = {
        f"ours {match.name}": partial(run, *match.ours, llama_15m(), 1, environment=OURS),
        f"trl {match.name}": partial(run, *match.theirs, llama_15m(), 1, environment=match.environment),
    }
    runs = alternate(contenders, rounds=1 if options.quick else 3)
    ours, theirs = ([each.first_step_s for each in runs[name]] for name in contenders)
    name = f"{match.name}: first step done"
    return [
        ratio(f"{name}, share of TRL's time", ours, theirs, target=0.5, better="lower"),
        spread(f"{name}, ours, s", ours, better="lower"),
        spread(f"{name}, TRL, s", theirs, better="lower"),
    ]


def run_python(program: str) -> None:
    """Run `program` in a Python of its own."""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main(parse_options(__doc__))
