"""The command line: `rewardloop VERB --help`.

Errors that a user can mend become one line and exit code 2; Ctrl-C becomes exit code 130.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from rewardloop.environment import FEW_KERNELS
from rewardloop.errors import ConfigError, RewardLoopError, telling_of_memory

# Numerical libraries read these once, when they are first imported; idle threads must sleep, not spin.
for _name, _value in {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false", **FEW_KERNELS}.items():
    os.environ.setdefault(_name, _value)
# The network is used only where the user names a model that is not on this disk.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

INTERRUPTED = 130  # what the parser makes of Ctrl-C

app = typer.Typer(
    name="rewardloop",
    help="Any judgment becomes one reward for every token, at once; a language model learns from it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="YAML file of settings; see docs/recipes.md.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting: --set optimizer.lr=1e-4. Repeatable.")
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same bits.")]
ReportLanguage = Annotated[str, typer.Option("--language", help="Language of the report: en or zh.")]


feedback_app = typer.Typer(help="Feedback in files and in a data directory.", no_args_is_help=True)
app.add_typer(feedback_app, name="feedback")
policy_app = typer.Typer(help="Versions of what is served: list them, choose one, go back.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")

DataFolder = Annotated[Path, typer.Option("--data", help="Data directory of the installation.")]


@app.command()
def up(
    model: Annotated[str, typer.Option("--model", help="Model to serve: folder, hub id or 'builtin'.")] = "builtin",
    data: Annotated[Path, typer.Option("--data", help="Where everything that people say is kept.")] = Path(
        "rewardloop-data"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8000,
    database: Annotated[
        str | None, typer.Option("--database", help="postgresql://USER@HOST/NAME; default: a file in --data.")
    ] = None,
    no_learn: Annotated[
        bool, typer.Option("--no-learn", help="Keep what people say, and do not learn from it.")
    ] = False,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Practice on these prompts: text lines or any feedback layout.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Speak faster: compile the decode step; needs a C++ compiler.")
    ] = False,
    recipe: RecipeFile = None,
    seed: Seed = 0,
) -> None:
    """Serve a model to any OpenAI client and to people in a browser, and learn from what they say of its answers."""
    from rewardloop.cli.up import Learning
    from rewardloop.cli.up import up as run

    learning = None if no_learn else Learning(prompts, recipe, seed)
    run(model, data, host, port, database, Console(), learning, compiled=compiled)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; an interrupted run goes on.")] = Path(
        "runs/simulate"
    ),
    model: Annotated[Path | None, typer.Option("--model", help="Model folder; default: the built-in one.")] = None,
    world_seed: Annotated[int, typer.Option(help="Which town to play in.")] = 0,
    annotators: Annotated[str, typer.Option(help="Kinds in turn, e.g. careful,careful,noisy.")] = "careful",
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    language: ReportLanguage = "en",
    seed: Seed = 0,
    live: Annotated[
        bool, typer.Option("--live", help="Through the real server: people come by HTTP, and it learns meanwhile.")
    ] = False,
) -> None:
    """The whole loop with simulated annotators: a model learns, with proof. Without --live no server, no network."""
    if live:
        from rewardloop.cli.simulate_live import Visit, simulate_live

        if model is not None or world_seed or overrides:
            raise ConfigError("--live plays in the built-in model's own town by a --recipe file; leave the rest out")
        simulate_live(out, Visit(annotators, seed=seed), recipe, Console())
        return
    from rewardloop.cli.names import known
    from rewardloop.cli.simulate import simulate as run

    written_in = known("--language", language, "en", "zh")
    run(out, model, world_seed, annotators, recipe, [f"seed={seed}", *(overrides or [])], Console(), written_in)


@app.command("train-reward")
def train_reward(
    feedback: Annotated[
        list[Path], typer.Argument(help="Files or folders of feedback, any layout of docs/feedback.md.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where the reward model goes.")] = Path("runs/reward"),
    backbone: Annotated[
        str, typer.Option("--backbone", help="Causal LM or encoder: folder or hub id; 'builtin'.")
    ] = "builtin",
    layout: Annotated[str | None, typer.Option(help="Layout of the files; default: found by looking.")] = None,
    held_out: Annotated[float, typer.Option(help="Share of the prompts kept for measuring.")] = 0.2,
    half: Annotated[str | None, typer.Option(help="'a' or 'b': train on one half of the training prompts.")] = None,
    frozen: Annotated[bool, typer.Option(help="Train the head alone on a frozen trunk (fast).")] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the judgments.")] = 1,
    lr: Annotated[float | None, typer.Option(help="Learning rate; default: by size of the backbone.")] = None,
    seed: Seed = 0,
) -> None:
    """Learn a reward from what people said, and measure it beside two baselines."""
    from rewardloop.cli.train_reward import train_reward as run

    run(
        feedback,
        out,
        backbone=backbone,
        layout=layout,
        held_out=held_out,
        half=half,
        frozen=frozen,
        epochs=epochs,
        lr=lr,
        seed=seed,
        console=Console(),
    )


@app.command()
def optimize(
    policy: Annotated[str, typer.Option("--policy", help="Causal LM to improve: folder, hub id or 'builtin'.")],
    reward: Annotated[Path, typer.Option("--reward", help="Reward model made by train-reward.")],
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", help="Prompts: text lines or any feedback layout; default: those the reward was trained on."
        ),
    ] = None,
    second: Annotated[
        Path | None, typer.Option("--second", help="A second reward model that measures only (a proxy for gold).")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; an interrupted run goes on.")] = Path(
        "runs/optimize"
    ),
    method: Annotated[str | None, typer.Option(help="A row of docs/methods.md, e.g. rloo, grpo, ppo.")] = None,
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    language: ReportLanguage = "en",
    seed: Seed = 0,
) -> None:
    """Improve a policy against a reward; shows reward against KL, a second judge, and samples."""
    from rewardloop.cli.names import known
    from rewardloop.cli.optimize import optimize as run

    settings = [f"seed={seed}", *([f"optimizer.method={method}"] if method else []), *(overrides or [])]
    written_in = known("--language", language, "en", "zh")
    run(policy, reward, prompts, second, out, recipe, settings, Console(), written_in)


@app.command()
def score(
    prompt: Annotated[str | None, typer.Argument(help="What comes before.")] = None,
    completion: Annotated[str | None, typer.Argument(help="The text to color.")] = None,
    model: Annotated[str, typer.Option("--model", help="Causal LM: folder, hub id or 'builtin'.")] = "builtin",
    potential: Annotated[
        Path | None, typer.Option("--potential", help="Learned potential: the folder of a run, or its potential/.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="JSON lines of {prompt, completion}.")] = None,
    form: Annotated[str, typer.Option("--format", help="terminal, json or html.")] = "terminal",
    numbers: Annotated[bool, typer.Option("--numbers", help="Each token's reward after it.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="File for html.")] = None,
) -> None:
    """The immediate reward of every token of a text, in color."""
    from rewardloop.cli.score import run

    run(prompt, completion, model, potential, file, form, numbers, out, Console())


@app.command()
def evaluate(
    model: Annotated[str, typer.Option("--model", help="Causal LM: folder, hub id or 'builtin'.")],
    against: Annotated[str | None, typer.Option("--against", help="The model before; compares the two.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for report.html and report.json.")] = Path("runs/evaluate"),
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="Your own prompts; needs --reward or --detector.")
    ] = None,
    reward: Annotated[Path | None, typer.Option("--reward", help="Reward model that judges the answers.")] = None,
    most: Annotated[int, typer.Option("--most", min=1, help="Most prompts asked, drawn by the seed.")] = 200,
    answers: Annotated[int, typer.Option("--answers", min=1, help="Answers sampled to each prompt.")] = 2,
    detectors: Annotated[
        list[Path] | None, typer.Option("--detector", help="File of train-detector, e.g. of harm. Repeatable.")
    ] = None,
    grounded: Annotated[
        bool, typer.Option("--grounded", help="Prompts hold the source: count names and numbers it lacks.")
    ] = False,
    choices: Annotated[
        Path | None, typer.Option("--choices", help="Questions with right and wrong answers: MC1 and MC2.")
    ] = None,
    world_seed: Annotated[int, typer.Option(help="Which town to ask about.")] = 0,
    language: ReportLanguage = "en",
    seed: Seed = 0,
) -> None:
    """Defects, win rate, KL, length, repetition, truth: one model, or before against after."""
    from rewardloop.cli.evaluate import Sampling
    from rewardloop.cli.evaluate import evaluate as run
    from rewardloop.cli.exam import Asked
    from rewardloop.cli.names import known, model_source

    run(
        model_source(model),
        model_source(against) if against else None,
        out,
        Console(),
        asked=Asked(prompts, reward, most, detectors or (), grounded, choices, world_seed),
        sampling=Sampling(per_prompt=answers, seed=seed),
        language=known("--language", language, "en", "zh"),
    )


@feedback_app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Files or folders of feedback, any layout of docs/feedback.md.")],
    data: DataFolder = Path("rewardloop-data"),
    layout: Annotated[str | None, typer.Option(help="Layout of the files; default: found by looking.")] = None,
) -> None:
    """Store feedback from files, as if it had been given here; what was imported before is recognized."""
    from rewardloop.cli.feedback import import_files as run

    run(files, data, layout, Console())


@feedback_app.command()
def agreement(
    files: Annotated[list[Path], typer.Argument(help="Files or folders of feedback, any layout of docs/feedback.md.")],
    layout: Annotated[str | None, typer.Option(help="Layout of the files; default: found by looking.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document in place of a table.")] = False,
    seed: Seed = 0,
) -> None:
    """How far people agree with each other, question by question (Krippendorff's alpha with intervals)."""
    from rewardloop.cli.quality import agreement as run

    run(files, layout, as_json, Console(), seed)


@feedback_app.command()
def annotators(
    files: Annotated[list[Path], typer.Argument(help="Files or folders of feedback, any layout of docs/feedback.md.")],
    layout: Annotated[str | None, typer.Option(help="Layout of the files; default: found by looking.")] = None,
    criterion: Annotated[str | None, typer.Option(help="Default: the one that most judgments name.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document in place of a table.")] = False,
    seed: Seed = 0,
) -> None:
    """How far each person can be trusted: reliability with interval, severity, lapses, side bias, signs."""
    from rewardloop.cli.quality import annotators as run

    run(files, layout, criterion, as_json, Console(), seed)


@feedback_app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Folder of the export: the files and their manifest.")],
    data: DataFolder = Path("rewardloop-data"),
    files: Annotated[list[Path] | None, typer.Option("--from", help="Files instead of the data directory.")] = None,
    layout: Annotated[str, typer.Option(help="A layout of docs/storage.md, e.g. trl-preference.")] = "rewardloop",
    form: Annotated[str, typer.Option("--format", help="jsonl or parquet.")] = "jsonl",
    kinds: Annotated[list[str] | None, typer.Option("--kind", help="Only this kind. Repeatable.")] = None,
) -> None:
    """Write feedback for other programs: TRL, HH-RLHF, Argilla, Label Studio, Open WebUI, or our own layout."""
    from rewardloop.cli.feedback import export_files as run
    from rewardloop.cli.names import known

    run(out, data, files or [], layout, known("--format", form, "jsonl", "parquet"), kinds or [], Console())


