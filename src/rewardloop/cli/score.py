"""`rewardloop score`: the reward of every token of a text, as colors, numbers, JSON lines or a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from rewardloop.cli.names import known, model_source
from rewardloop.errors import ConfigError, DataError
from rewardloop.evaluate.foresight import FORESIGHT, foresight, load_potential
from rewardloop.evaluate.heatmap import to_rich
from rewardloop.evaluate.page import write_report
from rewardloop.evaluate.report import Language, RunReport
from rewardloop.evaluate.token_rewards import TokenRewards, TokenScorer, color_scale
from rewardloop.evaluate.typicality import TYPICALITY, typicality
from rewardloop.evaluate.words import load_words
from rewardloop.feedback.conversations import is_messages, read_messages
from rewardloop.feedback.edits import split_pieces
from rewardloop.models.language_model import load_language_model
from rewardloop.types import Prompt

Format = Literal["terminal", "json", "html"]


def run(
    prompt: str | None,
    completion: str | None,
    model: str,
    potential: Path | None,
    file: Path | None,
    form: str,
    numbers: bool,
    out: Path | None,
    console: Console,
) -> None:
    """The verb: find the texts and the scorer, then show."""
    if (file is None) == (completion is None):
        raise ConfigError(
            'give a prompt and a completion, as in: rewardloop score "The cat sat on the" "mat"; or --file alone'
        )
    texts = read_texts(file) if file else [(prompt or "", join(prompt or "", completion or ""))]
    if potential is None:
        scorer, meaning = typicality(load_language_model(model_source(model))), TYPICALITY
    else:
        scorer, meaning = foresight(*load_potential(potential)), FORESIGHT
    score(
        texts,
        scorer,
        meaning,
        console,
        form=known("--format", form, "terminal", "json", "html"),
        numbers=numbers,
        out=out,
    )


def score(
    texts: Sequence[tuple[Prompt, str]],
    scorer: TokenScorer,
    meaning: str,
    console: Console,
    *,
    form: Format = "terminal",
    numbers: bool = False,
    out: Path | None = None,
    language: Language = "en",
) -> list[TokenRewards]:
    """Show the immediate reward of every token of `texts` as `scorer` gives it; returns what was shown.

    Args:
        form: "terminal" colors the tokens, "json" writes one line for each text, "html" a page at `out`.
        numbers: in the terminal, each token's reward after it.
        out: file for "html" (its name ends in .html).
        meaning: what the colors stand for, a sentence or the name of one in words.yaml.
    """
    if not texts:
        raise DataError("no text to score; give one, or a file of {prompt, completion} lines with --file")
    scored = [scorer(prompt, completion) for prompt, completion in texts]
    if form == "json":
        for one in scored:
            console.out(json_line(one), highlight=False)
    elif form == "html":
        console.print(f"page: {_write_page(scored, out, meaning, language)}", highlight=False, soft_wrap=True)
    else:
        _show(scored, console, numbers, load_words(language)(meaning))
    return scored


def read_texts(path: Path) -> list[tuple[Prompt, str]]:
    """Texts of a JSON lines file: {"completion": text} with an optional "prompt" (text or messages).

    Raises DataError that names file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} ({error}); expected JSON lines of {{prompt, completion}}") from error
    texts = [_read_text(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not texts:
        raise DataError(f"{path} is empty; expected JSON lines of {{prompt, completion}}")
    return texts


def join(prompt: str, completion: str) -> str:
    """`completion` as it follows `prompt` on the command line: a space goes between two words."""
    if not prompt or not completion or prompt[-1].isspace() or completion[0].isspace():
        return completion
    # characters of scripts without spaces are pieces of their own, two words are not one piece
    seam = split_pieces(prompt)[-1], split_pieces(completion)[0]
    spaced = all(piece.isalnum() and len(split_pieces(piece + "a")) == 1 for piece in seam)
    return f" {completion}" if spaced else completion


def json_line(scored: TokenRewards) -> str:
    """One text as JSON: prompt, completion, tokens with their place and reward, and the sum."""
    prompt: Any = scored.prompt
    if not isinstance(prompt, str):
        prompt = [{"role": message.role, "content": message.content} for message in prompt]
    tokens = [
        {"text": text, "start": start, "end": end, "reward": round(reward, 6)}
        for text, (start, end), reward in zip(scored.tokens, scored.offsets, scored.rewards, strict=True)
    ]
    record = {
        "prompt": prompt,
        "completion": scored.completion,
        "tokens": tokens,
        "sum": round(sum(scored.rewards), 6),
    }
    return json.dumps(record, ensure_ascii=False)


def _read_text(line: str, where: str) -> tuple[Prompt, str]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); expected {{prompt, completion}}") from error
    if not isinstance(record, dict) or not isinstance(record.get("completion"), str):
        raise DataError(f'{where}: no "completion" text; expected {{"prompt": ..., "completion": ...}}')
    prompt = record.get("prompt", "")
    if is_messages(prompt):
        return read_messages(prompt), record["completion"]
    if not isinstance(prompt, str):
        raise DataError(f'{where}: "prompt" is {type(prompt).__name__}; expected a text or a list of messages')
    return prompt, record["completion"]


def _show(scored: Iterable[TokenRewards], console: Console, numbers: bool, meaning: str) -> None:
    scored = list(scored)
    scale = color_scale(scored)
    for one in scored:
        text = Text().append(_prompt_text(one.prompt), "dim")
        text.append_text(to_rich(one, scale, numbers=numbers))
        text.append(f"   sum {sum(one.rewards):+.2f}", style="dim")
        console.print(text, soft_wrap=True, highlight=False)
    console.print(Text(meaning, style="dim italic"))


def _prompt_text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    return "".join(f"{message.role}: {message.content}\n" for message in prompt)


def _write_page(scored: Sequence[TokenRewards], out: Path | None, meaning: str, language: Language) -> Path:
    if out is None or out.suffix != ".html":
        raise ConfigError(f"html goes to a file, given {out}; name one that ends in .html with --out")
    report = RunReport("rewardloop score", (), token_rewards=tuple(scored), token_rewards_meaning=meaning)
    return write_report(report, out.parent, language=language, name=out.stem)
