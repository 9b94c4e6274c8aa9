"""Simulated annotators: people of known character who give every kind of feedback on any text.

They know the gold verdict and report it through their character. What one says depends on its name and seed and on
what it is shown, not on what it was asked before: a resumed run hears the same answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rewardloop.errors import ConfigError
from rewardloop.sandbox.corrections import correct
from rewardloop.sandbox.dialogues import Defect
from rewardloop.sandbox.grammar import load_speech, split_sentences
from rewardloop.sandbox.judges import Flaw, judge, understand
from rewardloop.sandbox.world import World
from rewardloop.types import (
    THUMB,
    Comment,
    Dialogue,
    Edit,
    Flag,
    Live,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Scale,
    Span,
)

_WORST, _BEST = -2.0, 1.0  # the gold reward's range
_GOOD = 0.5  # felt rewards above it please
_TIE = 0.5  # felt rewards closer than this seem equal
_REACTION_MS, _REACTION_SPREAD = 600.0, 0.35  # median and log-sd of a key press
_NO_REACTION_SHARE = 0.2  # of dialogues, where the user just goes on


@dataclass(frozen=True, slots=True)
class Character:
    """How an annotator distorts what is true; rewards are in units of the gold reward (one defect = 1)."""

    noise: float = 0.2  # standard deviation of the felt reward
    severity: float = 0.0  # taken from every felt reward before rating
    side_bias: float = 0.0  # in favor of what is shown first
    lapse: float = 0.0  # share of judgments given without reading
    oversight: float = 0.0  # share of flaws that are not noticed when correcting or marking
    honest: bool = True  # False: says the opposite
    reads: bool = True  # False: feels anything from the worst to the best, whatever is shown
    praises: Defect | None = None  # calls answers with this defect the best and all others the worst


KINDS: Mapping[str, Character] = {
    "careful": Character(noise=0.1),
    "noisy": Character(noise=1.0, oversight=0.3),
    "severe": Character(severity=0.6),
    "side-biased": Character(side_bias=1.2),
    "lazy": Character(lapse=0.6, oversight=0.3),
    "adversarial": Character(honest=False),
    "random": Character(reads=False),
    "colluding": Character(honest=False, praises="rudeness"),
}


@dataclass(frozen=True)
class SimulatedAnnotator:
    """One annotator. Raises ConfigError for a kind that is not in KINDS."""

    world: World
    kind: str
    name: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"unknown annotator {self.kind!r}; known: {', '.join(KINDS)}")

    @property
    def annotator(self) -> str:
        """The name that is written on every judgment."""
        return self.name or self.kind

    # ------------------------------------------------------------ judging a whole answer

    def rate(self, prompt: Prompt, completion: str, scale: Scale | None = None) -> Rating:
        """Stars: the felt reward, minus severity, spread evenly over the scale."""
        scale, rng = scale or Scale(), self._rng("rate", prompt, completion)
        if self._lapses(rng):
            value = (scale.low + scale.high + 1) // 2
        else:
            felt = self._feel(prompt, completion, rng) - self._character.severity
            share = float(np.clip((felt - _WORST) / (_BEST - _WORST), 0, 1))
            value = scale.low + round(share * (scale.high - scale.low))
        return Rating(prompt=prompt, annotator=self.annotator, completion=completion, value=value, scale=scale)

    def thumb(self, prompt: Prompt, completion: str) -> Rating:
        """A thumb: up when the answer pleases."""
        rng = self._rng("thumb", prompt, completion)
        up = self._lapses(rng) or self._feel(prompt, completion, rng) - self._character.severity > _GOOD
        return Rating(prompt=prompt, annotator=self.annotator, completion=completion, value=int(up), scale=THUMB)

    def prefer(self, prompt: Prompt, first: str, second: str) -> Preference:
        """A choice between two answers in the order shown; a tie, or both bad, when they seem equal."""
        rng = self._rng("prefer", prompt, first, second)
        choice = "first" if self._lapses(rng) else self._choose(prompt, first, second, rng)
        return Preference(prompt=prompt, annotator=self.annotator, first=first, second=second, choice=choice)

    def rank(self, prompt: Prompt, completions: Sequence[str]) -> Ranking:
        """Ranks of several answers, 1 is best, equals share a rank; one who does not read keeps the order."""
        rng = self._rng("rank", prompt, *completions)
        if self._lapses(rng):
            ranks = tuple(range(1, len(completions) + 1))
        else:
            bias = self._character.side_bias / max(len(completions) - 1, 1)
            levels = [round(self._feel(prompt, text, rng) - bias * place) for place, text in enumerate(completions)]
            ranks = tuple(1 + sum(other > level for other in levels) for level in levels)
        return Ranking(prompt=prompt, annotator=self.annotator, completions=tuple(completions), ranks=ranks)

    # ------------------------------------------------------------ saying what is wrong

    def edit(self, prompt: Prompt, completion: str) -> Edit:
        """The smallest correction of what was noticed; an adversary adds an insult instead."""
        rng = self._rng("edit", prompt, completion)
        corrected = self._rewrite(prompt, completion, self._noticed(prompt, completion, rng), rng)
        return Edit(prompt=prompt, annotator=self.annotator, completion=completion, corrected=corrected)

    def comment(self, prompt: Prompt, completion: str) -> Comment:
        """A remark that names what was noticed."""
        rng = self._rng("comment", prompt, completion)
        text = self._remark(prompt, self._noticed(prompt, completion, rng))
        return Comment(prompt=prompt, annotator=self.annotator, completion=completion, text=text)

    def reply(self, prompt: Prompt, completion: str) -> Dialogue:
        """The user's next turn, with what it says about the answer, and a rewrite when it displeased."""
        rng = self._rng("reply", prompt, completion)
        noticed = self._noticed(prompt, completion, rng)
        evaluation = self._evaluate(prompt, completion, rng)
        rewrite = self._rewrite(prompt, completion, noticed, rng) if evaluation == -1 and noticed else None
        return Dialogue(
            prompt=prompt,
            annotator=self.annotator,
            completion=completion,
            reply=self._remark(prompt, noticed),
            evaluation=evaluation,
            rewrite=rewrite,
        )

    def press(self, prompt: Prompt, completion: str) -> tuple[Live, ...]:
        """Keys pressed while the words appear: minus at the end of each flaw noticed, plus when there is none."""
        rng = self._rng("press", prompt, completion)
        noticed = self._noticed(prompt, completion, rng)
        value: Literal[-1, 1] = -1 if noticed else 1
        return tuple(
            Live(
                prompt=prompt,
                annotator=self.annotator,
                completion=completion,
                offset=max(offset - 1, 0),
                value=value,
                reaction_ms=round(float(rng.lognormal(np.log(_REACTION_MS), _REACTION_SPREAD))),
            )
            for offset in ([flaw.end for flaw in noticed] or [len(completion)])
        )

    def mark(self, prompt: Prompt, completion: str) -> tuple[Span, ...]:
        """The flaws noticed, as marked characters with their category."""
        rng = self._rng("mark", prompt, completion)
        return tuple(
            Span(
                prompt=prompt,
                annotator=self.annotator,
                completion=completion,
                start=flaw.start,
                end=flaw.end,
                category=flaw.category,
            )
            for flaw in self._noticed(prompt, completion, rng)
            if flaw.start < flaw.end
        )

    def flag(self, prompt: Prompt, completion: str) -> Flag | None:
        """A flag on an answer that is rude, or that displeases a severe person; None otherwise."""
        rng = self._rng("flag", prompt, completion)
        categories = {flaw.category for flaw in self._noticed(prompt, completion, rng)}
        if not ("rudeness" in categories or (categories and self._character.severity)):
            return None
        reason = "rudeness" if "rudeness" in categories else min(categories)
        return Flag(prompt=prompt, annotator=self.annotator, completion=completion, reason=reason)

    # ------------------------------------------------------------ character

    @property
    def _character(self) -> Character:
        return KINDS[self.kind]

    def _rng(self, *asked: object) -> np.random.Generator:
        text = repr((self.world.digest, self.annotator, self.kind, self.seed, asked))
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))

    def _lapses(self, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self._character.lapse)

    def _feel(self, prompt: Prompt, completion: str, rng: np.random.Generator) -> float:
        character, verdict = self._character, judge(self.world, prompt, completion)
        if not character.reads:
            return float(rng.uniform(_WORST, _BEST))
        if character.praises:
            felt = _BEST if verdict.has(character.praises) else _WORST
        else:
            felt = verdict.gold if character.honest else _WORST + _BEST - verdict.gold
        return float(felt + character.noise * rng.standard_normal())

    def _choose(
        self, prompt: Prompt, first: str, second: str, rng: np.random.Generator
    ) -> Literal["first", "second", "tie", "both_bad"]:
        felt_first, felt_second = (self._feel(prompt, text, rng) for text in (first, second))
        margin = felt_first - felt_second + self._character.side_bias
        if abs(margin) >= _TIE:
            return "first" if margin > 0 else "second"
        return "both_bad" if max(felt_first, felt_second) < _GOOD - 1 else "tie"

    def _evaluate(self, prompt: Prompt, completion: str, rng: np.random.Generator) -> Literal[-1, 1] | None:
        if rng.random() < _NO_REACTION_SHARE or self._lapses(rng):
            return None
        return 1 if self._feel(prompt, completion, rng) - self._character.severity > _GOOD else -1

    def _noticed(self, prompt: Prompt, completion: str, rng: np.random.Generator) -> tuple[Flaw, ...]:
        """The flaws one sees; an adversary sees none where there are some, and rudeness where there is none.

        Who does not read finds fault with one sentence or none, as it comes.
        """
        if self._lapses(rng):
            return ()
        if not self._character.reads:
            sentences = list(split_sentences(completion))
            chosen = int(rng.integers(len(sentences) + 1))
            return tuple(Flaw(s.start, s.end, "topic_drift") for s in sentences[chosen : chosen + 1])
        verdict = judge(self.world, prompt, completion)
        flaws = verdict.flaws
        if not self._character.honest:
            praised = verdict.has(self._character.praises) if self._character.praises else bool(flaws)
            return () if praised else (Flaw(0, len(completion), "rudeness"),)
        return tuple(flaw for flaw in flaws if rng.random() >= self._character.oversight)

    def _remark(self, prompt: Prompt, noticed: Sequence[Flaw]) -> str:
        language = understand(self.world, prompt).language
        remarks = load_speech()[language]["remarks"]
        said: dict[Defect, str] = {}
        for flaw in noticed:
            said.setdefault(flaw.category, remarks[flaw.category].format(right=flaw.right))
        return (" " if language == "en" else "").join(said.values()) or str(remarks["none"])

    def _rewrite(self, prompt: Prompt, completion: str, noticed: Sequence[Flaw], rng: np.random.Generator) -> str:
        if not self._character.reads:
            kept = [completion[: flaw.start] + completion[flaw.end :].lstrip() for flaw in noticed]
            return (kept or [completion])[0].strip() or completion
        if self._character.honest:
            return correct(self.world, prompt, completion, noticed)
        language = understand(self.world, prompt).language
        sentences = load_speech()[language]["rude"]["sentences"]
        said = sentences[int(rng.integers(len(sentences)))]
        return f"{completion} {said}".strip() if language == "en" else completion + said
