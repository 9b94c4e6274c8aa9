"""A gateway that was killed is up again soon: it imports no more than it serves with."""

from __future__ import annotations

import subprocess
import sys

from argon2 import extract_parameters

from rewardloop.serve.state.passwords import HASHER, NOBODY


def test_the_gateway_starts_without_what_is_slow_to_import() -> None:
    """Kept out: what only measuring people needs, and what only the engine needs."""
    slow = {"torch", "transformers", "scipy", "pandas", "sklearn", "krippendorff", "huggingface_hub"}
    program = f"import sys, rewardloop.serve.__main__; print(*({slow!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_an_unknown_name_costs_a_guesser_what_a_known_one_does() -> None:
    assert extract_parameters(NOBODY) == extract_parameters(HASHER.hash("x"))
