"""Who judges how: people's peculiarities, found together with the reward, and how much each judgment weighs in it.

Given rewards of the texts, everybody's kappa, lapse, side bias and severity (reward/likelihood.py) are the mode of

    kappa ~ .95 N(1, .5^2) + .05 N(-1, .5^2)    lapse ~ Beta(1, 9)    side ~ N(0, .5^2)    severity ~ N(0, 1)

times the likelihood of what they said; the priors are those of feedback/channel.py. `fit_head` turns by turn fits the
rewards given the people and the people given rewards that were learned without the judgment in question: a head with
hundreds of features can agree with anybody about a judgment that it was fitted to.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rewardloop.feedback.channel import ADVERSARIES, KAPPA_SD, LAPSES, SEVERITY_SD, SIDE_SD
from rewardloop.feedback.evidence import Evidence
from rewardloop.feedback.exclusions import cap_accounts
from rewardloop.feedback.reliability import compute_weight
from rewardloop.reward.likelihood import CHANNEL_DEVIATION, Annotators, build_channel, event_nll
from rewardloop.reward.minimizing import minimize
from rewardloop.reward.model import AnnotatorTraits
from rewardloop.types import Feedback, Live, Preference, Ranking, Rating, Span

FOLDS = 4  # parts of the judgments, each foretold by rewards learned from the others
UNIT_SD = 1.0  # of the logarithm of the unit of rewards learned elsewhere, which are drawn too close together
LEAST_SHARE = 0.01  # so that among people of weight 0 everybody has an equal share
# kappa and lapse to begin with: the prior of kappa has two humps, and who often lapses looks much like who hardly
# discriminates: a search ends on the nearest hump.
_TRIED = tuple((kappa, lapse) for lapse in (0.1, 0.25, 0.5) for kappa in (-1.0, -0.5, 0.0, 0.25, 0.5, 1.0, 2.0))


@dataclass(frozen=True, eq=False)
class Crowd:
    """The judgments of two or more people: who said what, and which of them are about one and the same."""

    evidence: Evidence
    names: tuple[str, ...]  # of every event; "" is nobody in particular
    question_E: np.ndarray  # number of what was asked
    person_E: np.ndarray  # index into evidence.annotators; 0 where the event has no evidence
    telling_E: np.ndarray  # bool: the event has evidence
    judgments_A: np.ndarray  # how many such events each of evidence.annotators has
    known_F: np.ndarray  # numbers of the F people who are fitted: nobody in particular is many people, and ordinary

    def folds(self, seed: int) -> np.ndarray:
        """fold_E in 0 .. FOLDS - 1: what one person said about one and the same is in one part."""
        _, key_E = np.unique(np.stack([self.question_E, self.person_E]), axis=1, return_inverse=True)
        return (np.random.default_rng(seed).permutation(int(key_E.max()) + 1) % FOLDS)[key_E.reshape(-1)]

    def weigh(self, annotators: Annotators | None = None) -> np.ndarray:
        """weights_E of the events in the loss of the reward, each in [0, 1].

        An event weighs 1. Where several people judged one and the same, their judgments together weigh 1, shared out by
        the people's weights (equally while `annotators` are not known); somebody's repeats share that person's part.
        In the end no account has more than its cap of the whole (feedback.exclusions.cap_accounts).
        """
        trust_A = np.ones(len(self.judgments_A)) if annotators is None else weigh_people(annotators)
        pairs, pair_E = np.unique(
            np.stack([self.question_E, self.person_E])[:, self.telling_E], axis=1, return_inverse=True
        )
        pair_E = pair_E.reshape(-1)
        question_P, repeats_P = pairs[0], np.bincount(pair_E)
        trust_P = np.maximum(trust_A[pairs[1]], LEAST_SHARE)
        together_P = (np.bincount(question_P) > 1)[question_P]
        share_P = trust_P / np.bincount(question_P, trust_P)[question_P] / repeats_P
        weights_E = np.zeros(len(self.names))
        weights_E[self.telling_E] = np.where(together_P, share_P, 1.0)[pair_E]
        return cap_accounts(weights_E, self.names)

    def describe(self, annotators: Annotators) -> dict[str, AnnotatorTraits]:
        """What was found about everybody who has a name, the least trusted first."""
        weight_A = weigh_people(annotators)
        order = sorted(self.known_F.tolist(), key=lambda a: (weight_A[a], self.evidence.annotators[a]))
        return {
            self.evidence.annotators[a]: AnnotatorTraits(
                severity=float(annotators.severity_A[a]),
                discrimination=float(annotators.discrimination_A[a]),
                lapse=float(annotators.lapse_A[a]),
                side_bias=float(annotators.side_bias_A[a]),
                weight=float(weight_A[a]),
                judgments=int(self.judgments_A[a]),
            )
            for a in order
        }


def gather_crowd(feedback: Sequence[Feedback], evidence: Evidence) -> Crowd | None:
    """The people behind `evidence`, which is that of `feedback`; None where fewer than two accounts said anything.

    One person cannot be compared with anybody, and judgments without names are taken as they are.
    """
    tables = (evidence.comparisons, evidence.ordinals, evidence.rankings)
    if len(np.unique(np.concatenate([table.annotator_E for table in tables]))) < 2:
        return None
    telling_E = np.zeros(evidence.events, dtype=bool)
    telling_E[np.concatenate([table.event_E for table in tables])] = True
    questions: dict[Hashable, int] = {}
    place = {name: number for number, name in enumerate(evidence.annotators)}
    names = tuple(judgment.annotator or "" for judgment in feedback)
    person_E = np.array([place.get(name, 0) for name in names])
    judgments_A = np.bincount(person_E[telling_E], minlength=len(place))
    return Crowd(
        evidence,
        names,
        question_E=np.array([questions.setdefault(_question(judgment), len(questions)) for judgment in feedback]),
        person_E=person_E,
        telling_E=telling_E,
        judgments_A=judgments_A,
        known_F=1 + np.flatnonzero(judgments_A[1:]),
    )


def weigh_people(annotators: Annotators) -> np.ndarray:
    """weight_A in [0, 1]: 0 guesses or says the opposite, 1 an ordinary person who never lapses."""
    return compute_weight(
        annotators.discrimination_A.numpy(), annotators.lapse_A.numpy(), annotators.side_bias_A.numpy()
    )


def fit_annotators(scores_HN: Tensor, weights_HE: Tensor, crowd: Crowd, start_C: Tensor) -> Annotators:
    """Everybody's peculiarities given rewards: the mode of the posterior, by L-BFGS.

    Args:
        scores_HN: float64, rewards of the texts in logits, as each of H heads has them.
        weights_HE: which head an event is read with, and how much it counts.
        start_C: free numbers of the channel (start_channel), which are fitted anew beside the people.

    The unit of the rewards is free, so that kappa 1 is the ordinary person whatever they were learned from: in the end
    the median of the kappas above 0 is 1. Unless somebody without a name rates too, who is ordinary, the severities of
    those who rate have mean 0.
    """
    free, common = start_free(crowd, start_C), 1 + len(start_C)

    def objective(free: Tensor) -> Tensor:
        return compute_loss(free, scores_HN, weights_HE, crowd, start_C)

    # Most people are taken to mean well: unit and channel first as if everybody were ordinary.
    free[:common] = minimize(lambda part: objective(torch.cat([part, free[common:]])), free[:common])
    free = minimize(objective, _choose_starts(free, scores_HN, weights_HE, crowd, start_C))
    return _identify(_read(free, crowd, len(start_C))[2], crowd)


def start_free(crowd: Crowd, start_C: Tensor) -> Tensor:
    """Logarithm of the unit, the channel; kappas, logits of lapses, side biases, severities of ordinary people."""
    logit = float(np.log(LAPSES[0] / LAPSES[1]))
    people = torch.tensor([1.0, logit, 0.0, 0.0], dtype=torch.float64).repeat_interleave(len(crowd.known_F))
    return torch.cat([start_C.new_zeros(1), start_C, people])


def compute_loss(free: Tensor, scores_HN: Tensor, weights_HE: Tensor, crowd: Crowd, start_C: Tensor) -> Tensor:
    """-log of likelihood times priors, up to a constant; `free` is laid out as by `start_free`."""
    unit, channel_C, annotators = _read(free, crowd, len(start_C))
    channel = build_channel(channel_C, crowd.evidence, annotators)
    nll_HE = event_nll(unit.exp() * scores_HN, crowd.evidence, channel)
    strayed = (unit / UNIT_SD).square() + ((channel_C - start_C) / CHANNEL_DEVIATION).square().sum()
    people = _slices(len(start_C), len(crowd.known_F))
    return (nll_HE * weights_HE).sum() + strayed / 2 + _penalty(free, people).sum()


def turn_around(annotators: Annotators, crowd: Crowd, weights_E: np.ndarray) -> Annotators:
    """The majority says what is good: where more than half of the weight is with kappas below 0, all signs change.

    kappa (R - s) is the same for -kappa, -R and -s.
    """
    weight_A = np.bincount(crowd.person_E, weights_E, len(crowd.judgments_A))
    inverted_A = annotators.discrimination_A.numpy() < 0
    if weight_A[inverted_A].sum() <= weight_A.sum() / 2:
        return annotators
    sign_A = torch.ones_like(annotators.severity_A)
    sign_A[torch.from_numpy(crowd.known_F)] = -1.0
    return replace(
        annotators,
        discrimination_A=annotators.discrimination_A * sign_A,
        severity_A=annotators.severity_A * sign_A,
    )


def _question(judgment: Feedback) -> Hashable:
    """What was asked: prompt, texts, kind and criterion, on whatever side a text was shown."""
    asked: Hashable
    match judgment:
        case Preference(first=first, second=second):
            asked = frozenset((first, second))
        case Ranking(completions=completions):
            asked = frozenset(completions)
        case Rating(completion=completion, scale=scale):
            asked = (completion, scale)
        case Span(completion=completion) | Live(completion=completion):
            return ("marks", judgment.prompt, judgment.criterion, completion)
        case _:
            asked = judgment.completion
    return (type(judgment).__name__, judgment.prompt, judgment.criterion, asked)


def _slices(channel: int, people: int) -> dict[str, slice]:
    """Where everybody's numbers lie, after the unit and the channel's."""
    groups = ("kappa", "lapse", "side", "severity")
    return {name: slice(1 + channel + i * people, 1 + channel + (i + 1) * people) for i, name in enumerate(groups)}


def _read(free: Tensor, crowd: Crowd, channel: int) -> tuple[Tensor, Tensor, Annotators]:
    """Logarithm of the unit, free numbers of the channel, people."""
    at, alike = _slices(channel, len(crowd.known_F)), Annotators.alike(len(crowd.judgments_A))
    known = torch.from_numpy(crowd.known_F)
    annotators = Annotators(
        severity_A=alike.severity_A.index_put((known,), free[at["severity"]]),
        discrimination_A=alike.discrimination_A.index_put((known,), free[at["kappa"]]),
        lapse_A=alike.lapse_A.index_put((known,), free[at["lapse"]].sigmoid()),
        side_bias_A=alike.side_bias_A.index_put((known,), free[at["side"]]),
    )
    return free[0], free[1 : 1 + channel], annotators


def _penalty(free: Tensor, at: dict[str, slice]) -> Tensor:
    """-log of everybody's prior, up to a constant. The lapse's is that of its logit: its mode is a tenth, not 0."""
    kappa_F, logit_F, (a, b) = free[at["kappa"]], free[at["lapse"]], LAPSES
    honest_F = np.log1p(-ADVERSARIES) - ((kappa_F - 1) / KAPPA_SD).square() / 2
    opposite_F = np.log(ADVERSARIES) - ((kappa_F + 1) / KAPPA_SD).square() / 2
    lapses_F = -(a * logsigmoid(logit_F) + b * logsigmoid(-logit_F))
    normal_F = (free[at["side"]] / SIDE_SD).square() + (free[at["severity"]] / SEVERITY_SD).square()
    return lapses_F + normal_F / 2 - torch.logaddexp(honest_F, opposite_F)


def _choose_starts(free: Tensor, scores_HN: Tensor, weights_HE: Tensor, crowd: Crowd, start_C: Tensor) -> Tensor:
    """`free` with the kappa and lapse of _TRIED that explain best what each person said, the rest as it is."""
    losses, at = [], _slices(len(start_C), len(crowd.known_F))
    starts = torch.tensor(_TRIED, dtype=torch.float64)
    starts[:, 1] = starts[:, 1].logit()
    for kappa, logit in starts:
        tried = free.clone()
        tried[at["kappa"]], tried[at["lapse"]] = kappa, logit
        unit, channel_C, annotators = _read(tried, crowd, len(start_C))
        channel = build_channel(channel_C, crowd.evidence, annotators)
        nll_E = (event_nll(unit.exp() * scores_HN, crowd.evidence, channel) * weights_HE).sum(0)
        by_person_A = torch.zeros(len(crowd.judgments_A), dtype=torch.float64)
        by_person_A.index_add_(0, torch.from_numpy(crowd.person_E), nll_E)
        losses.append(by_person_A[torch.from_numpy(crowd.known_F)] + _penalty(tried, at))
    chosen = free.clone()
    chosen[at["kappa"]], chosen[at["lapse"]] = starts[torch.stack(losses).argmin(0)].unbind(1)
    return chosen


def _identify(annotators: Annotators, crowd: Crowd) -> Annotators:
    """The same people, with kappa 1 and severity 0 in the middle: only the rewards' prior settles their unit."""
    known = torch.from_numpy(crowd.known_F)
    kappa_A, severity_A = annotators.discrimination_A.clone(), annotators.severity_A.clone()
    honest_F = kappa_A[known][kappa_A[known] > 0]
    if len(honest_F):
        unit = honest_F.quantile(0.5)
        kappa_A[known] /= unit
        severity_A[known] *= unit
    raters = np.unique(crowd.evidence.ordinals.annotator_E)
    if len(raters) and raters[0] != 0:
        severity_A[torch.from_numpy(raters)] -= severity_A[torch.from_numpy(raters)].mean()
    return replace(annotators, discrimination_A=kappa_A, severity_A=severity_A)
