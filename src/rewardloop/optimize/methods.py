"""The published policy gradients as one choice in each of five independent groups, and how tokens are averaged.

    return     what followed a token: the whole sequence, reward-to-go, or GAE
    baseline   what is taken off it: a running mean, siblings (loo, loo_pos, group_mean); and the critic phi
    scale      what it is divided by: nothing, the group's or the batch's standard deviation
    ratio      correction for the policy having moved: level, anchor, bound (functional/ratios, losses)
    kl         where the distance to the reference enters, and by which estimator (functional/divergences)

Options whose optimum is not that of E[R] - beta KL(policy || reference) are refused, unless `biased_ok`.
docs/methods.md says which method is which, from which paper, and when to use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal, get_args

from rewardloop.errors import ConfigError
from rewardloop.functional.advantages import Baseline, Scale
from rewardloop.functional.divergences import Estimator
from rewardloop.functional.losses import Aggregation, Bound, Clip, Truncate
from rewardloop.functional.ratios import Level

Return = Literal["sequence", "to_go", "gae"]


def _check_choice(name: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise ConfigError(f"{name}: given {value!r}; known: {', '.join(get_args(choices))}")


@dataclass(frozen=True, slots=True)
class Ratio:
    """How the loss accounts for the policy having moved since the completions were sampled.

    anchor "sampler": u = pi / mu. anchor "proximal": u = pi / pi_prox, and a weight without gradient of
    min(pi_prox / mu, correction_cap): the bound is around the policy the update began with (decoupled PPO).
    """

    level: Level = "token"
    bound: Bound = None
    anchor: Literal["sampler", "proximal"] = "sampler"
    correction_cap: float = math.inf

    def __post_init__(self) -> None:
        _check_choice("ratio.level", self.level, Level)
        if self.anchor not in ("sampler", "proximal"):
            raise ConfigError(f"ratio.anchor: given {self.anchor!r}; known: sampler, proximal")
        if not self.correction_cap > 0:
            raise ConfigError(f"ratio.correction_cap: given {self.correction_cap}; expected a number above 0")
        if self.level == "none" and self.bound is not None:
            raise ConfigError("ratio: a bound needs a ratio; set level to token, or take the bound away")


@dataclass(frozen=True, slots=True)
class KLTerm:
    """Where the distance to the reference enters, the reward of each token or the loss, and how estimated."""

    place: Literal["reward", "loss"] = "reward"
    estimator: Estimator = "k1"

    def __post_init__(self) -> None:
        if self.place not in ("reward", "loss"):
            raise ConfigError(f"kl.place: given {self.place!r}; known: reward, loss")
        _check_choice("kl.estimator", self.estimator, Estimator)
        if self.place == "reward" and self.estimator not in ("k1", "k2", "k3"):
            raise ConfigError(f"kl: {self.estimator} is no reward of single tokens; use k1 in the reward")


@dataclass(frozen=True, slots=True)
class PolicyGradient:
    """One choice in every group. `dataclasses.replace` on a row of METHODS makes a method of your own.

    Raises ConfigError for choices that do not go together, and for a wrong optimum without `biased_ok`.
    """

    returns: Return = "sequence"
    baseline: Baseline = "none"
    critic: bool = False  # phi is the critic: rewards come token by token, so that G_t = R - phi(s_t)
    scale: Scale = "none"
    ratio: Ratio = Ratio()
    kl: KLTerm | None = KLTerm()
    aggregation: Aggregation = "sum"
    constant: float = 1.0  # divides the loss when aggregation is "sum"; Dr. GRPO takes the longest completion
    drop_flat_groups: bool = False  # groups whose returns are all equal are left out of the averages
    biased_ok: bool = False

    def __post_init__(self) -> None:
        _check_choice("returns", self.returns, Return)
        _check_choice("baseline", self.baseline, Baseline)
        _check_choice("scale", self.scale, Scale)
        _check_choice("aggregation", self.aggregation, Aggregation)
        if not (self.constant > 0 and math.isfinite(self.constant)):
            raise ConfigError(f"constant: given {self.constant}; expected a number above 0")
        found = self.biases()
        if found and not self.biased_ok:
            raise ConfigError("a wrong optimum: " + "; ".join(found) + "; biased_ok lets it through")

    def biases(self) -> tuple[str, ...]:
        """Why the optimum is not that of E[R] - beta KL; empty when it is."""
        found = []
        if self.returns == "gae" and not self.critic:
            found.append("gae without a critic discounts the reward; use to_go, or critic")
        if self.scale == "group_std":
            found.append("group_std makes easy and hard prompts weigh alike; use scale none")
        if self.aggregation == "seq_mean":
            found.append("seq_mean weighs tokens of long sequences less; use sum or token_mean")
        if self.ratio.level == "geomean":
            found.append("geomean is not the ratio of the sequence; use token, or sequence")
        if self.kl is not None and self.kl not in (KLTerm("reward", "k1"), KLTerm("loss", "k2_seq")):
            found.append(
                f"{self.kl.estimator} in the {self.kl.place} does not have the gradient of the KL; "
                "use k1 in the reward, or k2_seq in the loss"
            )
        rescaled = self.baseline == "group_mean" or self.scale == "batch_std"
        if self.kl is not None and self.kl.place == "loss" and rescaled:
            found.append("group_mean and batch_std scale the reward but not a KL in the loss; use k1 in the reward")
        return tuple(found)


_K1: Final = KLTerm("reward", "k1")
_GRPO: Final = PolicyGradient(
    returns="sequence",
    baseline="group_mean",
    scale="group_std",
    ratio=Ratio(bound=Clip()),
    kl=KLTerm("loss", "k3"),
    aggregation="seq_mean",
    biased_ok=True,
)
_PPO: Final = PolicyGradient(
    returns="gae",
    critic=True,
    scale="batch_std",
    ratio=Ratio(bound=Clip()),
    kl=_K1,
    aggregation="token_mean",
)

METHODS: Final[Mapping[str, PolicyGradient]] = MappingProxyType(
    {
        "default": PolicyGradient(
            returns="gae",
            baseline="loo_pos",
            critic=True,
            ratio=Ratio(bound=Clip(low=0.2, high=0.28), anchor="proximal", correction_cap=2.0),
            kl=_K1,
        ),
        "reinforce": PolicyGradient(returns="to_go", baseline="ema", ratio=Ratio(level="none"), kl=_K1),
        "rloo": PolicyGradient(returns="sequence", baseline="loo", ratio=Ratio(level="none"), kl=_K1),
        "ppo": _PPO,
        "grpo": _GRPO,
        "dr-grpo": PolicyGradient(baseline="group_mean", ratio=Ratio(bound=Clip()), kl=None),
        "dapo": replace(
            _GRPO,
            ratio=Ratio(bound=Clip(low=0.2, high=0.28)),
            kl=None,
            aggregation="token_mean",
            drop_flat_groups=True,
        ),
        "gspo": replace(_GRPO, ratio=Ratio("geomean", bound=Clip(low=3e-4, high=4e-4, dual=None)), kl=None),
        "cispo": replace(_GRPO, ratio=Ratio(bound=Truncate(cap=1.28)), kl=None, aggregation="token_mean"),
        "decoupled-ppo": replace(_PPO, ratio=Ratio(bound=Clip(), anchor="proximal", correction_cap=5.0)),
    }
)