Why = Annotated[str, typer.Option("--reason", help="Kept in the record.")]
OtherDatabase = Annotated[
    str | None, typer.Option("--database", help="As for up; only needed while nothing runs. Default: a file in --data.")
]


@policy_app.command("list")
def list_policies(data: DataFolder = Path("rewardloop-data"), database: OtherDatabase = None) -> None:
    """All versions, the newest first: what was found of each, and which one is served."""
    from rewardloop.cli.policy import list_versions as run

    run(data, database, Console())


@policy_app.command()
def activate(
    version: Annotated[int, typer.Argument(help="Number of the version; 0 is the model as it was given.", min=0)],
    data: DataFolder = Path("rewardloop-data"),
    reason: Why = "",
    database: OtherDatabase = None,
) -> None:
    """Serve this version, now or from the next start on."""
    from rewardloop.cli.policy import activate as run

    run(data, database, version, reason, Console())


@policy_app.command()
def rollback(data: DataFolder = Path("rewardloop-data"), reason: Why = "", database: OtherDatabase = None) -> None:
    """Serve the version that was active before."""
    from rewardloop.cli.policy import roll_back as run

    run(data, database, reason, Console())


@policy_app.command()
def pause(data: DataFolder = Path("rewardloop-data"), reason: Why = "", database: OtherDatabase = None) -> None:
    """Let learning rest; what people say is kept."""
    from rewardloop.cli.policy import set_paused as run

    run(data, database, True, reason, Console())


