"""Through the front door: what a user does wrong becomes one line and exit code 2, Ctrl-C 130, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rewardloop import files
from rewardloop.cli.app import main
from rewardloop.errors import MemoryFullError, ModelError, telling_of_memory
from rewardloop.loop.learner import Learner
from rewardloop.models.language_model import load_language_model
from rewardloop.sandbox.builtin import builtin_model_folder

SMALL = [
    *("--set", "iterations=2", "--set", "evaluate_every=1", "--set", "reference_samples=64", "--set", "threads=1"),
    *("--set", "sampling.prompts=2", "--set", "sampling.max_tokens=16", "--set", "asking.events=8"),
    *("--set", "asking.per_round=4", "--set", "asking.every=1"),
]


def _call(*arguments: str) -> int:
    """Exit code of `rewardloop ARGUMENTS`, in this process."""
    sys.argv = ["rewardloop", *arguments]
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def _refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refusal says."""
    assert _call(*arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


@pytest.fixture
def broken_model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(builtin_model_folder(), folder)
    return folder


def test_a_full_memory_is_told_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = ("simulate", "--out", str(tmp_path / "run"), "--set", "sampling.slots=20000000")
    said = _refused(capsys, *asked)
    assert "the memory is full (" in said
    assert "GiB more were asked for); take a smaller model, fewer sampling.slots" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has"), "(20.50 GiB more were"),
        (MemoryError(), "the memory is full; take"),
    ],
)
def test_other_allocators_are_understood(error: Exception, said: str) -> None:
    with pytest.raises(MemoryFullError, match=re.escape(said)), telling_of_memory():
        raise error


def test_other_errors_are_left_as_they_are() -> None:
    for error in (RuntimeError("shapes differ"), ModelError("no such folder")):
        with pytest.raises(type(error), match=str(error)), telling_of_memory():
            raise error


def test_unknown_names_and_numbers_out_of_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean optimizer.lr?" in _refused(capsys, "simulate", "--set", "optimizer.lrr=1")
    assert "optimizer.lr must be above 0" in _refused(capsys, "simulate", "--set", "optimizer.lr=-1")
    assert "known: default, reinforce" in _refused(capsys, "simulate", "--set", "optimizer.method=magic")
    assert "unknown annotators grumpy" in _refused(capsys, "simulate", "--annotators", "grumpy")
    assert "No such command" in _refused(capsys, "teleport")
    assert "No such option" in _refused(capsys, "simulate", "--speed", "9")


def test_model_folders_that_cannot_be_used(capsys: pytest.CaptureFixture[str], broken_model: Path) -> None:
    assert "no model folder" in _refused(capsys, "evaluate", "--model", str(broken_model / "nowhere"))
    (broken_model / "model.safetensors").rename(broken_model / "pytorch_model.bin")
    assert "safetensors" in _refused(capsys, "evaluate", "--model", str(broken_model))


def test_a_tokenizer_without_an_end_token(capsys: pytest.CaptureFixture[str], broken_model: Path) -> None:
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        values = json.loads((broken_model / name).read_text())
        kept = {key: value for key, value in values.items() if not key.startswith("eos_token")}
        (broken_model / name).write_text(json.dumps(kept))
    assert "end token" in _refused(capsys, "evaluate", "--model", str(broken_model))


def test_a_prompt_longer_than_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    assert "shorten the prompt" in _refused(capsys, "score", "honey " * 2000, "and bread")


def test_feedback_files_that_cannot_be_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "feedback.jsonl"
    record = {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}

    def refused(text: str) -> str:
        file.write_text(text)
        return _refused(capsys, "train-reward", str(file), "--out", str(tmp_path / "reward"), "--frozen")

    assert "is empty" in refused("")
    assert "feedback.jsonl:2" in refused(json.dumps(record) + "\n{half a rec")
    assert "equal" in refused(json.dumps(record | {"rejected": "Hello!"}) + "\n")
    assert not (tmp_path / "reward").exists()


def test_full_disk_and_interruption_leave_a_run_that_goes_on(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    command = ["simulate", "--out", str(out), *SMALL]
    real_iterate = Learner.iterate

    def interrupted(self: Learner, prompts: object, source: object, iteration: int, **settings: object) -> object:
        if iteration == 1:
            raise KeyboardInterrupt
        return real_iterate(self, prompts, source, iteration, **settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "iterate", interrupted)
        assert _call(*command) == 130
    assert "run the same command again" in capsys.readouterr().err
    before = (out / "generation" / "state.safetensors").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        assert "No space left" in _refused(capsys, *command)
    assert (out / "generation" / "state.safetensors").read_bytes() == before
    assert not (out / "policy").exists()

    assert _call(*command) == 0
    assert (out / "report.html").exists()
    assert not [path for path in out.rglob("*") if path.name.endswith((".tmp", ".old"))]
    moved = load_language_model(out / "policy").model.state_dict()
    base = load_language_model(builtin_model_folder()).model.state_dict()
    assert any(not torch.equal(moved[name], base[name]) for name in base)
    capsys.readouterr()
    assert _call("score", "Where can I buy honey?", "Go away.", "--potential", str(out), "--format", "json") == 0
    scored = json.loads(capsys.readouterr().out)
    assert sum(token["reward"] for token in scored["tokens"]) == pytest.approx(scored["sum"], abs=1e-4)


def test_help_and_import_need_no_torch() -> None:
    code = (
        "import sys, rewardloop; sys.argv = ['rewardloop', '--help']\n"
        "from rewardloop.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "simulate" in ended.stdout
