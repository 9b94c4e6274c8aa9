"""Feedback as it is sent in and stored: a judgment by reference to completions, not by their texts.

The body of `POST /v1/feedback` and of the event `feedback.created`; one small model for each kind. `judgments.py` joins
it with the completions to what a learner reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from rewardloop.errors import DataError
from rewardloop.feedback.log.events import NewEvent
from rewardloop.feedback.log.schema import NAME
from rewardloop.types import Scale

EXTERNAL = "external:"  # before the name of an annotator who has no account here, so that he can never be taken for one

IMPORT = "import"  # kind of the actor that stores what others collected

Name = Annotated[str, Field(min_length=1, max_length=NAME.length, pattern=r"^[^\x00-\x1f\x7f]+$")]
Whole = Annotated[int, Field(ge=0, lt=2**31)]


class SubmissionError(DataError):
    """A judgment that cannot be stored; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Target(_Closed):
    """One completion, by exactly one of its id, the caller's own id, or the conversation whose last answer it is.

    `tokens` [a, b) narrows a rating, comment, flag or span to a part of it.
    """

    completion_id: Name | None = None
    external_id: Name | None = None
    conversation_id: Name | None = None
    choice: Whole = 0
    tokens: Annotated[tuple[Whole, Whole], Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Target:
        if sum(value is not None for value in (self.completion_id, self.external_id, self.conversation_id)) != 1:
            raise ValueError("give one of completion_id, external_id, conversation_id")
        if self.tokens is not None and self.tokens[0] >= self.tokens[1]:
            raise ValueError("tokens [a, b) must have a < b")
        return self


class ExternalAnnotator(_Closed):
    """A person known to the caller only."""

    external_id: Annotated[Name, Field(max_length=NAME.length - len(EXTERNAL))]


class DeclaredScale(_Closed):
    """Integers from `low` to `high`."""

    low: int
    high: int

    @model_validator(mode="after")
    def _check(self) -> DeclaredScale:
        if not self.low < self.high <= self.low + 1000:
            raise ValueError("a scale runs from low to a greater high, by at most 1000 steps")
        return self

    def scale(self) -> Scale:
        return Scale(low=self.low, high=self.high)


class _Submission(_Closed):
    criterion: Name = "overall"
    annotator: ExternalAnnotator | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class _OfOne(_Submission):
    target: Target

    @property
    def about(self) -> tuple[Target, ...]:
        return (self.target,)


class _OfSeveral(_Submission):
    targets: Annotated[tuple[Target, ...], Field(min_length=2, max_length=64, strict=False)]

    @property
    def about(self) -> tuple[Target, ...]:
        return self.targets


class RatingSubmission(_OfOne):
    kind: Literal["rating"]
    value: int
    scale: DeclaredScale = DeclaredScale(low=1, high=5)

    @model_validator(mode="after")
    def _check(self) -> RatingSubmission:
        if not self.scale.low <= self.value <= self.scale.high:
            raise ValueError(f"value {self.value} is not on the scale from {self.scale.low} to {self.scale.high}")
        return self


class PreferenceSubmission(_OfSeveral):
    kind: Literal["preference"]
    choice: Literal["first", "second", "tie", "both_bad"]

    @model_validator(mode="after")
    def _check(self) -> PreferenceSubmission:
        if len(self.targets) != 2:
            raise ValueError(f"a preference has two targets, given {len(self.targets)}; a ranking takes more")
        return self


class RankingSubmission(_OfSeveral):
    kind: Literal["ranking"]
    ranks: Annotated[tuple[Annotated[int, Field(ge=1, le=64)], ...], Field(strict=False)]

    @model_validator(mode="after")
    def _check(self) -> RankingSubmission:
        if len(self.targets) != len(self.ranks):
            raise ValueError(f"{len(self.targets)} targets and {len(self.ranks)} ranks; give a rank for each")
        return self


class EditSubmission(_OfOne):
    kind: Literal["edit"]
    corrected: str


class CommentSubmission(_OfOne):
    kind: Literal["comment"]
    text: Annotated[str, Field(min_length=1)]


class DialogueSubmission(_OfOne):
    kind: Literal["dialogue"]
    reply: Annotated[str, Field(min_length=1)]
    evaluation: Literal[-1, 0, 1] | None = None
    rewrite: str | None = None


class LiveSubmission(_OfOne):
    kind: Literal["live"]
    value: Literal[-1, 1]
    token_index: Whole | None = None  # the token that had just appeared
    offset: Whole | None = None  # or the character, where there are no tokens on record
    reaction_ms: Whole

    @model_validator(mode="after")
    def _check(self) -> LiveSubmission:
        if (self.token_index is None) == (self.offset is None):
            raise ValueError("give one of token_index, offset")
        return self


class SpanSubmission(_OfOne):
    kind: Literal["span"]
    start: Whole | None = None
    end: Whole | None = None
    category: Name
    severity: Annotated[float, Field(ge=-1, le=1, strict=False)] = -1.0

    @model_validator(mode="after")
    def _check(self) -> SpanSubmission:
        if self.start is None and self.end is None and self.target.tokens is not None:
            return self
        if self.start is None or self.end is None or self.start >= self.end or self.target.tokens is not None:
            raise ValueError("a span has characters start < end, or tokens in its target")
        return self


class FlagSubmission(_OfOne):
    kind: Literal["flag"]
    reason: Annotated[str, Field(min_length=1)]


Submission = (
    RatingSubmission
    | PreferenceSubmission
    | RankingSubmission
    | EditSubmission
    | CommentSubmission
    | DialogueSubmission
    | LiveSubmission
    | SpanSubmission
    | FlagSubmission
)

SUBMISSION: TypeAdapter[Submission] = TypeAdapter(Annotated[Submission, Field(discriminator="kind")])


def parse_submission(values: Mapping[str, Any]) -> Submission:
    """The judgment in `values`. Raises SubmissionError that names the field."""
    try:
        return SUBMISSION.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        kinds = {values.get("kind")}
        param = ".".join(str(part) for part in first["loc"] if part not in kinds) or None
        message = first["msg"].removeprefix("Value error, ")
        raise SubmissionError(f"{param}: {message}" if param else message, param) from error


def feedback_event(
    submission: Submission,
    actor_id: str,
    actor_kind: str,
    *,
    conversation_id: str | None = None,
    idem_key: str | None = None,
) -> NewEvent:
    """The event that stores `submission`."""
    named = submission.annotator
    return NewEvent(
        kind="feedback.created",
        actor_id=actor_id,
        actor_kind=actor_kind,
        subject_id=EXTERNAL + named.external_id if named else None,
        target_id=submission.about[0].completion_id,
        conversation_id=conversation_id or submission.about[0].conversation_id,
        idem_key=idem_key,
        body=submission.model_dump(mode="json", exclude_defaults=True),
    )
