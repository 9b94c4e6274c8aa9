"""`rewardloop up` as a newcomer runs it: the link, a chat with a real model, an engine that is killed, the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from safetensors.torch import load_file

from page_driver import find_chromium
from rewardloop.cli.up import Learning, _engine_threads, _learner
from rewardloop.loop.processes.operator_file import read_operator
from rewardloop.loop.processes.supervisor import new_token
from rewardloop.loop.weights import publish_version
from rewardloop.sandbox.builtin import builtin_model_folder


@contextmanager
def up(folder: Path, *options: str) -> Iterator[tuple[httpx2.Client, subprocess.Popen[str]]]:
    """A running place, and its owner."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", "from rewardloop.cli import main; main()", "up", "--data", str(folder / "data")]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--no-learn", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        link = next((found for line in process.stdout if (found := re.search(r"/setup#(\S+)", line))), None)
        assert link is not None, (folder / "data/logs/engine.log").read_text()
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            given = {"token": link[1], "name": "Ada", "password": "correct horse"}
            assert client.post("/api/setup", json=given).status_code == 201
            yield client, process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def chat(client: httpx2.Client, **extra: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "How many coins for apple pie?"}]
    return {"model": model_of(client), "messages": messages, **extra}


def model_of(client: httpx2.Client) -> str:
    return str(client.get("/v1/models").json()["data"][0]["id"])


def engine_of(process: subprocess.Popen[str]) -> psutil.Process:
    children = psutil.Process(process.pid).children()
    return next(child for child in children if "engine_server" in " ".join(child.cmdline()))


@pytest.mark.timeout(900)
def test_the_page_does_on_the_whole_product_what_it_does_on_its_stand_in(tmp_path: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    find_chromium()
    with up(tmp_path) as (client, _):
        judge_in_a_straight_line(client)
        known = {"URL": str(client.base_url), "USER": "Ada", "PASSWORD": "correct horse"}
        pages = Path(__file__).with_name("test_page.py")
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(pages)],
            env=os.environ | {f"REWARDLOOP_PAGE_{name}": value for name, value in known.items()},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout[-6000:]


def judge_in_a_straight_line(client: httpx2.Client) -> None:
    """Two people who look, and one who says the same forty times."""
    key = client.post("/api/keys", json={"name": "k", "scopes": ["infer", "feedback"]}).json()["key"]
    program = {"headers": {"authorization": f"Bearer {key}"}}
    answer = client.post("/v1/chat/completions", json=chat(client, max_tokens=8), **program).json()["id"]
    items = [
        {"kind": "rating", "target": {"completion_id": answer}, "value": value, "annotator": {"external_id": name}}
        for at in range(33)
        for name, value in (("asleep", 4), ("ann", 1 + at % 5), ("ben", 1 + at * 3 % 5))
    ]
    assert client.post("/v1/feedback/batch", json={"items": items}, **program).status_code == 201


def test_a_first_visit(tmp_path: Path) -> None:
    with up(tmp_path) as (client, process):
        asked = chat(client, seed=3, max_tokens=40, rewards=True, logprobs=True)
        first, second = (client.post("/v1/chat/completions", json=asked).json() for _ in range(2))
        (choice,) = first["choices"]
        assert first["system_fingerprint"] == "v0"
        assert choice["message"]["content"] == second["choices"][0]["message"]["content"]
        assert len(choice["token_rewards"]) == len(choice["logprobs"]["content"]) == first["usage"]["completion_tokens"]

        operator = read_operator(tmp_path / "data")
        assert operator is not None
        steering = {"authorization": f"Bearer {operator.token}"}
        given = load_file(builtin_model_folder() / "model.safetensors")
        changed = {name: 1.02 * value for name, value in given.items()}
        publish_version(tmp_path / "data" / "weights", 1, {"policy": changed}, model="builtin")
        with httpx2.Client(base_url=operator.url, headers=steering) as outside:
            assert outside.post("/api/policy/activate", json={"version": 1}).json()["active"] == 1
        learned = client.post("/v1/chat/completions", json=asked).json()
        assert learned["system_fingerprint"] == "v1"
        assert learned["choices"][0]["logprobs"] != choice["logprobs"]

        endless = chat(client, max_tokens=400, stream=True, logit_bias={"0": -100})
        with client.stream("POST", "/v1/chat/completions", json=endless) as reply:
            lines = reply.iter_lines()
            while "content" not in next(lines):
                pass
            engine = engine_of(process)
            engine.send_signal(signal.SIGKILL)
            killed = time.monotonic()
            rest = [line for line in lines if line]
            assert time.monotonic() - killed < 10
        assert '"code":"engine_unavailable"' in rest[-1]

        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, "the engine was not started again"
            time.sleep(0.1)
        again = client.post("/v1/chat/completions", json=asked).json()
        assert again["system_fingerprint"] == "v1"  # it began with the active version
        assert again["choices"][0]["logprobs"] == learned["choices"][0]["logprobs"]
        children = psutil.Process(process.pid).children(recursive=True)
    assert process.returncode == 0
    assert read_operator(tmp_path / "data") is None
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_the_learner_is_told_where_everything_is(tmp_path: Path) -> None:
    place = ("--data", tmp_path, "--database", "sqlite:///x", "--gateway", "http://127.0.0.1:1")
    secret = new_token()
    program = _learner("builtin", "builtin", place, secret, Learning(recipe=tmp_path / "r.yaml"))
    given = dict(pairwise(program.command))
    assert program.idle
    assert (given["-m"], given["--gateway"], given["--threads"]) == ("rewardloop.loop.live", "http://127.0.0.1:1", "1")
    assert (given["--recipe"], "--world" in given, "--prompts" in given) == (str(tmp_path / "r.yaml"), True, False)
    assert secret not in program.command  # whoever lists processes would see it
    assert program.environment["REWARDLOOP_OPERATOR_TOKEN"] == secret


def test_threads_of_all_programs_never_exceed_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, engine in ((1, 1), (2, 1), (8, 7)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert (_engine_threads(learns=True), _engine_threads(learns=False)) == (engine, cores)


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from rewardloop.cli import main; main()", "up", "--data", str(tmp_path / "data")]
    wrong = subprocess.run(
        [*command, "--model", str(tmp_path / "nothing"), "--port", "18999"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert "nothing" in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 1


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "prompt"), [("stories3M", "Once upon a time"), ("zh-poem-750K", "主题：明月 体裁：五绝\n")]
)
def test_base_models_continue_the_text(shared: Path, tmp_path: Path, name: str, prompt: str) -> None:
    with up(tmp_path, "--model", str(shared / "models" / name)) as (client, _):
        assert client.get("/api/state").json()["model"]["chat"] is False
        asked = {"model": name, "prompt": prompt, "max_tokens": 24, "seed": 1, "stream": True}
        with client.stream("POST", "/v1/completions", json=asked) as reply:
            lines = [line for line in reply.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        text = "".join(re.findall(r'"text":"((?:[^"\\]|\\.)*)"', "\n".join(lines)))
        assert len(text) > 10
        assert "\N{REPLACEMENT CHARACTER}" not in text
        assert client.post("/v1/chat/completions", json=chat(client, max_tokens=5)).status_code == 200
