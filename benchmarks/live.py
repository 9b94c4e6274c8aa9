"""The whole product at work, seed by seed: python benchmarks/live.py [--quick] [--json FILE] [--threads N] [--seeds N]

Every seed is one `rewardloop simulate --live`: a place opened by `rewardloop up`, a careful simulated person who asks
by HTTP and gives 100 judgments at one a second, a learner beside the server, gold on held-out prompts afterwards.
Times run from the acknowledgment of a judgment. A judgment that no served version had learned from in the end (the
gate held what came of it, because it was not better) counts as one that takes for ever.

--threads places are open side by side; each has three processes, so that two cores are shared already by one.
"""

from __future__ import annotations

import io
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console

from harness import Figure, parse_options, report, spread
from rewardloop.cli.simulate_live import Found, Visit, simulate_live

EVENTS, LONGEST_S = 100, 600.0


def main() -> None:
    seeds = 10
    arguments = sys.argv[1:]
    if "--seeds" in arguments:
        at = arguments.index("--seeds")
        seeds = int(arguments[at + 1])
        del arguments[at : at + 2]
    options = parse_options(__doc__, arguments)
    events = 30 if options.quick else EVENTS
    with ThreadPoolExecutor(max_workers=max(1, options.threads)) as pool:
        found = list(pool.map(partial(_run, events), range(1 if options.quick else seeds)))
    claimed = not options.quick
    report(
        "Learning while serving",
        [
            spread("gain in gold reward", [each.gain for each in found]),
            _count("seeds with an interval above 0", [each.gain_low > 0 for each in found], claimed),
            spread("median seconds until learned", [_known(each.median_learned_s) for each in found], better="lower"),
            spread(
                "median seconds until served",
                [_known(each.median_live_s) if each.live * 2 > each.events else float("inf") for each in found],
                target=60.0,
                better="lower",
            ),
            spread("share of judgments live in the end", [each.live / each.events for each in found]),
            spread("seconds a seed", [each.seconds for each in found], target=LONGEST_S, better="lower"),
            *(
                spread(
                    f"change of {name}",
                    [each.metrics[f"held_out/{name}"] - each.metrics[f"before/{name}"] for each in found],
                    target=0.0 if claimed else None,
                    better="lower",
                )
                for name in ("wrong_facts", "topic_drift", "rudeness")
            ),
        ],
        options,
        settings={"events": events, "seeds": len(found), "median gain": median(each.gain for each in found)},
    )


def _run(events: int, seed: int) -> Found:
    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        console = Console(file=io.StringIO())  # bars of several places would write over each other
        found = simulate_live(Path(name), Visit(events=events, longest_s=LONGEST_S, seed=seed), None, console)
        print(
            f"seed {seed}: gold {found.gain:+.3f} [{found.gain_low:+.3f}, {found.gain_high:+.3f}], "
            f"{found.live} of {found.events} live, median {_known(found.median_live_s):.0f} s, {found.seconds:.0f} s",
            flush=True,
        )
        return found


def _known(seconds: float | None) -> float:
    return float("inf") if seconds is None else seconds


def _count(name: str, hits: list[bool], claimed: bool) -> Figure:
    value = float(sum(hits))
    return Figure(name, value, value, value, 0.9 * len(hits) if claimed else None)


if __name__ == "__main__":
    main()
