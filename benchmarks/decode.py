"""How fast completions are sampled: python benchmarks/decode.py [--quick] [--json FILE]

Against transformers' `generate` (float32, temperature 1, no top-k or top-p), 15M Llama shape. First 32 sequences
of 32 + 96 tokens; then 128 prompts whose completions have 1 to 96 tokens (mean 48), over 32 slots, where
`generate` runs four batches of 32, each to its longest. Ratios are useful tokens a second. Ours plain and, where
there is a C++ compiler, with the compiled step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from harness import Figure, Options, alternate, llama_15m, parse_options, ratio, report, spread, time_call

SLOTS = 32
PROMPT_TOKENS = 32
NEW_TOKENS = 96
VARIED = 128  # prompts with completions of varying length
VOCABULARY = 32_000
TARGETS = {  # by lengths and by what computes
    "equal lengths": {"ours": 2.5, "ours, compiled": 4.0},
    "varying lengths": {"ours": 4.0, "ours, compiled": 6.0},
}


def main(options: Options) -> None:
    import torch

    from rewardloop.hardware import set_up_threads
    from rewardloop.models.language_model import load_language_model
    from rewardloop.rollout.engine import Engine
    from rewardloop.rollout.kernels import find_compiler

    set_up_threads(options.threads)
    lm = load_language_model(llama_15m(), device="cpu")
    engines = {"ours": Engine(lm, slots=SLOTS)}
    if find_compiler():
        engines["ours, compiled"] = Engine(lm, slots=SLOTS, compiled=True)
    if not options.quick:
        for label in list(engines):
            compiled = label.endswith("compiled")
            engines[f"{label}, float32"] = Engine(lm, slots=SLOTS, precision="float32", compiled=compiled)
    work = {"equal lengths": equal_lengths(), "varying lengths": varying_lengths()}
    figures: list[Figure] = []
    with torch.no_grad():
        for name, (prompts, lengths) in work.items():
            contenders: dict[str, Callable[[], float]] = {
                label: partial(time_call, partial(run_engine, engine, prompts, lengths))
                for label, engine in engines.items()
            }
            contenders["generate"] = partial(time_call, partial(run_generate, lm, prompts, lengths))
            for engine in engines.values():
                run_engine(engine, prompts[:2], [2, 2])
            run_generate(lm, prompts[:2], [2, 2])
            # one round of varying lengths takes as long as four of equal ones
            rounds = 1 if options.quick else 7
            seconds = alternate(contenders, rounds)
            figures += compare(name, sum(lengths), seconds)
    report("Sampling completions", figures, options, {"slots": SLOTS, "prompt_tokens": PROMPT_TOKENS})


def compare(name: str, tokens: int, seconds: dict[str, list[float]]) -> list[Figure]:
    ours = [label for label in seconds if label != "generate"]
    return [
        *(
            ratio(
                f"{name}: {label} / generate",
                seconds["generate"],
                seconds[label],
                target=TARGETS[name].get(label),
            )
            for label in ours
        ),
        *(spread(f"{name}: tokens/s, {label}", [tokens / s for s in took]) for label, took in seconds.items()),
    ]


def equal_lengths() -> tuple[list[str], list[int]]:
    return make_prompts(SLOTS), [NEW_TOKENS] * SLOTS


def varying_lengths() -> tuple[list[str], list[int]]:
    import numpy as np

    return make_prompts(VARIED), np.random.default_rng(1).integers(1, NEW_TOKENS + 1, VARIED).tolist()


def make_prompts(count: int) -> list[str]:
    """Texts of PROMPT_TOKENS - 1 words, which a start token completes."""
    import numpy as np

    words = np.random.default_rng(0).integers(4, VOCABULARY, (count, PROMPT_TOKENS - 1))
    return [" ".join(f"w{word}" for word in row) for row in words.tolist()]


def run_engine(engine: object, prompts: Sequence[str], lengths: Sequence[int]) -> None:
    from rewardloop.rollout.engine import Engine, Request

    assert isinstance(engine, Engine)
    requests = [
        Request(prompt=prompt, max_tokens=length, seed=seed)
        for seed, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]
    completions = engine.generate(requests)
    assert [len(completion.token_ids) for completion in completions] == list(lengths)


def run_generate(lm: object, prompts: Sequence[str], lengths: Sequence[int]) -> None:
    import torch

    from rewardloop.models.language_model import LanguageModel

    assert isinstance(lm, LanguageModel)
    for start in range(0, len(prompts), SLOTS):
        longest = max(lengths[start : start + SLOTS])
        ids = torch.tensor([lm.encode_prompt(prompt) for prompt in prompts[start : start + SLOTS]])
        lm.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            top_p=1.0,
            max_new_tokens=longest,
            min_new_tokens=longest,
            eos_token_id=None,
        )


if __name__ == "__main__":
    main(parse_options(__doc__))
