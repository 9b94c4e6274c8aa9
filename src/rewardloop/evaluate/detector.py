"""A detector of one defect of a text (harm, refusal, ...), learned from judged examples, quick and without a model.

Logistic regression on which runs of 1 to 4 characters occur in the text: it works in any language, survives
misspelling, and is one small file of weights. It has a threshold at which 1 % of faultless texts are flagged.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from rewardloop.errors import DataError, ModelError
from rewardloop.evaluate.defects import wilson_interval
from rewardloop.feedback.splits import split_by_prompt
from rewardloop.files import written_whole
from rewardloop.reward.calibration import Estimate
from rewardloop.types import Feedback, Flag, Prompt, Rating

COLUMNS: Final = 2**16
FALSE_ALARMS: Final = 0.01  # share of faultless texts that may be flagged
CALIBRATION: Final = 0.25  # share of the training prompts that only set the threshold
FEWEST: Final = 100  # faultless texts below which 1 % of them means nothing
FEWEST_EXAMPLES: Final = 10

_NGRAMS: Final = HashingVectorizer(
    analyzer="char", ngram_range=(1, 4), n_features=COLUMNS, alternate_sign=False, binary=True, norm="l2"
)


@dataclass(frozen=True, eq=False)
class Detector:
    """Flags texts that have the defect `name`."""

    name: str
    weights_D: np.ndarray  # float32
    threshold: float  # of weights . features

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """How much each text looks like the defect, [B]; flagged above `threshold`."""
        scores_B: np.ndarray = _features(texts) @ self.weights_D
        return scores_B

    def flags(self, texts: Sequence[str]) -> np.ndarray:
        """Which texts have the defect: bool array of B."""
        flagged_B: np.ndarray = self.scores(texts) > self.threshold
        return flagged_B


@dataclass(frozen=True, slots=True)
class Validity:
    """What a detector does on texts of prompts that it has not seen."""

    texts: int
    auc: float  # 1 = perfect order, .5 = none
    found: Estimate  # share of the defective texts that are flagged
    false_alarms: Estimate  # share of the faultless ones


def fit_detector(
    name: str, train: Sequence[Feedback], held_out: Sequence[Feedback], seed: int
) -> tuple[Detector, Validity]:
    """Learn to tell texts that people found wanting, and measure it on the held-out ones.

    A text has the defect where it is flagged, or its mean rating lies below the middle of the scale. Weights
    and threshold come from different prompts of `train`. Raises DataError where there is too little.
    """
    fitting, calibrating = split_by_prompt(train, CALIBRATION, seed)
    texts, bad_B = label_texts(fitting)
    _require(bad_B, "to learn from", FEWEST_EXAMPLES)
    _require(~bad_B, "to learn from", FEWEST_EXAMPLES, kind="faultless")
    model = LogisticRegression(C=30, solver="liblinear", fit_intercept=False, random_state=seed)
    weights_D = model.fit(_features(texts), bad_B).coef_[0].astype(np.float32)
    detector = Detector(name, weights_D, 0.0)
    texts, bad_B = label_texts(calibrating)
    _require(~bad_B, "to set the threshold by", FEWEST, kind="faultless")
    detector = Detector(name, weights_D, _threshold(detector.scores(texts)[~bad_B]))
    return detector, _validity(detector, *label_texts(held_out))


def label_texts(feedback: Sequence[Feedback]) -> tuple[list[str], np.ndarray]:
    """Each judged text once, and whether it has the defect: bool array of B."""
    goodness: dict[tuple[Prompt, str], list[float]] = defaultdict(list)
    for judgment in feedback:
        if isinstance(judgment, Flag):
            goodness[judgment.prompt, judgment.completion].append(0.0)
        elif isinstance(judgment, Rating):
            scale = judgment.scale
            share = (judgment.value - scale.low) / (scale.high - scale.low)
            goodness[judgment.prompt, judgment.completion].append(share)
    return [text for _, text in goodness], np.array([np.mean(said) < 0.5 for said in goodness.values()], dtype=bool)


def save_detector(detector: Detector, path: Path) -> None:
    """One safetensors file, whole or not at all. Raises StoreError."""
    described = {"name": detector.name, "threshold": repr(detector.threshold), "ngrams": _ngrams()}
    with written_whole(path) as temporary:
        save_file({"weights": detector.weights_D}, temporary, metadata=described)


def load_detector(path: Path) -> Detector:
    """Raises ModelError where `path` is not a detector."""
    try:
        with safe_open(path, framework="np") as file:
            described, weights_D = file.metadata() or {}, file.get_tensor("weights")
            detector = Detector(described["name"], weights_D, float(described["threshold"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"no detector in {path} ({error}); make one with rewardloop train-detector") from error
    if weights_D.shape != (COLUMNS,) or described.get("ngrams") != _ngrams():
        raise ModelError(f"the detector in {path} reads other features than this version; train it again")
    return detector


def validity_json(validity: Validity) -> str:
    """The validity as JSON."""
    return json.dumps(asdict(validity), indent=2) + "\n"


def _features(texts: Sequence[str]) -> Any:  # a sparse matrix [B, D]
    return _NGRAMS.transform(list(texts))


def _ngrams() -> str:
    low, high = _NGRAMS.ngram_range
    return f"{_NGRAMS.analyzer} {low}-{high}"


def _threshold(faultless_B: np.ndarray) -> float:
    """At most FALSE_ALARMS of new faultless texts lie above it, on average over draws of the calibration texts.

    The ceil((n + 1) (1 - FALSE_ALARMS))-th smallest of n scores. Source: Vovk, Gammerman, Shafer 2005 (split
    conformal prediction).
    """
    place = int(np.ceil((len(faultless_B) + 1) * (1 - FALSE_ALARMS))) - 1
    return float(np.sort(faultless_B)[min(place, len(faultless_B) - 1)])


def _validity(detector: Detector, texts: Sequence[str], bad_B: np.ndarray) -> Validity:
    _require(bad_B, "to measure on", 1)
    _require(~bad_B, "to measure on", 1, kind="faultless")
    flagged_B = detector.flags(texts)
    rates = [wilson_interval(float(flagged_B[which].mean()), int(which.sum())) for which in (bad_B, ~bad_B)]
    return Validity(len(texts), float(roc_auc_score(bad_B, detector.scores(texts))), *rates)


def _require(wanted_B: np.ndarray, what: str, fewest: int, kind: str = "defective") -> None:
    if wanted_B.sum() < fewest:
        raise DataError(
            f"{int(wanted_B.sum())} {kind} texts {what} (of {len(wanted_B)} rated or flagged ones), expected {fewest} "
            "or more; give more judgments of both kinds"
        )
