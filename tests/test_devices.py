"""What loads models runs on a device that is not the processor, too: what would fail on a GPU fails there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rewardloop.rollout.kernels import find_compiler

# Tests whose models are loaded where the best device is.
WITH_MODELS = (
    *("test_elsewhere.py", "test_engine_server.py", "test_loop.py", "test_reward_backbones.py"),
    *("test_cli.py", "test_cli_optimize.py", "test_cli_train_reward.py"),
    "test_live.py::test_harm_that_is_served_is_rolled_back_at_the_next_look",
    "test_live.py::test_a_pause_holds_and_a_roll_back_is_obeyed",
)


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_all_that_loads_models_runs_on_a_device_that_is_not_the_processor() -> None:
    here = Path(__file__).parent
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "--device",
            "foreign",
            *(str(here / name) for name in WITH_MODELS),
        ],
        cwd=here.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
