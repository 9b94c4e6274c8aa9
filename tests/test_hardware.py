"""What of the machine is used: threads, the type of matrix products, blocks kept by the allocator."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import cast

import pytest
import torch

from rewardloop import hardware
from rewardloop.errors import ConfigError
from rewardloop.hardware import Precision, compute_dtype, computing_in, set_up_threads


def test_threads_are_set_and_zero_means_every_core() -> None:
    before = torch.get_num_threads()
    try:
        set_up_threads(1)
        assert torch.get_num_threads() == 1
        set_up_threads(0)
        assert torch.get_num_threads() == hardware.available_cores()
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="given -1"):
        set_up_threads(-1)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_takes_bfloat16_where_hardware_has_it(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: fast)
    assert compute_dtype("auto", "cpu") == (torch.bfloat16 if fast else torch.float32)
    assert compute_dtype("bfloat16", "cpu") == torch.bfloat16
    assert compute_dtype("float32", "cpu") == torch.float32
    with pytest.raises(ConfigError, match=r"'half'.*auto, float32, bfloat16"):
        compute_dtype(cast(Precision, "half"), "cpu")


def test_float32_within_bfloat16_is_float32() -> None:
    weight = torch.ones(2, 2)
    with computing_in(torch.bfloat16, "cpu"):
        assert (weight @ weight).dtype == torch.bfloat16
        with computing_in(torch.float32, "cpu"):
            assert (weight @ weight).dtype == torch.float32
    assert (weight @ weight).dtype == torch.float32


BLOCKS = """
import resource, sys, torch
from rewardloop.hardware import keep_large_blocks
if sys.argv[1] == "kept" and not keep_large_blocks():
    sys.exit(77)
for _ in range(10):  # until every block has found its place
    torch.empty(1 << 24).fill_(0.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.empty(1 << 24).fill_(0.0)  # 64 MiB: 16,384 pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of glibc is meant")
def test_large_blocks_are_faulted_in_once() -> None:
    faults = {}
    for kind in ("as it comes", "kept"):
        run = subprocess.run(
            [sys.executable, "-c", BLOCKS, kind],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if run.returncode == 77:
            pytest.skip("no glibc")
        faults[kind] = int(run.stdout)
    assert faults["kept"] < 100 < faults["as it comes"]


HOLES = """
import sys, psutil, torch
from rewardloop.hardware import keep_large_blocks, return_free_memory
if not keep_large_blocks():
    sys.exit(77)
blocks = [torch.empty(1 << 20).fill_(0.0) for _ in range(100)]  # 4 MiB each
del blocks[1::2]  # what stays is on both sides of every hole
before = psutil.Process().memory_info().rss
if not return_free_memory():
    sys.exit(77)
print((before - psutil.Process().memory_info().rss) >> 20, sum(float(block.sum()) for block in blocks))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the allocator of glibc is meant")
def test_holes_between_blocks_in_use_go_back() -> None:
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True)
    if run.returncode == 77:
        pytest.skip("no glibc")
    assert run.returncode == 0, run.stderr
    returned, total = run.stdout.split()
    assert int(returned) > 150  # of 200 MiB
    assert float(total) == 0.0
