"""Stored submissions and completions, joined to the judgments of types.py that a learner reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from rewardloop.errors import DataError
from rewardloop.feedback.conversations import read_messages
from rewardloop.feedback.log.arrays import Sampled
from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.submissions import (
    CommentSubmission,
    DialogueSubmission,
    EditSubmission,
    FlagSubmission,
    LiveSubmission,
    PreferenceSubmission,
    RankingSubmission,
    RatingSubmission,
    SpanSubmission,
    Submission,
    Target,
)
from rewardloop.feedback.records import build_feedback
from rewardloop.types import (
    Comment,
    Completion,
    Dialogue,
    Edit,
    Feedback,
    Flag,
    Live,
    Preference,
    Prompt,
    Ranking,
    Rating,
    Span,
)


@dataclass(frozen=True, slots=True, eq=False)
class StoredCompletion:
    """One finished choice of a completion, as it was sampled."""

    completion_id: str
    choice: int
    seq: int  # of its end
    conversation_id: str | None
    model: str | None
    completion: Completion
    ends_T: Any  # characters of the text up to and with each token; empty where the tokens are not on record
    plain: bool = True  # sampled from the policy itself: nothing cut off, penalized or biased

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """The characters of tokens [start, end)."""
        length = len(self.completion.text)
        ends = [0, *map(int, self.ends_T)]
        last = len(ends) - 1
        return min(ends[min(start, last)], length), min(ends[min(end, last)], length)


def stored_completion(started: Event, finished: Event, sampled: Sampled) -> StoredCompletion:
    """What the events of one completion say together; `started` is `finished` where the start is not on record."""
    body = finished.body
    sampling = started.body.get("sampling") or body.get("sampling") or {}
    return StoredCompletion(
        completion_id=str(finished.target_id),
        choice=int(body.get("choice", 0)),
        seq=finished.seq,
        conversation_id=finished.conversation_id,
        model=started.body.get("model") or body.get("model"),
        completion=Completion(
            prompt=as_prompt(body.get("prompt", started.body.get("prompt", ""))),
            prompt_ids=tuple(sampled.prompt_ids_P.tolist()),
            token_ids=tuple(sampled.token_ids_T.tolist()),
            logprobs_T=sampled.logprobs_T,
            weight_versions_T=sampled.weight_versions_T,
            text=str(body["text"]),
            finish_reason=body.get("finish_reason", "stop"),
            temperature=float(sampling.get("temperature", 1.0)),
        ),
        ends_T=sampled.ends_T,
        plain=not any(sampling.get(name) for name in _BENDING) and sampling.get("top_p") in (None, 1),
    )


_BENDING = ("stop", "presence_penalty", "frequency_penalty", "logit_bias")


def as_prompt(value: Any) -> Prompt:
    """A prompt as events hold it: a text, or a list of messages."""
    return value if isinstance(value, str) else read_messages(value)


def judgment_of(submission: Submission, about: Sequence[StoredCompletion], annotator: str | None) -> Feedback:
    """The judgment that `submission` passes on the completions `about`, in the order of its targets.

    A rating or a flag of a part of an answer is a mark on that part. Raises DataError where the completions do not bear
    it (a span beyond the end of the text).
    """
    first = about[0]
    base = {"prompt": first.completion.prompt, "annotator": annotator, "criterion": submission.criterion}
    if isinstance(submission, PreferenceSubmission):
        texts = {"first": first.completion.text, "second": about[1].completion.text}
        return build_feedback(Preference, {**base, **texts, "choice": submission.choice})
    if isinstance(submission, RankingSubmission):
        completions = tuple(stored.completion.text for stored in about)
        return build_feedback(Ranking, {**base, "completions": completions, "ranks": submission.ranks})
    kind, values = _of_one(submission, first)
    return build_feedback(kind, {**base, "completion": first.completion.text, **values})


_OfOne = (
    RatingSubmission
    | EditSubmission
    | CommentSubmission
    | DialogueSubmission
    | LiveSubmission
    | SpanSubmission
    | FlagSubmission
)


def _of_one(submission: _OfOne, stored: StoredCompletion) -> tuple[type[Feedback], Mapping[str, Any]]:
    match submission:
        case RatingSubmission(value=value, scale=scale, target=Target(tokens=(_, _) as tokens)):
            severity = 2 * (value - scale.low) / (scale.high - scale.low) - 1
            return Span, _mark(stored, tokens, submission.criterion, severity)
        case RatingSubmission(value=value, scale=scale):
            return Rating, {"value": value, "scale": scale.scale()}
        case EditSubmission(corrected=corrected):
            return Edit, {"corrected": corrected}
        case CommentSubmission(text=text):
            return Comment, {"text": text}
        case DialogueSubmission(reply=reply, evaluation=evaluation, rewrite=rewrite):
            return Dialogue, {"reply": reply, "evaluation": evaluation, "rewrite": rewrite}
        case LiveSubmission(value=value, token_index=token, offset=offset, reaction_ms=reaction_ms):
            if token is not None:
                offset, _ = _characters(stored, (token, token + 1))
            return Live, {"offset": offset, "value": value, "reaction_ms": reaction_ms}
        case SpanSubmission(category=category, severity=severity, target=Target(tokens=(_, _) as tokens)):
            return Span, _mark(stored, tokens, category, severity)
        case SpanSubmission(start=start, end=end, category=category, severity=severity):
            return Span, {"start": start, "end": end, "category": category, "severity": severity}
        case FlagSubmission(reason=reason, target=Target(tokens=(_, _) as tokens)):
            return Span, _mark(stored, tokens, reason, -1.0)
        case FlagSubmission(reason=reason):
            return Flag, {"reason": reason}
    assert_never(submission)


def _mark(stored: StoredCompletion, tokens: tuple[int, int], category: str, severity: float) -> Mapping[str, Any]:
    start, end = _characters(stored, tokens)
    return {"start": start, "end": end, "category": category, "severity": severity}


def _characters(stored: StoredCompletion, tokens: tuple[int, int]) -> tuple[int, int]:
    if not len(stored.ends_T):
        raise DataError(f"tokens {list(tokens)} of a completion without tokens on record; mark characters")
    return stored.characters(*tokens)
