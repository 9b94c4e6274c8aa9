"""Token rewards from a learned potential: what each token adds to the reward that the finished answer will get."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rewardloop.errors import ModelError
from rewardloop.evaluate.token_rewards import TokenRewards, TokenScorer
from rewardloop.files import written_whole
from rewardloop.models.language_model import LanguageModel, load_language_model
from rewardloop.models.packed import forward_completions
from rewardloop.reward.encoding import weights_digest
from rewardloop.reward.potential import Potential, prefix_states
from rewardloop.types import Prompt

FORESIGHT: Final = "foresight"  # the sentence in words.yaml that says what the colors mean


def foresight(reference: LanguageModel, potential: Potential) -> TokenScorer:
    """A scorer by phi(after) - phi(before). The last token has no residual: nobody has judged this text."""

    def score(prompt: Prompt, completion: str) -> TokenRewards:
        prompt_ids, token_ids = reference.encode_prompt(prompt), reference.encode_completion(completion)
        trunk = forward_completions(reference.model, [prompt_ids], [token_ids])
        rewards_T = potential.values(prefix_states(trunk))[0].diff()
        return TokenRewards(
            prompt, reference.decode(token_ids), tuple(reference.token_offsets(token_ids)), tuple(rewards_T.tolist())
        )

    return score


def save_potential(reference: LanguageModel, potential: Potential, folder: Path) -> None:
    """Write the potential, and which model's states it reads, whole or not at all. Raises StoreError."""
    with written_whole(folder) as temporary:
        temporary.mkdir(parents=True)
        save_file(potential.tensors(), temporary / "potential.safetensors")
        described = {"reference": reference.name, "weights": weights_digest(reference.model)}
        (temporary / "potential.json").write_text(json.dumps(described), encoding="utf-8")


def load_potential(folder: Path) -> tuple[LanguageModel, Potential]:
    """The reference and the potential that reads its states. `folder` may be a run's.

    Raises ModelError where there is none, or where the reference is no longer the same model.
    """
    folder = folder / "potential" if (folder / "potential").is_dir() else folder
    try:
        described = json.loads((folder / "potential.json").read_text(encoding="utf-8"))
        potential = Potential.from_tensors(load_file(folder / "potential.safetensors"))
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"no learned potential in {folder} ({error}); give the folder of a run of simulate or optimize"
        ) from error
    reference = load_language_model(described["reference"])
    if weights_digest(reference.model) != described["weights"]:
        raise ModelError(f"{described['reference']} has changed since the potential in {folder} was learned on it")
    return reference, potential


def potential_version(potential: Potential) -> str:
    """Changes whenever the rewards of tokens would."""
    return "phi-" + hashlib.sha256(potential.weights_E.numpy().tobytes()).hexdigest()[:12]
