"""ToyLM: a language model small enough to count. Every claim about a gradient or an optimum is checked here.

V tokens, the last one ends the text; at most T tokens; free logits for every state (a prefix not yet ended):

    ToyLM(4, 4): 40 states, 121 sequences        ToyLM(5, 5): 341 states, 1365 sequences

Feeding all sequences to a production loss with weights pi(y) makes its `backward()` the exact expected
gradient. States are numbered level by level; N counts sequences, S (here) states.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from rewardloop.functional.masks import masked_sum


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts of a ToyLM: the action at each position, the state it was taken in, which positions exist."""

    tokens_BT: Tensor  # long, 0 behind the end
    states_BT: Tensor  # long, 0 behind the end
    mask_BT: Tensor  # bool; the end token is inside

    def __getitem__(self, rows: Tensor) -> Texts:
        return Texts(self.tokens_BT[rows], self.states_BT[rows], self.mask_BT[rows])


@dataclass(frozen=True)
class ToyLM:
    """A table for `vocabulary` tokens (the last is the end) and texts of at most `max_tokens` tokens."""

    vocabulary: int
    max_tokens: int

    def __post_init__(self) -> None:
        if self.vocabulary < 2 or self.max_tokens < 1:
            raise ValueError(f"ToyLM needs a vocabulary of 2 or more and 1 token or more; given {self}")

    @property
    def end(self) -> int:
        return self.vocabulary - 1

    @cached_property
    def level_starts(self) -> tuple[int, ...]:
        """Number of the first state of each length, and behind the last the count of all states."""
        starts = [0]
        for length in range(self.max_tokens):
            starts.append(starts[-1] + self.end**length)
        return tuple(starts)

    @property
    def states(self) -> int:
        return self.level_starts[-1]

    @cached_property
    def texts(self) -> Texts:
        """All texts there are: those that end after 0, 1, ... tokens, then those cut off at `max_tokens`."""
        rows: list[list[int]] = []
        prefixes: list[list[int]] = [[]]
        for _ in range(self.max_tokens):
            rows += [[*prefix, self.end] for prefix in prefixes]
            prefixes = [[*prefix, token] for prefix in prefixes for token in range(self.end)]
        rows += prefixes
        padded = [row + [-1] * (self.max_tokens - len(row)) for row in rows]
        tokens_NT = torch.tensor(padded)
        mask_NT = tokens_NT >= 0
        return Texts(tokens_NT.clamp(min=0), self.states_of(tokens_NT), mask_NT)

    def states_of(self, tokens_BT: Tensor) -> Tensor:
        """The state in which each token is chosen, 0 behind the end; negative tokens are pads."""
        states_BT = torch.zeros_like(tokens_BT)
        alive_B = tokens_BT[:, 0] >= 0
        for t in range(1, tokens_BT.shape[1]):
            alive_B = alive_B & (tokens_BT[:, t - 1] != self.end) & (tokens_BT[:, t] >= 0)
            child_B = self.child(states_BT[:, t - 1], tokens_BT[:, t - 1], t - 1)
            states_BT[:, t] = torch.where(alive_B, child_B, 0)
        return states_BT

    def child(self, states_B: Tensor, tokens_B: Tensor, length: int) -> Tensor:
        """The state reached from states of `length` tokens by a token that is not the end."""
        starts = self.level_starts
        return starts[length + 1] + (states_B - starts[length]) * self.end + tokens_B

    def token_logprobs(self, logits_SV: Tensor, texts: Texts) -> Tensor:
        """log pi(a_t|s_t), [B, T], 0 behind the end; gradients flow."""
        logprobs_BT = logits_SV.log_softmax(-1)[texts.states_BT, texts.tokens_BT]
        return torch.where(texts.mask_BT, logprobs_BT, 0.0)

    def logprobs(self, logits_SV: Tensor) -> Tensor:
        """log pi(y) of all texts, [N]; the probabilities sum to 1."""
        return masked_sum(self.token_logprobs(logits_SV, self.texts), self.texts.mask_BT)

    def sample(self, logits_SV: Tensor, count: int, generator: torch.Generator) -> Texts:
        """Texts drawn token by token, by inverse CDF."""
        cumulative_SV = logits_SV.detach().softmax(-1).cumsum(-1)
        tokens_BT = torch.zeros(count, self.max_tokens, dtype=torch.long)
        states_BT, mask_BT = torch.zeros_like(tokens_BT), torch.zeros_like(tokens_BT, dtype=torch.bool)
        uniforms_BT = torch.rand(count, self.max_tokens, generator=generator, dtype=logits_SV.dtype)
        alive_B = torch.ones(count, dtype=torch.bool)
        state_B = torch.zeros(count, dtype=torch.long)
        for t in range(self.max_tokens):
            drawn_B = (uniforms_BT[:, t, None] > cumulative_SV[state_B]).sum(-1).clamp(max=self.end)
            tokens_BT[:, t] = torch.where(alive_B, drawn_B, 0)
            states_BT[:, t], mask_BT[:, t] = torch.where(alive_B, state_B, 0), alive_B
            alive_B = alive_B & (drawn_B != self.end)
            if t + 1 < self.max_tokens:
                state_B = torch.where(alive_B, self.child(state_B, drawn_B, t), 0)
        return Texts(tokens_BT, states_BT, mask_BT)

    def numbers(self, texts: Texts) -> Tensor:
        """Which row of `self.texts` each text is, [B]."""
        lengths_B = texts.mask_BT.sum(-1, keepdim=True)
        state_B = texts.states_BT.gather(1, lengths_B - 1)[:, 0]
        token_B = texts.tokens_BT.gather(1, lengths_B - 1)[:, 0]
        # Texts that end have the number of the state they end in; cut-off texts follow, state by state.
        cut_B = self.states + (state_B - self.level_starts[-2]) * self.end + token_B
        return torch.where(token_B == self.end, state_B, cut_B)

    def potential(self, values_S: Tensor, texts: Texts) -> Tensor:
        """A function of states as phi_BT1: its value at every prefix, 0 from the end of the text on."""
        values_BT = torch.where(texts.mask_BT, values_S[texts.states_BT], 0.0)
        return torch.nn.functional.pad(values_BT, (0, 1))

    def optimum(self, ref_logits_SV: Tensor, scores_N: Tensor, beta: float) -> tuple[Tensor, float]:
        """The policy p* = pi_ref exp(R / beta) / Z over all texts, [N], and J* = beta log Z.

        p* maximizes J(pi) = E_pi[R] - beta KL(pi || pi_ref) over all policies; J* = J(p*).
        """
        energies_N = self.logprobs(ref_logits_SV) + scores_N / beta
        return energies_N.softmax(0), beta * float(energies_N.logsumexp(0))

    def objective(self, logits_SV: Tensor, ref_logits_SV: Tensor, scores_N: Tensor, beta: float) -> Tensor:
        """J = E_pi[R] - beta KL(pi || pi_ref), a scalar whose autograd is the true gradient."""
        logprobs_N = self.logprobs(logits_SV)
        return (logprobs_N.exp() * (scores_N - beta * (logprobs_N - self.logprobs(ref_logits_SV)))).sum()

    def soft_values(self, ref_logits_SV: Tensor, scores_N: Tensor, beta: float) -> Tensor:
        """V*(s) = beta log E_{y ~ pi_ref(.|s)} exp(R / beta), [S], by recursion from the longest states."""
        values_S = torch.zeros(self.states, dtype=scores_N.dtype)
        for length in range(self.max_tokens - 1, -1, -1):
            state_B = torch.arange(self.level_starts[length], self.level_starts[length + 1])
            ahead_BV = self._ahead(values_S, scores_N, state_B, length)
            logprobs_BV = ref_logits_SV[state_B].log_softmax(-1)
            values_S[state_B] = beta * torch.logsumexp(logprobs_BV + ahead_BV / beta, -1)
        return values_S

    def optimal_logits(self, ref_logits_SV: Tensor, scores_N: Tensor, beta: float) -> Tensor:
        """Logits of p* as a policy: log pi_ref(a|s) + (V*(s with a) - V*(s)) / beta, [S, V]."""
        values_S = self.soft_values(ref_logits_SV, scores_N, beta)
        rows = []
        for length in range(self.max_tokens):
            state_B = torch.arange(self.level_starts[length], self.level_starts[length + 1])
            gains_BV = self._ahead(values_S, scores_N, state_B, length) - values_S[state_B, None]
            rows.append(ref_logits_SV[state_B].log_softmax(-1) + gains_BV / beta)
        return torch.cat(rows)

    def _ahead(self, values_S: Tensor, scores_N: Tensor, state_B: Tensor, length: int) -> Tensor:
        """What each action leads to, [B, V]: the score of a finished text, the value of the next state."""
        tokens_V = torch.arange(self.end)
        if length + 1 < self.max_tokens:
            going_on_BV = values_S[self.child(state_B[:, None], tokens_V, length)]
        else:
            cut = self.states + (state_B[:, None] - self.level_starts[length]) * self.end + tokens_V
            going_on_BV = scores_N[cut]
        return torch.cat([going_on_BV, scores_N[state_B, None]], -1)
