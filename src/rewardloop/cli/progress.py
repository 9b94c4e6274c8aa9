"""How a long run shows itself: a live line with bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rewardloop.loop.recipe import Recipe
from rewardloop.loop.run import Watch


@contextmanager
def watch_run(console: Console, recipe: Recipe) -> Iterator[Watch]:
    """A callback that shows each iteration; measurements stay on the screen as lines."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("learning", total=recipe.most_iterations, figures="")

        def watch(metrics: Mapping[str, float]) -> None:
            figures = (
                f"reward {metrics['reward/score']:+.2f}  KL {metrics['policy/kl']:.1f}"
                if "policy/kl" in metrics
                else ""
            )
            bar.update(task, completed=metrics["loop/iteration"], figures=figures)
            if "held_out/gain" in metrics:
                console.print(describe(metrics), highlight=False)

        yield watch


def describe(metrics: Mapping[str, float]) -> str:
    """One measurement in one line."""
    parts = [
        f"[bold]{metrics['loop/events']:4.0f}[/] events",
        f"iteration {metrics['loop/iteration']:3.0f}",
        f"gain [bold]{metrics['held_out/gain']:+.3f}[/] "
        f"\\[{metrics['held_out/gain_low']:+.3f}, {metrics['held_out/gain_high']:+.3f}]",
        f"win rate {metrics['held_out/win_rate']:.2f}",
    ]
    if "held_out/proxy" in metrics:
        parts.append(f"reward {metrics['held_out/proxy']:+.2f}")
    if "policy/kl" in metrics:
        parts.append(f"KL {metrics['policy/kl']:.1f} nats")
    parts += [f"{label} {metrics[name]:.0%}" for name, label in DEFECTS.items() if name in metrics]
    return "  ".join(parts)


DEFECTS = {
    "held_out/wrong_facts": "wrong facts",
    "held_out/topic_drift": "drift",
    "held_out/rudeness": "rude",
}
