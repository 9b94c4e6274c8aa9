"""The update against a plain forward and backward of transformers; its guards; resuming in the same bits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rewardloop.errors import ConfigError, StoreError, TrainingError
from rewardloop.functional import head
from rewardloop.functional.losses import LossOutput
from rewardloop.models.language_model import LanguageModel
from rewardloop.models.packed import pack
from rewardloop.optimize import backward
from rewardloop.optimize.policy_gradient import METHODS, PolicyBatch, policy_loss
from rewardloop.optimize.update import Loss, Updater, UpdateSettings
from tiny_models import CONTEXT, random_model, tiny_lm

VOCABULARY = 97
PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16, 17], [5, 6], [8] * 9, [0, 3]]
COMPLETIONS = [[21, 22, 23, 24], [31] * 7, [41], [51, 52, 53, 54, 55], [2, 1, 2, 1, 2, 1], [0, 0, 61]]
EXACT = UpdateSettings(precision="float32", lr=0.01)


def language_model(family: str = "llama", seed: int = 0, **changes: Any) -> LanguageModel:
    model = random_model(family, VOCABULARY, seed, **changes)
    return LanguageModel(model, None, (1,), CONTEXT, family)  # type: ignore[arg-type]


def mask() -> Tensor:
    lengths_B1 = torch.tensor([[len(ids)] for ids in COMPLETIONS])
    return torch.arange(int(lengths_B1.max())) < lengths_B1


def policy_batch(method: str) -> PolicyBatch:
    """Numbers that put tokens on both sides of every bound."""
    generator = torch.Generator().manual_seed(3)
    mask_BT = mask()
    old_BT = plain_logprobs(language_model().model, 0.8).detach()
    old_BT += 0.5 * torch.randn(old_BT.shape, generator=generator) * mask_BT
    weights_B = 1 / mask_BT.sum(-1) if METHODS[method].aggregation == "seq_mean" else torch.full((6,), 0.1)
    return PolicyBatch(
        old_logprobs_BT=old_BT,
        proximal_logprobs_BT=old_BT + 0.1 * mask_BT,
        ref_logprobs_BT=old_BT - 0.2 * mask_BT,
        advantages_BT=torch.randn(old_BT.shape, generator=generator) * mask_BT,
        completion_mask_BT=mask_BT,
        weights_B=weights_B,
        beta=0.1,
        tokens=float(mask_BT.sum()),
        ess=1.0,
    )


def loss_of(name: str) -> Loss:
    method, batch = METHODS[name], policy_batch(name)
    return lambda logprobs_BT, rows: policy_loss(method, logprobs_BT, batch.rows(rows))


def plain_logprobs(model: Any, temperature: float = 1.0) -> Tensor:
    """One sequence at a time through transformers, logits whole, [B, T]."""
    rows = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        logits_SV = model(torch.tensor([prompt + completion])).logits[0] / temperature
        rows_TV = logits_SV.log_softmax(-1)[len(prompt) - 1 : -1]
        rows.append(rows_TV.gather(1, torch.tensor(completion)[:, None])[:, 0])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def step_gradients(
    lm: LanguageModel, settings: UpdateSettings, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    """The gradients that the optimizer is given."""
    found: dict[str, Tensor] = {}

    def look(optimizer: torch.optim.AdamW, closure: None = None) -> None:
        assert optimizer.param_groups[0]["lr"] == settings.lr
        found.update((name, parameter.grad.clone()) for name, parameter in lm.model.named_parameters())

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", look)
        Updater(lm, settings).step(PROMPTS, COMPLETIONS, loss, temperature=0.8)
    return found


def plain_gradients(lm: LanguageModel, loss: Loss) -> dict[str, Tensor]:
    output = loss(plain_logprobs(lm.model, 0.8), torch.arange(len(PROMPTS)))
    names, parameters = zip(*lm.model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(output.loss, parameters), strict=True))


def assert_near(given: dict[str, Tensor], expected: dict[str, Tensor], relative: float) -> None:
    assert given.keys() == expected.keys()
    for name, theirs in expected.items():
        assert float((given[name] - theirs).norm()) <= relative * float(theirs.norm()) + 1e-7, name


# ---------------------------------------------------------------- the gradient


@pytest.mark.parametrize("method", METHODS)
def test_gradient_of_every_method_is_that_of_the_plain_way(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits made once, a few completions at a time, against all log-probs at once through autograd."""
    lm = language_model()
    monkeypatch.setattr(head, "CHUNK_BYTES", 8 * VOCABULARY * 4)  # two completions or so
    settings = replace(EXACT, max_grad_norm=0.0, tokens_per_microbatch=25)
    given = step_gradients(lm, settings, loss_of(method), monkeypatch)
    assert_near(given, plain_gradients(lm, loss_of(method)), 1e-4)


