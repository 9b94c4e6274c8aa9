"""Backbones: features of a frozen trunk against single forwards, classifiers in plain transformers, folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rewardloop.errors import ConfigError, ModelError
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.reward.classifier import Classifier, make_classifier
from rewardloop.reward.encoding import CausalPair, EncoderPair, batches_by_length, encode_within
from rewardloop.reward.features import EncoderFeatures, FeatureExtractor, make_extractor
from rewardloop.reward.fitting import fit_head
from rewardloop.reward.model import RewardModel
from rewardloop.reward.storage import load_reward, save_reward
from rewardloop.reward.training import TrainingSettings, default_lr, train_classifier
from rewardloop.types import Feedback, Message, Preference, Rating

PROMPTS = ["Tell me", "Say it again, and again", ""]
COMPLETIONS = [" a story.", " 猫 sat.", " x"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and <s>, </s>, [PAD], [CLS], [SEP]."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: number for number, piece in enumerate([*alphabet, "<s>", "</s>", "[PAD]", "[CLS]", "[SEP]"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def bert_tokenizer() -> PreTrainedTokenizerFast:
    fast = byte_tokenizer()
    vocab = fast.get_vocab()
    fast.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast.backend_tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


SIZES: dict[str, Any] = {"vocab_size": 261, "bos_token_id": 256, "eos_token_id": 257}


def make_llama(folder: Path) -> Path:
    config = LlamaConfig(
        **SIZES,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return save(folder, LlamaForCausalLM(config), byte_tokenizer())


def make_gpt2(folder: Path) -> Path:
    return save(
        folder, GPT2LMHeadModel(GPT2Config(**SIZES, n_embd=16, n_layer=2, n_head=2, n_positions=64)), byte_tokenizer()
    )


def make_bert(folder: Path) -> Path:
    config = BertConfig(
        vocab_size=261,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=258,
    )
    return save(folder, BertModel(config), bert_tokenizer())


MAKERS = {"llama": make_llama, "gpt2": make_gpt2, "bert": make_bert}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def lm(folders: dict[str, Path]) -> LanguageModel:
    return load_language_model(folders["llama"])


# ---------------------------------------------------------------- features


@torch.no_grad()
def test_features_of_a_causal_model_equal_one_forward_each(lm: LanguageModel) -> None:
    found_BD = FeatureExtractor(lm).features(PROMPTS, COMPLETIONS)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        prompt_ids, token_ids = lm.encode_prompt(prompt), lm.encode_completion(completion)
        ids_1S = torch.tensor([[*prompt_ids, *token_ids]], device=lm.device)
        out = lm.model(ids_1S, output_hidden_states=True)
        hidden_TD = out.hidden_states[-1][0, len(prompt_ids) :].cpu()  # states after each completion token
        logits_TV = out.logits[0, len(prompt_ids) - 1 : -1].cpu()
        logprobs_T = logits_TV.log_softmax(-1)[torch.arange(len(token_ids)), list(token_ids)]
        entropies_T = torch.distributions.Categorical(logits=logits_TV).entropy()
        least = _three_least(logprobs_T.tolist())
        unlikely = _three_least([min(x, 0.0) for x in (logprobs_T + entropies_T).tolist()])
        shares = [sum(x < math.log(share) for x in logprobs_T.tolist()) / len(token_ids) for share in (0.1, 0.01)]
        known = [logprobs_T.mean().item(), -least[0], -sum(least) / 3, *shares, -unlikely[0], -sum(unlikely) / 3]
        summaries = torch.tensor(known)
        expected = torch.cat([hidden_TD[-1], hidden_TD.mean(0), hidden_TD.amax(0), hidden_TD.amin(0), summaries])
        torch.testing.assert_close(found_BD[row].cpu(), expected, atol=1e-4, rtol=1e-4)


def _three_least(values: list[float]) -> list[float]:
    least = [math.log1p(-value) for value in sorted(values)[:3]]
    return least + [0.0] * (3 - len(least))


@torch.no_grad()
def test_features_of_an_encoder_equal_one_forward_each(folders: dict[str, Path]) -> None:
    extractor = make_extractor(folders["bert"])
    assert isinstance(extractor, EncoderFeatures)
    found_BD = extractor.features(PROMPTS, COMPLETIONS)
    for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
        pair = extractor.tokenizer(*((prompt, completion) if prompt else (completion,)), return_tensors="pt")
        alone = extractor.tokenizer(completion, return_tensors="pt")
        texts = [text.to(extractor.model.device) for text in (pair, alone)]
        means = [extractor.model(**text).last_hidden_state[0].mean(0) for text in texts]
        torch.testing.assert_close(found_BD[row].cpu(), torch.cat(means).cpu(), atol=1e-5, rtol=1e-4)


def test_features_are_computed_once_for_each_text(lm: LanguageModel) -> None:
    extractor = FeatureExtractor(lm)
    first = extractor.features(PROMPTS, COMPLETIONS)
    lm_calls: list[int] = []
    hook = lm.model.register_forward_hook(lambda *_: lm_calls.append(1))
    base = lm.model.base_model.register_forward_hook(lambda *_: lm_calls.append(1))
    again = extractor.features([*PROMPTS, PROMPTS[0]], [*COMPLETIONS, COMPLETIONS[0]])
    hook.remove()
    base.remove()
    assert not lm_calls
    assert (again[:3] == first).all()
    assert (again[3] == first[0]).all()


# ---------------------------------------------------------------- encoding


def test_long_prompts_lose_their_front_and_long_completions_their_end(lm: LanguageModel) -> None:
    prompt_ids, token_ids = encode_within(lm, "a" * 100 + "END", "short")
    assert len(prompt_ids) + len(token_ids) == lm.context
    assert lm.decode(prompt_ids).endswith("END")
    assert lm.decode(token_ids) == "short"

    prompt_ids, token_ids = encode_within(lm, "a" * 100 + "END", "START" + "b" * 100)
    assert (len(prompt_ids), len(token_ids)) == (16, 48)
    assert lm.decode(token_ids).startswith("START")
    assert token_ids[-1] in lm.end_ids

    assert encode_within(lm, "ab", "cd") == (lm.encode_prompt("ab"), lm.encode_completion("cd"))


def test_an_encoder_reads_the_end_of_a_long_prompt_and_the_whole_of_a_short_completion() -> None:
    tokenizer = bert_tokenizer()
    pair = EncoderPair(tokenizer, 64)
    ids = pair.encode("a" * 100 + "END", "short")["input_ids"]
    text = tokenizer.decode(ids)
    assert len(ids) <= 64
    assert "aEND" in text
    assert text.endswith("short[SEP]")
    long = pair.encode((Message("user", "Hi?"),), "START" + "b" * 100)["input_ids"]
    assert len(long) == 64
    assert "STARTb" in tokenizer.decode(long)
    assert "?\nAssistant:[SEP]" in tokenizer.decode(long)


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [5, 30, 7, 7, 100, 1, 12]
    batches = list(batches_by_length(lengths, 40))
    assert sorted(row for batch in batches for row in batch) == list(range(7))
    assert all(len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= 40 for batch in batches)


# ---------------------------------------------------------------- classifiers


def judgments() -> list[Feedback]:
    """Completions with an exclamation mark are better."""
    pairs = [(f" word{i}!", f" word{i}.") for i in range(40)]
    feedback: list[Feedback] = [
        Preference(
            prompt=f"p{i}",
            first=good if i % 2 else bad,
            second=bad if i % 2 else good,
            choice="first" if i % 2 else "second",
        )
        for i, (good, bad) in enumerate(pairs)
    ]
    return [*feedback, *(Rating(prompt="q", completion=good, value=5) for good, _ in pairs[:8])]


@pytest.mark.parametrize("name", MAKERS)
def test_a_trained_classifier_learns_and_loads_in_plain_transformers(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    classifier = make_classifier(folders[name], seed=0)
    settings = TrainingSettings(epochs=6, lr=5e-3)
    losses: list[float] = []
    model = train_classifier(
        judgments(), classifier, settings=settings, seed=0, progress=lambda step, steps, loss: losses.append(loss)
    )
    prompts, good, bad = ["new"] * 20, [f" thing{i}!" for i in range(20)], [f" thing{i}." for i in range(20)]
    assert np.mean(losses[-4:]) < np.mean(losses[:2])
    assert (model.choice_logits(prompts, good, bad) > 0).mean() > 0.9

    save_reward(model, tmp_path / "reward")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    assert plain.config.num_labels == 1
    texts = classifier.encode(prompts, good)
    for row, text in enumerate(texts):
        with torch.no_grad():
            logit = plain(**{key: torch.tensor([ids]) for key, ids in text.items()}).logits.item()
        expected = model.score(prompts[row : row + 1], good[row : row + 1]).item()
        assert (logit - model.offset) / model.scale == pytest.approx(expected, abs=1e-4)

    again = load_reward(tmp_path / "reward")
    assert again.version == model.version
    assert (again.score(prompts, good) == model.score(prompts, good)).all()


def test_plain_transformers_scores_padded_batches_alike(folders: dict[str, Path]) -> None:
    """The padding id of the configuration is no end token, which would be taken for padding itself."""
    classifier = make_classifier(folders["llama"], seed=0)
    texts = classifier.encode(PROMPTS, COMPLETIONS)
    width = max(len(text["input_ids"]) for text in texts)
    pad = classifier.model.config.pad_token_id
    device = classifier.model.device
    ids = torch.tensor([text["input_ids"] + [pad] * (width - len(text["input_ids"])) for text in texts], device=device)
    with torch.no_grad():
        logits_B = classifier.model(ids, attention_mask=(ids != pad).long()).logits[:, 0]
        alone = [classifier.model(torch.tensor([text["input_ids"]], device=device)).logits[0, 0] for text in texts]
    alone_B = torch.stack(alone)
    torch.testing.assert_close(logits_B, alone_B, atol=1e-5, rtol=1e-4)
    assert isinstance(classifier.pair, CausalPair)
    assert all(text["input_ids"][-1] == SIZES["eos_token_id"] for text in texts)


def test_a_padding_token_that_is_the_end_token_is_not_used(folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    folder = save(tmp_path / "padded", load_language_model(folders["llama"]).model, tokenizer)
    assert make_classifier(folder, seed=0).model.config.pad_token_id != SIZES["eos_token_id"]


def test_the_same_seed_trains_the_same_bits_and_leaves_the_worlds_randomness_alone(folders: dict[str, Path]) -> None:
    def run(seed: int) -> str:
        classifier = make_classifier(folders["llama"], seed=seed)
        return train_classifier(judgments(), classifier, settings=TrainingSettings(), seed=seed).version

    state = torch.get_rng_state()
    assert run(3) == run(3) != run(4)
    assert (torch.get_rng_state() == state).all()


def test_parts_of_a_batch_add_up_to_the_batch(folders: dict[str, Path]) -> None:
    def run(tokens_at_once: int) -> tuple[list[float], np.ndarray]:
        classifier = make_classifier(folders["llama"], seed=0)
        settings = TrainingSettings(tokens_at_once=tokens_at_once, precision="float32")
        losses: list[float] = []
        model = train_classifier(
            judgments()[:40], classifier, settings=settings, seed=0, progress=lambda *step: losses.append(step[2])
        )
        return losses, model.score(PROMPTS, COMPLETIONS)

    (losses, scores), (losses_whole, scores_whole) = run(64), run(100_000)
    assert losses == pytest.approx(losses_whole, abs=1e-5)
    assert scores == pytest.approx(scores_whole, abs=1e-3)
    assert losses[0] == pytest.approx(math.log(2), abs=0.05)  # a head that knows nothing yet: the mean, not the sum


def test_a_whole_backbone_does_not_count_length_twice(folders: dict[str, Path]) -> None:
    """Where nothing but length decides, the slope explains the choices from the first step, and the reward need not."""
    rng = np.random.default_rng(0)
    sizes_B2 = rng.integers(1, 40, size=(160, 2))
    longer_B = (sizes_B2[:, 0] > sizes_B2[:, 1]) ^ (rng.random(160) < 0.15)
    texts = [(" a" * n, " a" * m) for n, m in sizes_B2.tolist()]
    feedback: list[Feedback] = [
        Preference(prompt=f"p{i}", first=a, second=b, choice="first" if won else "second")
        for i, ((a, b), won) in enumerate(zip(texts, longer_B, strict=True))
        if a != b
    ]
    model = train_classifier(
        feedback, make_classifier(folders["llama"], seed=0), settings=TrainingSettings(lr=3e-3), seed=0
    )
    firsts, seconds = zip(*texts, strict=True)
    prompts = ["p"] * len(texts)
    alone_B = model.choice_logits(prompts, firsts, seconds)
    swayed_B = model.choice_logits(prompts, firsts, seconds, swayed_by_length=True)
    right = np.logaddexp(0, np.where(longer_B, -swayed_B, swayed_B)).mean()
    assert right < 0.55 < math.log(2)
    assert np.abs(alone_B).mean() < 0.5 * np.abs(swayed_B).mean()


def test_learning_rates_by_size() -> None:
    assert default_lr(1_000_000) == default_lr(3_000_000) == 3e-4
    assert default_lr(12_000_000) == pytest.approx(1.5e-4)
    assert default_lr(10**12) == 3e-6
    with pytest.raises(ConfigError, match="learning rate"):
        TrainingSettings(lr=-1.0)


# ---------------------------------------------------------------- folders


@pytest.mark.parametrize("name", MAKERS)
def test_heads_on_a_frozen_trunk_come_back_from_their_folder(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    model = fit_head(judgments(), make_extractor(folders[name]), seed=0).sharpen(0.7)
    model = model.standardize(model.score(["q"] * 20, [f" word{i}?" for i in range(20)]))
    save_reward(model, tmp_path / "reward")
    again = load_reward(tmp_path / "reward")
    assert again.version == model.version
    assert again.score(PROMPTS, COMPLETIONS) == pytest.approx(model.score(PROMPTS, COMPLETIONS), abs=1e-9)
    assert again.sharpness == model.sharpness


def test_folders_that_are_no_reward_models_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no reward model: it has no reward.json"):
        load_reward(folders["llama"])
    save_reward(fit_head(judgments(), make_extractor(folders["llama"]), seed=0), tmp_path / "a")
    save_reward(fit_head(judgments(), make_extractor(folders["llama"]), seed=1), tmp_path / "b")
    (tmp_path / "a" / "heads.safetensors").write_bytes((tmp_path / "b" / "heads.safetensors").read_bytes())
    with pytest.raises(ModelError, match="files of two models are mixed"):
        load_reward(tmp_path / "a")
    (tmp_path / "b" / "heads.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match=r"could not read .*heads.safetensors"):
        load_reward(tmp_path / "b")
    description = tmp_path / "b" / "reward.json"
    description.write_text(json.dumps({"form": "heads"}), encoding="utf-8")
    with pytest.raises(ModelError, match="version"):
        load_reward(tmp_path / "b")

    class Odd:
        digest = "odd"

        def raw_scores(self, prompts: Any, completions: Any) -> np.ndarray:
            return np.zeros((1, len(completions)))

    with pytest.raises(ConfigError, match="Odd"):
        save_reward(RewardModel(Odd()), tmp_path / "c")
    assert not (tmp_path / "c").exists()


@pytest.mark.data
def test_real_models_of_both_languages_give_features(shared: Path) -> None:
    for name, completion in (("stories260K", " was a cat."), ("zh-poem-750K", "明月光")):
        extractor = make_extractor(shared / "models" / name)
        features_BD = extractor.features(["Once", "床前"], [completion, completion * 400])
        assert features_BD.isfinite().all()
        assert (features_BD[0] != features_BD[1]).any()
    assert isinstance(make_classifier(shared / "models" / "stories260K", seed=0), Classifier)
