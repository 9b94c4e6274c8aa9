"""What every benchmark shares: options, figures, alternation, medians with spread, table and JSON.

A benchmark is one command, `python benchmarks/NAME.py [--quick] [--json FILE] [--threads N]`, and reads:

    options = parse_options(__doc__)
    samples = alternate({"ours": run_ours, "theirs": run_theirs}, rounds=3)   # A B A B A B
    report(title, [ratio("speedup", samples["theirs"], samples["ours"], target=2.5)], options)

What is compared runs in turn, so that a busy minute of the computer falls on all; ratios are taken pair by
pair. All compute in the same type (`common_precision`). Nothing imports torch before it is called for.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from rich.console import Console
from rich.table import Table

from rewardloop.files import written_whole

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")

# glibc hands blocks above 32 MiB back to the kernel at every free, so that each tensor the size of the logits
# is faulted in anew, page by page. "malloc tuned" keeps them; it helps whoever has such tensors.
MALLOC_TUNED: Final = {"MALLOC_MMAP_THRESHOLD_": str(8 << 30), "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}

# Idle threads of ours sleep, as every command of ours has it: on a busy computer spinning ones take the cores.
OURS: Final = {"OMP_WAIT_POLICY": "PASSIVE"}

# Versions that can change a figure, where they are installed.
PACKAGES: Final = ("torch", "transformers", "tokenizers", "numpy", "trl", "accelerate", "datasets")


# ---------------------------------------------------------------- options


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    quick: bool
    json: Path | None
    threads: int


def parse_options(description: str | None, arguments: Sequence[str] | None = None) -> Options:
    """--quick, --json FILE, --threads N; `description` is the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, versions and settings here")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="compute threads (default: 2)")
    given = parser.parse_args(arguments)
    return Options(given.quick, given.json, given.threads)


# ---------------------------------------------------------------- figures


@dataclass(frozen=True, slots=True)
class Figure:
    """One number: median, smallest and largest sample, and the target it was to meet, if there is one."""

    name: str
    value: float
    low: float
    high: float
    target: float | None = None
    better: Literal["higher", "lower"] = "higher"

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


def spread(
    name: str,
    samples: Iterable[float],
    *,
    target: float | None = None,
    better: Literal["higher", "lower"] = "higher",
) -> Figure:
    """The median of `samples` between their smallest and largest."""
    samples = list(samples)
    return Figure(name, statistics.median(samples), min(samples), max(samples), target, better)


def ratio(
    name: str,
    above: Sequence[float],
    below: Sequence[float],
    *,
    target: float | None = None,
    better: Literal["higher", "lower"] = "higher",
) -> Figure:
    """above / below, pair by pair: sample i of both was taken in the same round."""
    return spread(name, [a / b for a, b in zip(above, below, strict=True)], target=target, better=better)


def alternate(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run all contenders in turn, `rounds` times: A B A B ..."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, run in contenders.items():
            print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            results[name].append(run())
    return results


def common_precision() -> Literal["bfloat16", "float32"]:
    """What every contender computes in: bfloat16 where the hardware has it, float32 elsewhere.

    Emulated bfloat16 is several times slower than float32: a contender left with it would lose by that alone.
    """
    import torch

    from rewardloop.hardware import has_fast_bfloat16

    return "bfloat16" if has_fast_bfloat16("cuda" if torch.cuda.is_available() else "cpu") else "float32"


def precision_note() -> str:
    """The line of a report that says what was computed in."""
    why = "as the hardware does" if common_precision() == "bfloat16" else "the hardware has no bfloat16"
    return f"Every contender computes in {common_precision()}: {why}."


def require(*packages: str) -> None:
    """End with one line where a competitor is not installed."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise SystemExit(f"this benchmark needs {', '.join(missing)}: pip install {' '.join(missing)}")


def time_call(run: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# ---------------------------------------------------------------- report


def report(
    title: str,
    figures: Sequence[Figure],
    options: Options,
    settings: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print the table and the notes below it; write the JSON file where one was asked for."""
    all_versions = versions()
    all_settings = {"quick": options.quick, "threads": options.threads, **(settings or {})}
    table = Table(title=title, caption=", ".join(f"{name} {value}" for name, value in all_versions.items()))
    table.add_column("figure")
    for heading in ("median", "low", "high", "target", ""):
        table.add_column(heading, justify="right")
    for figure in figures:
        table.add_row(*_cells(figure))
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)
    if options.json is not None:
        rows = [asdict(figure) for figure in figures]
        document = {"figures": rows, "versions": all_versions, "settings": all_settings}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _cells(figure: Figure) -> tuple[str, ...]:
    sign = "≥" if figure.better == "higher" else "≤"
    target = "" if figure.target is None else f"{sign} {figure.target:g}"
    verdict = {None: "", True: "[blue]met[/]", False: "[bold yellow]missed[/]"}[figure.met]
    return (figure.name, f"{figure.value:.4g}", f"{figure.low:.4g}", f"{figure.high:.4g}", target, verdict)


