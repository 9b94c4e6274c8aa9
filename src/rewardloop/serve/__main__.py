"""python -m rewardloop.serve --data DIR --engine-socket PATH [--host H] [--port P]

Started by `rewardloop up`; the secret of the set-up link comes in the environment.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import NoReturn

import uvicorn

from rewardloop.errors import RewardLoopError
from rewardloop.feedback.log.database import ServingLock, data_url, is_sqlite
from rewardloop.feedback.log.event_log import EventLog
from rewardloop.loop.processes.lifeline import hold_on
from rewardloop.serve.app import make_app
from rewardloop.serve.edge.http import LimitedHttp
from rewardloop.serve.edge.record import set_up_logging
from rewardloop.serve.engine.client import EngineClient
from rewardloop.serve.gateway import Gateway
from rewardloop.serve.state.policy import LEARNER

# How long the event loop and the thread that writes the log keep each other from the interpreter. Each statement of
# SQLite and each system call gives it up; to get it back takes this long while the other is busy. With the usual 5 ms
# a commit takes too long; with half of one they are at each other's heels, and both do less.
SWITCH_S = 0.002
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SETUP_TOKEN = "REWARDLOOP_SETUP_TOKEN"  # noqa: S105 - the name of a variable
OPERATORS = {LEARNER: "REWARDLOOP_LEARNER_TOKEN", "operator": "REWARDLOOP_OPERATOR_TOKEN"}  # whose secret is where


def main() -> None:
    given = _arguments()
    hold_on()
    sys.setswitchinterval(SWITCH_S)
    set_up_logging()
    database = given.database or data_url(given.data)
    try:
        log = EventLog(database)
        serving = None if is_sqlite(database) else ServingLock(database)
    except RewardLoopError as error:
        _fail(str(error))
    engine = EngineClient(socket=given.engine_socket, url=given.engine_url)
    gateway = Gateway(
        data=given.data,
        log=log,
        engine=engine,
        model_title=given.title,
        has_world=given.world,
        setup_token=os.environ.pop(SETUP_TOKEN, None),
        operators={name: secret for name, variable in OPERATORS.items() if (secret := os.environ.pop(variable, None))},
    )
    if given.host not in LOOPBACK and not gateway.accounts.owned:
        _fail(f"--host {given.host}: set this place up on 127.0.0.1 first, then open it to others")
    app = make_app(gateway, hosts={*LOOPBACK, given.host, *given.allow_host})
    gc.freeze()  # what is here by now stays: to search it for garbage took 100 ms, once a second under load
    uvicorn.run(
        app,
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        http=LimitedHttp,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
        ws_max_size=1 << 20,
    )
    if serving is not None:
        serving.release()


def _fail(message: str) -> NoReturn:
    """Code 2 and one line: the supervisor shows it, and does not try again."""
    print(f"error: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--database", help="URL of the database; default: SQLite in --data")
    parser.add_argument("--engine-socket")
    parser.add_argument("--engine-url", help="a vLLM server in place of the engine")
    parser.add_argument("--title", default="model", help="what the page calls the model")
    parser.add_argument("--world", action="store_true", help="the model talks about the sandbox's town")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--allow-host", action="append", default=[], help="another name that this place answers to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
