"""Random models of every family of the decode engine, and tokenizers that split characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from rewardloop.models.language_model import LanguageModel

TEXTS = ["the cat sat on the mat. ", "where can I buy honey? 你好，哪里有蜂蜜？", "naïve café 🙂"] * 4
CONTEXT = 64

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = SMALL | {"num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
NEOX = SMALL | {"max_position_embeddings": CONTEXT}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED | {"tie_word_embeddings": True}),
    "llama with biases": ("LlamaConfig", GROUPED | {"attention_bias": True, "mlp_bias": True}),
    "llama 3 rotary": (
        "LlamaConfig",
        GROUPED
        | {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 1e4,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    "mistral": ("MistralConfig", GROUPED | {"sliding_window": None}),
    "qwen2": ("Qwen2Config", GROUPED | {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", GROUPED | {"head_dim": 16}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}),
    "gpt2 scaled by layer": (
        "GPT2Config",
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": CONTEXT,
            "scale_attn_by_inverse_layer_idx": True,
        },
    ),
    "gpt-neox": ("GPTNeoXConfig", NEOX | {"rotary_pct": 0.25}),
    "gpt-neox in series": ("GPTNeoXConfig", NEOX | {"rotary_pct": 1.0, "use_parallel_residual": False}),
}


def byte_level_tokenizer() -> Any:
    """As GPT-2, Llama 3 and Qwen have it: every token is a run of bytes."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        BpeTrainer(
            vocab_size=300,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return _wrapped(tokenizer)


def byte_fallback_tokenizer() -> Any:
    """As SentencePiece with byte fallback has it (Llama 2): characters, and bytes for unknown ones."""
    pieces = ["<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"acehmnost", "你"]
    merges = [("▁", "c"), ("a", "t"), ("▁c", "at"), ("t", "h"), ("▁", "th")]
    pieces += [left + right for left, right in merges]
    vocabulary = {piece: at for at, piece in enumerate(pieces)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return _wrapped(tokenizer)


def _wrapped(tokenizer: Tokenizer) -> Any:
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def random_model(family: str, vocabulary: int, seed: int = 0, **changes: Any) -> Any:
    """A model whose outputs depend on every weight: larger than usual, biases and norms included."""
    name, settings = FAMILIES[family]
    config = getattr(transformers, name)(
        vocab_size=vocabulary, bos_token_id=0, eos_token_id=1, pad_token_id=0, **(settings | changes)
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(0.3 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model


def tiny_lm(family: str = "llama", *, seed: int = 0, end_ids: tuple[int, ...] = (1,)) -> LanguageModel:
    """A random model with a byte-level tokenizer: any text is a prompt."""
    tokenizer = byte_level_tokenizer()
    return LanguageModel(random_model(family, len(tokenizer), seed), tokenizer, end_ids, CONTEXT, family)


def save_tiny(folder: Path, family: str = "llama") -> Path:
    """A plain Hugging Face folder of a tiny model."""
    lm = tiny_lm(family)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def full_logprobs(lm: LanguageModel, prompt_ids: Any, token_ids: Any, temperature: float = 1.0) -> Any:
    """Log-probabilities of completion tokens by one plain forward pass of transformers: logprobs_T."""
    ids = torch.tensor([[*prompt_ids, *token_ids]])
    with torch.no_grad():
        logits = lm.model(ids.to(lm.device)).logits[0].float().cpu() / temperature
    rows = torch.log_softmax(logits, -1)[len(prompt_ids) - 1 : -1]
    return rows.gather(1, torch.tensor(token_ids)[:, None])[:, 0]