def versions() -> dict[str, str]:
    """Python, the packages that matter, processor and system."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | {"cpu": _cpu_name(), "system": f"{platform.system()} {platform.machine()}"}


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {names[0] if names else platform.processor() or platform.machine()}"


# ---------------------------------------------------------------- workers


@dataclass(frozen=True, slots=True)
class WorkerRun:
    """What a contender in a process of its own did."""

    step_s: tuple[float, ...]  # of every step after the first
    first_step_s: float  # from the start of the process to the end of its first step
    first_peak_bytes: int  # resident, up to the end of the first step
    peak_bytes: int  # resident


class WorkerError(RuntimeError):
    """A contender ended with an error; the message holds the end of what it said."""


def run_worker(
    module: str, *arguments: object, threads: int, environment: Mapping[str, str] | None = None
) -> WorkerRun:
    """Run `python -m module arguments` in the benchmarks folder, and time the steps that it announces.

    Raises WorkerError when it fails.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    variables = _worker_environment(threads) | dict(environment or {})
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        pipes = {"stdout": subprocess.PIPE, "stderr": said, "text": True}
        with subprocess.Popen(command, cwd=Path(__file__).parent, env=variables, **pipes) as process:
            try:
                ends, peaks = _announced(process.stdout)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0 or not ends:
            said.seek(0)
            raise WorkerError(f"{module} ended with code {process.returncode}:\n{said.read()[-2000:]}")
    steps = tuple(b - a for a, b in pairwise(ends))
    return WorkerRun(steps, ends[0] - start, peaks[0], max(peaks))


def _announced(lines: Iterable[str]) -> tuple[list[float], list[int]]:
    """When each step was announced, and the peak memory so far."""
    ends, peaks = [], []
    for line in lines:
        if line.startswith('{"peak_bytes"'):  # a trainer may print lines of its own
            ends.append(time.perf_counter())
            peaks.append(json.loads(line)["peak_bytes"])
    return ends, peaks


def announce_step() -> None:
    """Called by a worker at the end of each training step: its peak memory so far, as one line of JSON."""
    print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)


def forget_peak() -> None:
    """Let `peak_bytes` begin anew at what is resident now, where the system can (Linux)."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def peak_bytes() -> int:
    """Most memory this process had resident so far."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a child begins at what its parent had
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _worker_environment(threads: int) -> dict[str, str]:
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    return {**os.environ, **counts, **quiet}


# ---------------------------------------------------------------- the model everybody gets


def cache_folder() -> Path:
    """Where benchmarks keep what they made: the user's cache, or else a temporary folder."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rewardloop-benchmarks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / "rewardloop-benchmarks"
        folder.mkdir(exist_ok=True)
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="rewardloop-benchmarks-"))


def llama_15m() -> Path:
    """A plain Hugging Face folder: Llama, 15M parameters, random from a seed, and a tokenizer of words.

    288 wide, 6 layers, 6 heads, FFN 768, vocabulary 32,000, head tied to the embedding, 512 positions. It
    never samples the end token, so that every contender does exactly the work that was asked for. Token i is
    the word "w<i>", so that a text of n words is n tokens.
    """
    folder = cache_folder() / "llama-15m"
    if not folder.exists():
        with written_whole(folder) as unfinished:
            _word_tokenizer(vocabulary=32_000).save_pretrained(unfinished)
            _random_llama(vocabulary=32_000).save_pretrained(unfinished)
    return folder


def _random_llama(vocabulary: int) -> PreTrainedModel:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        # One direction of the stream that every token sets, no layer touches, and the end token opposes.
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[0] = 0
            layer.mlp.down_proj.weight[0] = 0
        model.model.embed_tokens.weight[:, 0] = 0.1
        model.model.embed_tokens.weight[config.eos_token_id, 0] = -100
    return model


def _word_tokenizer(vocabulary: int) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    names = [*special.values(), *(f"w{i}" for i in range(len(special), vocabulary))]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, special["unk_token"]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