FAMILIES = ["llama with biases", "qwen2", "qwen3", "gpt2", "gpt-neox"]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_in_every_family(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model(family)
    given = step_gradients(lm, replace(EXACT, max_grad_norm=0.0), loss_of("default"), monkeypatch)
    assert_near(given, plain_gradients(lm, loss_of("default")), 1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_gradient_with_and_without_a_tied_head(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model("llama", tie_word_embeddings=tied)
    given = step_gradients(lm, replace(EXACT, max_grad_norm=0.0), loss_of("default"), monkeypatch)
    assert ("lm_head.weight" in given) is not tied
    assert_near(given, plain_gradients(lm, loss_of("default")), 1e-4)


def test_gradient_reaches_a_bias_of_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model("llama", tie_word_embeddings=False)
    lm.model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, VOCABULARY))
    given = step_gradients(lm, replace(EXACT, max_grad_norm=0.0), loss_of("default"), monkeypatch)
    assert_near(given, plain_gradients(lm, loss_of("default")), 1e-4)


@pytest.mark.parametrize(("tokens", "chunk_positions"), [(1, 1), (20, 3), (30, 8), (1000, 1000)])
def test_parts_add_up_to_the_whole(tokens: int, chunk_positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any micro-batches, and completions longer than a chunk, give the same gradient."""
    lm = language_model()
    expected = step_gradients(lm, replace(EXACT, tokens_per_microbatch=10_000), loss_of("gspo"), monkeypatch)
    monkeypatch.setattr(head, "CHUNK_BYTES", chunk_positions * VOCABULARY * 4)
    given = step_gradients(lm, replace(EXACT, tokens_per_microbatch=tokens), loss_of("gspo"), monkeypatch)
    assert_near(given, expected, 1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_sharing_a_prompt_does_not_change_the_gradient(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups packed with their prompt once, against one sequence at a time, where nothing can be shared."""
    monkeypatch.setattr(f"{__name__}.PROMPTS", [PROMPTS[2], PROMPTS[4], PROMPTS[2], PROMPTS[4], PROMPTS[2], [0, 3]])
    lm, settings = language_model(family), replace(EXACT, max_grad_norm=0.0)
    shared = step_gradients(lm, settings, loss_of("default"), monkeypatch)
    alone = step_gradients(lm, replace(settings, tokens_per_microbatch=1), loss_of("default"), monkeypatch)
    assert_near(shared, alone, 1e-5)
    assert_near(shared, plain_gradients(lm, loss_of("default")), 1e-4)


def test_rows_are_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is told which of the caller's rows it sees, each exactly once, padded to the longest of them."""
    lm = language_model()
    updater = Updater(lm, replace(EXACT, tokens_per_microbatch=20))
    expected_BT = updater.logprobs(PROMPTS, COMPLETIONS)
    seen: list[int] = []

    def loss(logprobs_BT: Tensor, rows: Tensor) -> LossOutput:
        assert logprobs_BT.shape[1] == max(len(COMPLETIONS[row]) for row in rows.tolist())
        torch.testing.assert_close(logprobs_BT, expected_BT[rows][:, : logprobs_BT.shape[1]], rtol=0, atol=1e-6)
        seen.extend(rows.tolist())
        return LossOutput(logprobs_BT.sum(), {"rows": float(len(rows))})

    report = updater.step(PROMPTS, COMPLETIONS, loss)
    assert sorted(seen) == list(range(6))
    assert report.metrics == {"rows": 6.0}
    assert report.tokens == sum(map(len, PROMPTS)) + sum(map(len, COMPLETIONS))
    assert report.loss == pytest.approx(float(expected_BT.sum()), rel=1e-5)


def test_order_of_rows_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    lm, permuted = language_model(), language_model()
    loss = loss_of("default")
    Updater(lm, EXACT).step(PROMPTS, COMPLETIONS, loss)
    Updater(permuted, EXACT).step(
        [PROMPTS[i] for i in order],
        [COMPLETIONS[i] for i in order],
        lambda logprobs_BT, rows: loss(logprobs_BT, order[rows]),
    )
    for ours, theirs in zip(permuted.model.parameters(), lm.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)  # the first step of Adam is lr * sign


def test_log_probs_are_those_of_the_step_and_of_transformers() -> None:
    lm = language_model()
    given_BT = Updater(lm, EXACT).logprobs(PROMPTS, COMPLETIONS, temperature=0.8)
    torch.testing.assert_close(given_BT, plain_logprobs(lm.model, 0.8), rtol=0, atol=1e-5)
    assert not given_BT.requires_grad


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_ratio_before_the_first_step_is_one(precision: Any) -> None:
    """|log u| < 1e-4 where nothing has moved, in minibatches too."""
    updater = Updater(language_model(), UpdateSettings(precision=precision, lr=0.0))
    proximal_BT = updater.logprobs(PROMPTS, COMPLETIONS)
    moved: list[float] = []

    for chosen in ([0, 1, 2, 3, 4, 5], [5, 1, 3]):

        def loss(logprobs_BT: Tensor, rows: Tensor, chosen: list[int] = chosen) -> LossOutput:
            before_BT = proximal_BT[torch.tensor(chosen)[rows]][:, : logprobs_BT.shape[1]]
            moved.append(float((logprobs_BT.detach() - before_BT).abs().max()))
            return LossOutput(logprobs_BT.sum(), {})

        updater.step([PROMPTS[i] for i in chosen], [COMPLETIONS[i] for i in chosen], loss)
    assert len(moved) == 2
    assert max(moved) < 1e-4


def test_bfloat16_is_near_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model()
    exact = step_gradients(lm, EXACT, loss_of("rloo"), monkeypatch)
    fast = step_gradients(lm, replace(EXACT, precision="bfloat16"), loss_of("rloo"), monkeypatch)
    assert_near(fast, exact, 0.1)
    assert {parameter.dtype for parameter in lm.model.parameters()} == {torch.float32}
    with pytest.raises(AssertionError):
        assert_near(fast, exact, 1e-4)  # it is bfloat16 that was measured


def test_clipping_bounds_the_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model()
    free = step_gradients(lm, replace(EXACT, max_grad_norm=0.0), loss_of("default"), monkeypatch)
    norm = math.sqrt(sum(float(grad.square().sum()) for grad in free.values()))
    clipped = step_gradients(lm, replace(EXACT, max_grad_norm=norm / 4), loss_of("default"), monkeypatch)
    assert_near({name: 4 * grad for name, grad in clipped.items()}, free, 1e-4)
    report = Updater(lm, replace(EXACT, max_grad_norm=norm / 4)).step(
        PROMPTS, COMPLETIONS, loss_of("default"), temperature=0.8
    )
    assert report.grad_norm == pytest.approx(norm, rel=1e-4)


def test_descent_lowers_the_loss() -> None:
    updater = Updater(language_model(), replace(EXACT, lr=0.003))
    target_T = torch.tensor(COMPLETIONS[0])

    def loss(logprobs_BT: Tensor, rows: Tensor) -> LossOutput:
        return LossOutput(-logprobs_BT.sum() / len(target_T), {})

    losses = [updater.step(PROMPTS[:1], COMPLETIONS[:1], loss).loss for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation's result had."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_logits_of_the_whole_batch_never_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six completions have 26 tokens: no tensor of an update holds as many logits, nor half as many."""
    positions = 10
    monkeypatch.setattr(head, "CHUNK_BYTES", positions * VOCABULARY * 4)
    updater = Updater(language_model(), replace(EXACT, tokens_per_microbatch=1000))
    loss = loss_of("default")
    with LargestTensor() as largest:
        updater.step(PROMPTS, COMPLETIONS, loss)
        updater.logprobs(PROMPTS, COMPLETIONS)
    weight = VOCABULARY * 32  # the gradient of the head
    assert weight <= largest.elements <= max(weight, positions * VOCABULARY, 56 * 48)
    assert largest.elements < 56 * VOCABULARY


# ---------------------------------------------------------------- guards


def spoiled(value: float, where: str) -> Loss:
    def loss(logprobs_BT: Tensor, rows: Tensor) -> LossOutput:
        if where == "loss":
            return LossOutput(logprobs_BT.sum() + value, {})
        # a finite loss with a gradient that is not: d/dx x * sqrt(0 * x) at 0
        return LossOutput((logprobs_BT * 0).sqrt().sum() if where == "gradient" else logprobs_BT.sum(), {})

    return loss


def weights_and_state(updater: Updater) -> dict[str, Tensor]:
    weights = {name: value.clone() for name, value in updater.lm.model.state_dict().items()}
    return weights | {f"state {name}": value for name, value in updater.state_tensors().items()}


@pytest.mark.parametrize(
    ("value", "where", "words"),
    [(math.nan, "loss", "loss is nan"), (math.inf, "loss", "loss is inf"), (0.0, "gradient", "gradient's norm")],
)
def test_bad_steps_are_skipped_and_the_third_in_a_row_raises(value: float, where: str, words: str) -> None:
    updater = Updater(language_model(), EXACT)
    good = loss_of("default")
    updater.step(PROMPTS, COMPLETIONS, good)
    before = weights_and_state(updater)
    report = updater.step(PROMPTS, COMPLETIONS, spoiled(value, where))
    assert report.skipped
    assert words in report.reason
    after = weights_and_state(updater)
    assert after.pop("state counters").tolist() == [1, 1, 1]  # skipped, skipped in a row, done
    assert all(torch.equal(after[name], before[name]) for name in after)
    assert not updater.step(PROMPTS, COMPLETIONS, good).skipped  # ends the row
    for _ in range(2):
        assert updater.step(PROMPTS, COMPLETIONS, spoiled(value, where)).skipped
    with pytest.raises(TrainingError, match=rf"3 steps in a row were not usable.*{words}.*lower lr"):
        updater.step(PROMPTS, COMPLETIONS, spoiled(value, where))
    assert updater.skipped_steps == 4


def test_a_log_prob_that_is_not_finite_skips_the_step() -> None:
    lm = language_model()
    with torch.no_grad():
        lm.model.model.norm.weight[0] = math.nan
    before = copy.deepcopy(lm.model.state_dict())
    report = Updater(lm, EXACT).step(PROMPTS, COMPLETIONS, spoiled(0.0, "nowhere"))
    assert report.skipped
    assert "log-prob" in report.reason
    assert all(torch.equal(v.nan_to_num(), before[n].nan_to_num()) for n, v in lm.model.state_dict().items())


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": -1.0},
        {"lr": math.nan},
        {"betas": (0.9, 1.0)},
        {"weight_decay": -0.1},
        {"max_grad_norm": -1.0},
        {"tokens_per_microbatch": 0},
        {"precision": "float16"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ConfigError, match=name):
        UpdateSettings(**settings)


# ---------------------------------------------------------------- resuming


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_resumed_is_uninterrupted_bit_for_bit(precision: Any, tmp_path: Path) -> None:
    settings = UpdateSettings(precision=precision, lr=0.01, weight_decay=0.1, tokens_per_microbatch=20)
    loss = loss_of("default")

    def run(updater: Updater, steps: int) -> None:
        for step in range(steps):
            updater.step(PROMPTS, COMPLETIONS, spoiled(math.nan, "loss") if step == 1 else loss)

    whole = Updater(language_model(), settings)
    run(whole, 2)
    save_file(whole.state_tensors(), tmp_path / "state.safetensors")
    save_file({n: p.clone() for n, p in whole.lm.model.named_parameters()}, tmp_path / "weights.safetensors")
    run(whole, 3)

    resumed = Updater(language_model(seed=1), settings)
    resumed.lm.model.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=False)
    resumed.load_state_tensors(load_file(tmp_path / "state.safetensors"))
    run(resumed, 3)
    ours, theirs = weights_and_state(resumed), weights_and_state(whole)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_state_before_the_first_step_is_a_state_too() -> None:
    updater = Updater(language_model(), EXACT)
    updater.load_state_tensors(Updater(language_model(), EXACT).state_tensors())
    assert not updater.step(PROMPTS, COMPLETIONS, loss_of("default")).skipped


def test_state_of_another_model_is_refused() -> None:
    updater = Updater(language_model("gpt2"), EXACT)
    updater.step(PROMPTS, COMPLETIONS, loss_of("default"))
    with pytest.raises(StoreError, match="fits no weight here"):
        Updater(language_model("llama"), EXACT).load_state_tensors(updater.state_tensors())


@pytest.mark.parametrize("threads", [1, 2])
def test_gradients_of_a_shared_prompt_add_up_in_one_order(threads: int) -> None:
    """Large enough for threads to divide it: the same bits each time, and the sum of the copies' gradients."""
    batch = pack([[1] * 40] * 40, [[2] * length for length in range(30, 70)])
    generator = torch.Generator().manual_seed(0)
    row_ND = torch.randn(len(batch.input_ids_N), 64, generator=generator)
    coefficients: list[Tensor] = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        grads = []
        for _ in range(5):
            leaf_ND = row_ND.clone().requires_grad_()
            parts = batch.attention.padded(leaf_ND)
            coefficients = coefficients or [torch.randn(part.shape, generator=generator) for part in parts]
            totals = [(part * coefficient).sum() for part, coefficient in zip(parts, coefficients, strict=True)]
            grads.append(torch.autograd.grad(totals, leaf_ND)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(grad, grads[0]) for grad in grads[1:])
    copies = torch.cat([coefficient.flatten(0, 1) for coefficient in coefficients])
    expected = torch.zeros_like(row_ND, dtype=torch.float64)
    assert batch.attention.to_padded is not None
    for place, token in enumerate(batch.attention.to_padded.tolist()):
        expected[token] += copies[place]
    torch.testing.assert_close(grads[0].double(), expected, rtol=0, atol=1e-4)


def test_same_calls_same_bits() -> None:
    runs: list[Callable[[], dict[str, Tensor]]] = []
    for _ in range(2):
        updater = Updater(language_model(), UpdateSettings(lr=0.01))
        updater.step(PROMPTS, COMPLETIONS, loss_of("default"))
        runs.append(lambda updater=updater: weights_and_state(updater))
    first, second = (run() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frozen_weights_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = language_model("llama", tie_word_embeddings=False)
    for frozen in (lm.model.lm_head.weight, lm.model.model.embed_tokens.weight):
        frozen.requires_grad_(False)
    before = {name: value.clone() for name, value in lm.model.named_parameters()}
    Updater(lm, EXACT).step(PROMPTS, COMPLETIONS, loss_of("default"))
    same = {name for name, value in lm.model.named_parameters() if torch.equal(value, before[name])}
    assert same == {"lm_head.weight", "model.embed_tokens.weight"}
    assert backward._gradient(lm.model.lm_head.weight) is None


def test_warm_up_scales_the_first_steps_and_survives_a_resume() -> None:
    """AdamW's first step moves every weight by lr: with a warm-up of 4, by a quarter of it."""

    def first_move(warm_up: int) -> float:
        lm = tiny_lm()
        before = {name: value.clone() for name, value in lm.model.state_dict().items()}
        updater = Updater(lm, UpdateSettings(lr=1e-3, warm_up=warm_up, precision="float32"))
        updater.step([(1, 2)], [(3, 4)], lambda logprobs_BT, rows: LossOutput(-logprobs_BT.sum(), {}))
        return max(float((lm.model.state_dict()[name] - value).abs().max()) for name, value in before.items())

    assert first_move(4) == pytest.approx(first_move(0) / 4, rel=1e-3)


def test_a_schedule_scales_the_step() -> None:
    def moved(lr: float, lr_share: float) -> Tensor:
        lm = language_model()
        before = lm.model.get_input_embeddings().weight.detach().clone()
        Updater(lm, replace(EXACT, lr=lr)).step(PROMPTS, COMPLETIONS, loss_of("default"), lr_share=lr_share)
        return lm.model.get_input_embeddings().weight.detach() - before

    torch.testing.assert_close(moved(0.01, 0.25), moved(0.0025, 1.0))
    assert moved(0.01, 0.25).abs().max() > 1e-4
    assert moved(0.01, 0.0).abs().max() == 0
