"""Reward models on disk: plain Hugging Face folders (safetensors) with a small reward.json beside.

classifier   loads in plain transformers as AutoModelForSequenceClassification with one label: its logit,
             minus `offset`, over `scale`, is the reward
heads        heads.safetensors, and the frozen trunk they read in the folder `trunk`
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rewardloop.errors import ConfigError, ModelError
from rewardloop.files import written_whole
from rewardloop.reward.classifier import Classifier, load_classifier
from rewardloop.reward.features import EncoderFeatures, FeatureExtractor, make_extractor
from rewardloop.reward.fitting import LinearHeads
from rewardloop.reward.model import RewardModel, Scorer

DESCRIPTION, HEADS, TRUNK = "reward.json", "heads.safetensors", "trunk"


@dataclass(frozen=True, slots=True)
class Description:
    """What a folder needs beside its tensors."""

    form: str  # "classifier" or "heads"
    version: str
    offset: float
    scale: float
    sharpness: float
    uncertainty_weight: float
    length_slope: float = 0.0
    end_ids: tuple[int, ...] = ()


def save_reward(model: RewardModel, folder: Path) -> None:
    """Write a reward model, whole or not at all. Raises StoreError, or ConfigError for heads on other features."""
    scorer = model.scorer
    if not (isinstance(scorer, Classifier) or _has_trunk(scorer)):
        raise ConfigError(f"a reward made of {type(scorer).__name__} on these features has no form on disk")
    description = Description(
        form="classifier" if isinstance(scorer, Classifier) else "heads",
        version=model.version,
        offset=model.offset,
        scale=model.scale,
        sharpness=model.sharpness,
        uncertainty_weight=model.uncertainty_weight,
        length_slope=model.length_slope,
        end_ids=scorer.end_ids if isinstance(scorer, Classifier) else (),
    )
    with written_whole(Path(folder)) as temporary:
        _save_scorer(scorer, temporary)
        (temporary / DESCRIPTION).write_text(json.dumps(asdict(description), indent=2), encoding="utf-8")


def load_reward(folder: Path, device: str | None = None) -> RewardModel:
    """A reward model as `save_reward` wrote it.

    Raises ModelError for a folder that is none, is malformed, or whose tensors are not those it was saved with.
    """
    folder = Path(folder)
    description = _read_description(folder)
    if description.form == "classifier":
        scorer: Scorer = load_classifier(folder, description.end_ids, device)
    else:
        scorer = _load_heads(folder, device)
    model = RewardModel(
        scorer,
        offset=description.offset,
        scale=description.scale,
        sharpness=description.sharpness,
        uncertainty_weight=description.uncertainty_weight,
        length_slope=description.length_slope,
    )
    if model.version != description.version:
        raise ModelError(
            f"the reward in {folder} is {model.version}, its {DESCRIPTION} says {description.version}: "
            "files of two models are mixed; copy the folder again, whole"
        )
    return model


def _has_trunk(scorer: Scorer) -> bool:
    return isinstance(scorer, LinearHeads) and isinstance(scorer.extractor, FeatureExtractor | EncoderFeatures)


def _save_scorer(scorer: Scorer, folder: Path) -> None:
    if isinstance(scorer, Classifier):
        scorer.save(folder)
    elif isinstance(scorer, LinearHeads) and isinstance(scorer.extractor, FeatureExtractor | EncoderFeatures):
        scorer.extractor.save(folder / TRUNK)
        save_file(scorer.tensors(), folder / HEADS)


def _load_heads(folder: Path, device: str | None) -> LinearHeads:
    try:
        tensors = load_file(folder / HEADS)
        return LinearHeads(make_extractor(folder / TRUNK, device=device), **tensors)
    except (OSError, SafetensorError, TypeError) as error:
        raise ModelError(f"could not read {folder / HEADS}: {error}; copy the folder again, whole") from error


def _read_description(folder: Path) -> Description:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise ModelError(f"{folder} is no reward model: it has no {DESCRIPTION}; make one with train-reward")
    try:
        return TypeAdapter(Description).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from error