@policy_app.command()
def resume(data: DataFolder = Path("rewardloop-data"), reason: Why = "", database: OtherDatabase = None) -> None:
    """Let learning go on."""
    from rewardloop.cli.policy import set_paused as run

    run(data, database, False, reason, Console())


@app.command("train-detector")
def train_detector(
    feedback: Annotated[list[Path], typer.Argument(help="Rated or flagged texts, any layout of docs/feedback.md.")],
    name: Annotated[str, typer.Option("--name", help="What a low rating or a flag means: harm, refusal, ...")] = "harm",
    out: Annotated[Path | None, typer.Option("--out", help="File of weights; default: runs/NAME.safetensors.")] = None,
    layout: Annotated[str | None, typer.Option(help="Layout of the files; default: found by looking.")] = None,
    half: Annotated[
        str | None, typer.Option(help="'a' or 'b', as in train-reward: judge by the half not trained on.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Learn to find one defect in texts, with 1 % false alarms, for evaluate --detector."""
    from rewardloop.cli.train_detector import train_detector as run

    out = out or Path("runs") / f"{name}.safetensors"
    run(feedback, out, name=name, layout=layout, half=half, seed=seed, console=Console())


@app.command()
def doctor() -> None:
    """What this machine has and what rewardloop will use of it."""
    from rewardloop.cli.doctor import doctor as run

    run(Console())


def main() -> None:
    """Entry point: translates every error of a user into one line."""
    try:
        with telling_of_memory():
            code = app(standalone_mode=False)
    except RewardLoopError as error:
        _fail(str(error))
    except Exception as error:
        # The parser's own complaints (unknown option, missing argument) know how to say themselves.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if not message():  # the help was asked for by giving nothing
            sys.exit(2)
        _fail(message())
    if code == INTERRUPTED:
        Console(stderr=True).print("stopped; run the same command again to go on", style="yellow")
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
    sys.exit(2)
