"""The potential phi(prefix): what the finished answer will be worth, known at every token.

    phi(s_t) = w . x(s_t) + b,   x = the frozen reference trunk's hidden state, its mean over the words so far, and how
                                 sure it was of them: what the reward reads of the finished text, cut off at t

phi foresees the reward. It is fitted to *stop-gradient* targets only:

    Y_t = R - beta * sum_{u >= t} log pi(a_u|s_u) / pi_ref(a_u|s_u)

and to retrospective credit c_t (edits, marked spans, live key presses), read as the increment of the potential
that one token should bring: phi(s_{t+1}) - phi(s_t) ~ c_t, with weight 0.1. Both are linear in w, so the fit is a
ridge regression in closed form: exact, deterministic, without a learning rate. Older evidence fades by `decay`.

Credit that knows the future (an edit, a span) is never used as a reward itself: it would not be adapted
(Ng et al. 1999; RUDDER 1806.07857; ABC 2402.00782).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from rewardloop.models.packed import TrunkPass

INCREMENT_WEIGHT: Final = 0.1
SUMMARIES: Final = 5  # columns of a state behind the hidden ones, see prefix_states


@dataclass(frozen=True, eq=False)
class Potential:
    """Sufficient statistics of the ridge regression, and its solution. All float64, on the CPU."""

    gram_EE: Tensor  # sum of weight * x x^T over states and increments; E = D + 1, the last column is the bias
    moment_E: Tensor  # sum of weight * x * target
    weights_E: Tensor
    ridge: float = 1.0

    @staticmethod
    def untrained(width: int, ridge: float = 1.0) -> Potential:
        """phi = 0 everywhere: the reward then arrives whole at the last token."""
        zeros_E = torch.zeros(width + 1, dtype=torch.float64)
        return Potential(torch.zeros(width + 1, width + 1, dtype=torch.float64), zeros_E, zeros_E.clone(), ridge)

    def values(self, states_BT1D: Tensor) -> Tensor:
        """phi_BT1 of every state; float32. The caller sets the entry at the end of each completion to R."""
        weights_E = self.weights_E.to(device=states_BT1D.device, dtype=torch.float32)
        return states_BT1D.float() @ weights_E[:-1] + weights_E[-1]

    def fitted(
        self,
        states_BT1D: Tensor,
        targets_BT: Tensor,
        mask_BT: Tensor,
        *,
        decay: float = 1.0,
    ) -> Potential:
        """A new potential that has seen these states as well.

        Args:
            states_BT1D: states s_0 ... s_T; only s_0 ... s_{T-1} (where an action follows) are fitted, the
                value of the last state is R itself.
            targets_BT: Y_t for each state that an action follows.
            mask_BT: True where there is an action.
            decay: weight of all that was seen before, in (0, 1].
        """
        states_ND = states_BT1D[:, :-1][mask_BT]
        return self._with_rows(_with_bias(states_ND), targets_BT[mask_BT], 1.0, decay)

    def fitted_to_credit(self, states_BT1D: Tensor, credit_BT: Tensor, weights_BT: Tensor) -> Potential:
        """A new potential whose increments follow the credit c_t of tokens where `weights_BT` is above 0."""
        increments_BTD = states_BT1D[:, 1:] - states_BT1D[:, :-1]
        used_BT = weights_BT > 0
        rows_NE = torch.nn.functional.pad(increments_BTD[used_BT], (0, 1)).double().cpu()
        root_N = weights_BT[used_BT].double().cpu().sqrt()
        return self._with_rows(rows_NE * root_N[:, None], credit_BT[used_BT].cpu() * root_N, INCREMENT_WEIGHT, 1.0)

    def _with_rows(self, rows_NE: Tensor, targets_N: Tensor, weight: float, decay: float) -> Potential:
        targets_N = targets_N.double().cpu()
        gram_EE = decay * self.gram_EE + weight * rows_NE.T @ rows_NE
        moment_E = decay * self.moment_E + weight * rows_NE.T @ targets_N
        penalty_E = torch.full((len(moment_E),), self.ridge, dtype=torch.float64)
        penalty_E[-1] = 1e-6  # the bias is free
        weights_E = torch.linalg.solve(gram_EE + torch.diag(penalty_E), moment_E)
        return replace(self, gram_EE=gram_EE, moment_E=moment_E, weights_E=weights_E)

    def tensors(self) -> dict[str, Tensor]:
        """Everything to store, ready for safetensors."""
        return {"gram_EE": self.gram_EE, "moment_E": self.moment_E, "weights_E": self.weights_E}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], ridge: float = 1.0) -> Potential:
        return Potential(tensors["gram_EE"], tensors["moment_E"], tensors["weights_E"], ridge)


def state_width(hidden_width: int) -> int:
    """Columns of what `prefix_states` makes of a trunk `hidden_width` wide."""
    return 2 * hidden_width + SUMMARIES


def prefix_states(trunk: TrunkPass) -> Tensor:
    """x(s_t) for t = 0 .. T, [B, T+1, 2D+5]: the hidden state, its mean over the tokens so far, how sure they were.

    Of their log-probs: mean, least, shares below 10 % and below 1 %; of log-prob plus entropy, the least.
    Mean and summaries are 0 before the first token. All of it is what a reward on finished texts sees
    (`reward.features.pool_features`), cut off at t, so that phi is adapted.
    """
    logprobs_BT = trunk.logprobs_BT
    counts_T = torch.arange(1, logprobs_BT.shape[1] + 1, device=logprobs_BT.device)
    # column t is the state before token t, so the tokens themselves are columns 1 .. T
    mean_BTD = trunk.hidden_BT1D[:, 1:].float().cumsum(1) / counts_T[:, None]
    expected_BT = (logprobs_BT + trunk.entropies_BT).clamp_max(0.0)
    columns = [logprobs_BT.cumsum(-1) / counts_T]
    columns += [-(-values_BT.cummin(-1).values).log1p() for values_BT in (logprobs_BT, expected_BT)]
    columns += [(logprobs_BT < math.log(share)).cumsum(-1) / counts_T for share in (0.1, 0.01)]
    told_BTK = torch.cat([mean_BTD, torch.stack(columns, dim=-1).float()], dim=-1)
    return torch.cat([trunk.hidden_BT1D.float(), torch.nn.functional.pad(told_BTK, (0, 0, 1, 0))], dim=-1)


def potential_targets(scores_B: Tensor, log_ratio_BT: Tensor, mask_BT: Tensor, beta: float) -> Tensor:
    """Y_t = R - beta * sum_{u>=t} l_u, [B, T]: its expectation at the optimum is the soft value V*(s_t)."""
    masked_BT = torch.where(mask_BT, log_ratio_BT, 0.0)
    return scores_B[:, None] - beta * masked_BT.flip(-1).cumsum(-1).flip(-1)


def explained_variance(phi_BT: Tensor, targets_BT: Tensor, mask_BT: Tensor) -> float:
    """1 - Var(Y - phi) / Var(Y) over masked states; 0 when the targets do not vary."""
    targets_N, errors_N = targets_BT[mask_BT].double(), (targets_BT - phi_BT)[mask_BT].double()
    variance = targets_N.var(correction=0)
    return 0.0 if variance < 1e-12 else float(1 - errors_N.var(correction=0) / variance)


def gate_lambda(explained: float) -> float:
    """The dial of immediacy opens only as far as phi has earned.

    The explained variance is over all places of a text, and at the first nobody can foresee much: .2 to .4 is what a
    good phi has. At lambda .8 the gradient still points where that of lambda 1 does (cosine .97), and a step along it
    is worth more: docs/learning.md.
    """
    if explained < 0.1:
        return 1.0
    return 0.9 if explained < 0.2 else 0.8


def _with_bias(states_ND: Tensor) -> Tensor:
    return torch.nn.functional.pad(states_ND.double().cpu(), (0, 1), value=1.0)
