"""python -m rewardloop.loop.live --data DIR --database URL --model M --name NAME --gateway URL [--world]

The learner as a process. Started by `rewardloop up`, which gives the operator's token in the environment.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

from rewardloop.errors import MemoryFullError, RewardLoopError, StoreError, telling_of_memory
from rewardloop.loop.processes.lifeline import hold_on

OPERATOR_TOKEN = "REWARDLOOP_OPERATOR_TOKEN"  # noqa: S105 - the name of a variable
DATABASE_WAIT_S = 60.0  # the gateway makes the database; it may be a while in coming


def main() -> None:
    given = _arguments()
    hold_on()
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    try:
        with telling_of_memory():
            _learn(given, stopped)
    except (StoreError, MemoryFullError) as error:  # a full disk or memory passes: the supervisor tries again
        _fail(str(error), 1)
    except RewardLoopError as error:
        _fail(str(error), 2)


def _learn(given: argparse.Namespace, stopped: list[int]) -> None:
    # Imported here, so that a wrong argument is told at once.
    from rewardloop.config import resolve_recipe
    from rewardloop.evaluate.defects import find_defects
    from rewardloop.feedback.log.event_log import LogReader
    from rewardloop.feedback.prompts import read_prompts
    from rewardloop.hardware import set_up_threads
    from rewardloop.loop.live.learner import LiveLearner, Place
    from rewardloop.loop.live.stage import GatewayStage
    from rewardloop.loop.recipe import Recipe
    from rewardloop.models.language_model import load_language_model
    from rewardloop.sandbox.dialogues import training_prompts
    from rewardloop.sandbox.world import build_world
    from rewardloop.types import Prompt

    recipe = resolve_recipe(Recipe, given.recipe, given.set)
    set_up_threads(given.threads)
    policy = load_language_model(given.model)
    prompts: list[Prompt] = list(read_prompts(given.prompts)) if given.prompts else []
    defects = None
    if given.world:
        world = build_world(given.world_seed)
        prompts += training_prompts(world)
        defects = partial(find_defects, world)
    deadline = time.monotonic() + DATABASE_WAIT_S
    while True:
        try:
            log = LogReader(given.database)
            break
        except StoreError:
            if stopped or time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    place = Place(
        log,
        given.data / "weights",
        GatewayStage(given.gateway, os.environ.pop(OPERATOR_TOKEN, "")),
        given.name,
        given.settling_s,
    )
    with alone(given.data):
        LiveLearner(policy, place, prompts, recipe, defects).run(lambda: not stopped)


@contextmanager
def alone(data: Path) -> Iterator[None]:
    """Wait until no other learner writes the registry: one that was left behind may still be dying."""
    with (data / "learner.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)  # noqa: T201 - the supervisor reads it
    sys.exit(code)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--database", required=True, help="URL of the event log")
    parser.add_argument("--model", required=True, help="folder of the untouched model")
    parser.add_argument("--name", required=True, help="what the model is called in manifests")
    parser.add_argument("--gateway", required=True, help="URL of the gateway")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--world", action="store_true", help="the model talks about the sandbox's town")
    parser.add_argument("--world-seed", type=int, default=0)
    parser.add_argument("--prompts", type=Path, help="prompts to practice on, beside those that people ask")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE, over the recipe")
    parser.add_argument("--settling-s", type=float, default=3.0, help="seconds in which a judgment can be undone")
    return parser.parse_args()


if __name__ == "__main__":
    main()
