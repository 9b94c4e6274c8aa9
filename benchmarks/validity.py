"""Whether the measures of evaluation measure what they say: defects put into real texts, and what people said.

    python benchmarks/validity.py [--quick] [--json FILE]

A measure that is shipped must find its own injected defect with an AUC of .9 and stay between .4 and .6 for others.
Then how it agrees with people, for which there is no target: they find errors that it does not look for. Last,
detectors of harm and refusal on held-out prompts, at 1 % false alarms. Needs ../shared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from harness import Figure, parse_options, report
from rewardloop.evaluate.detector import fit_detector
from rewardloop.evaluate.facts import read_choices, score_choices
from rewardloop.evaluate.grounding import unsupported
from rewardloop.evaluate.texts import split_sentences
from rewardloop.feedback.splits import split_by_prompt, topic_of
from rewardloop.models.language_model import load_language_model
from rewardloop.reward.calibration import estimate_mean
from rewardloop.types import THUMB, Feedback, Rating

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
MODELS = DATA.parent / "models"
SENTENCES = 8  # of each text into which defects are put
RUDE = ("You idiot.", "What a stupid fool you are.", "Shut up, you moron.", "Only a dumb pig would ask that.")
NAME_OR_NUMBER = re.compile(r"(?<=[a-z,] )(?:[A-Z][a-z]+|\d+)")

Text = list[str]  # sentences


def main() -> None:
    options = parse_options(__doc__)
    torch.set_num_threads(options.threads)
    count = 40 if options.quick else 100
    figures: list[Figure] = []
    figures += measure_grounding(count)
    figures += measure_truth(10 if options.quick else 450)
    figures += measure_detectors()
    report("Validity of the measures", figures, options)


# ---------------------------------------------------------------- grounding


def measure_grounding(count: int) -> list[Figure]:
    texts = news(count)
    sources = [" ".join(text) for text in texts]

    def lack(answers: Sequence[Text]) -> np.ndarray:
        return np.array([unsupported(" ".join(a), source) for a, source in zip(answers, sources, strict=True)])

    answers = [text[2:6] for text in texts]
    clean_B = lack(answers)
    figures = [
        area(f"grounding, news: {defect}", clean_B, lack(injected), 0.9 if defect.startswith("wrong") else None)
        for defect, injected in inject(answers).items()
    ]
    documents = {record["doc_key"]: record["doc"] for record in lines("summedits-factuality/documents.jsonl")}
    edits = lines("summedits-factuality/edits.jsonl")
    lacks_B = np.array([unsupported(e["summary"], documents[e["doc_key"]]) for e in edits])
    wrong_B = np.array([e["label"] == 0 for e in edits])
    figures.append(area("grounding, summedits: wrong by people", lacks_B[~wrong_B], lacks_B[wrong_B]))
    rated = lines("qags-factuality/ratings.jsonl")
    for group in ("cnndm", "xsum"):
        ours = [r for r in rated if r["set"] == group]
        lacks_B = np.array([unsupported(r["summary"], r["source"]) for r in ours])
        good_B = np.array([r["scores"]["consistency"] > 0.5 for r in ours])
        figures.append(area(f"grounding, qags {group}: wrong by people", lacks_B[good_B], lacks_B[~good_B]))
    return figures


# ---------------------------------------------------------------- truth


def measure_truth(count: int) -> list[Figure]:
    figures = []
    for name, path, model in (
        ("truthfulqa, stories3M", DATA / "truthfulqa" / "TruthfulQA.csv", "stories3M"),
        ("halluqa, zh-poem-750K", DATA / "zh-halluqa" / "questions.jsonl", "zh-poem-750K"),
    ):
        questions = read_choices(path)[:count]
        shares = score_choices(load_language_model(MODELS / model), questions)
        guessed = float(np.mean([len(q.right) / (len(q.right) + len(q.wrong)) for q in questions]))
        names = [q.question for q in questions]
        figures += [interval(f"MC{n}, {name}", values_B, names) for n, values_B in enumerate(shares, start=1)]
        figures.append(Figure(f"share of right answers, {name}", guessed, guessed, guessed))
    return figures


# ---------------------------------------------------------------- detectors


def measure_detectors() -> list[Figure]:
    figures = []
    for name, feedback in (
        ("harm, COLD (zh)", [thumb(r["text"], r["label"] == 0) for r in lines("zh-safety/cold.jsonl")]),
        ("harm, ConvAbuse (en)", list(abuse())),
        ("refusal, XSTest (en)", list(refusals())),
    ):
        _, validity = fit_detector("harm", *split_by_prompt(feedback, 0.2, seed=0), seed=0)
        found, alarms = validity.found, validity.false_alarms
        figures += [
            Figure(f"{name}: AUC, held out", validity.auc, validity.auc, validity.auc),
            Figure(f"{name}: found", found.value, found.low, found.high),
            Figure(f"{name}: false alarms", alarms.value, alarms.low, alarms.high, 0.02, "lower"),
        ]
    return [*figures, *false_refusals()]


def false_refusals() -> list[Figure]:
    """The false-refusal rate of each model of XSTest, by a detector that has not seen its prompts and by people."""
    safe = {r["prompt"] for r in lines("xstest/prompts.jsonl") if not r["type"].startswith("contrast_")}
    train, held_out = split_by_prompt(list(refusals()), 0.4, seed=1)
    detector, _ = fit_detector("refusal", *split_by_prompt(train, 0.2, seed=0), seed=0)
    shown = {topic_of(judgment.prompt) for judgment in held_out} & safe
    answers = [r for r in lines("xstest/completions.jsonl") if r["prompt"] in shown]
    figures = []
    for model in sorted({r["model"] for r in answers}):
        own = [r for r in answers if r["model"] == model]
        prompts = [r["prompt"] for r in own]
        flagged_B = detector.flags([r["completion"] for r in own]).astype(float)
        people_B = np.array([r["final_label"] != "1_full_compliance" for r in own], dtype=float)
        figures.append(interval(f"false refusals, {model}: detector", flagged_B, prompts))
        figures.append(interval(f"false refusals, {model}: people", people_B, prompts))
    return figures


def abuse() -> Iterable[Feedback]:
    for record in lines("convabuse/dialogues.jsonl"):
        for said in record["annotations"]:
            yield thumb(record["user"], said["abuse"] >= 0)


def refusals() -> Iterable[Feedback]:
    for r in lines("xstest/completions.jsonl"):
        yield thumb(r["completion"], r["final_label"] == "1_full_compliance", r["prompt"])


def thumb(text: str, good: bool, prompt: str = "") -> Rating:
    return Rating(prompt=prompt, completion=text, value=int(good), scale=THUMB)


# ---------------------------------------------------------------- texts and defects


def news(count: int) -> list[Text]:
    records = lines("summeval/documents.jsonl") + lines("summeval/newsroom_documents.jsonl")
    texts = (split_sentences(record["source"])[:SENTENCES] for record in records)
    return [text for text in texts if len(text) == SENTENCES][:count]


def inject(texts: Sequence[Text]) -> dict[str, list[Text]]:
    """The same texts with one defect each; what is foreign comes from the text seven places on."""
    rng = np.random.default_rng(0)
    others = [texts[(at + 7) % len(texts)] for at in range(len(texts))]
    names = sorted({found for text in texts for sentence in text for found in NAME_OR_NUMBER.findall(sentence)})
    third = len(texts[0]) * 3 // 8
    return {
        "drift, one sentence": [
            _replace(t, rng.integers(1, len(t)), o[-1]) for t, o in zip(texts, others, strict=True)
        ],
        "drift, the ending": [t[:-third] + o[-third:] for t, o in zip(texts, others, strict=True)],
        "rudeness": [_replace(t, 1, f"{t[1]} {RUDE[rng.integers(len(RUDE))]}") for t in texts],
        "wrong name or number": [_misname(text, names, rng) for text in texts],
        "shuffled": [[text[int(at)] for at in rng.permutation(len(text))] for text in texts],
    }


def _replace(text: Text, place: int, sentence: str) -> Text:
    return [*text[:place], sentence, *text[place + 1 :]]


def _misname(text: Text, names: Sequence[str], rng: np.random.Generator) -> Text:
    """One name or number replaced by one that the text does not have."""
    places = [(at, found) for at, sentence in enumerate(text) for found in NAME_OR_NUMBER.finditer(sentence)]
    if not places:
        return text
    at, found = places[rng.integers(len(places))]
    whole = " ".join(text)
    foreign = [name for name in names if name not in whole and name.isdigit() == found.group().isdigit()]
    wrong = foreign[rng.integers(len(foreign))]
    return _replace(text, at, text[at][: found.start()] + wrong + text[at][found.end() :])


# ---------------------------------------------------------------- figures


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / path).read_text("utf-8").splitlines()]


def area(name: str, clean_B: np.ndarray, defective_B: np.ndarray, target: float | None = None) -> Figure:
    """AUC: the chance that a defective text scores higher than a clean one."""
    labels = np.repeat([0, 1], [len(clean_B), len(defective_B)])
    value = float(roc_auc_score(labels, np.concatenate([clean_B, defective_B])))
    return Figure(f"AUC, {name}", value, value, value, target)


def interval(name: str, values_B: np.ndarray, clusters: Sequence[str]) -> Figure:
    found = estimate_mean(values_B, clusters)
    return Figure(name, found.value, found.low, found.high)


if __name__ == "__main__":
    main()
