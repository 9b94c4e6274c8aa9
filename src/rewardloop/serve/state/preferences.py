"""What managers have settled for everybody: guidelines, criteria, what annotators see. From `settings.*` events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from rewardloop.feedback.log.events import Event
from rewardloop.feedback.log.submissions import DeclaredScale
from rewardloop.serve.edge.errors import ApiError

MOST_CRITERIA: Final = 32

DEFAULT_GUIDELINES: Final = (
    "Judge the answer as it stands. Is what it says true? Does it stay with the question? Is it kind? "
    "When two answers are equally good, say so."
)


class Criterion(BaseModel):
    """Something that answers are judged by."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-z0-9_-]+$")
    scale: DeclaredScale = DeclaredScale(low=1, high=5)
    description: str = Field(default="", max_length=2000)


class Settings(BaseModel):
    """The settings of the data directory that the page shows."""

    model_config = ConfigDict(extra="forbid")
    guidelines: str = Field(default=DEFAULT_GUIDELINES, max_length=20_000)
    criteria: list[Criterion] = Field(default_factory=lambda: [Criterion(name="overall")], max_length=MOST_CRITERIA)
    show_rewards_to_annotators: bool = False  # colors while one judges would sway the judge
    settling_s: float = Field(default=3.0, ge=0, le=3600)  # seconds before feedback may be learned from


@dataclass
class Preferences:
    """The present settings."""

    settings: Settings = field(default_factory=Settings)

    def apply(self, event: Event) -> None:
        """Let an event of the log have its effect. Events of other kinds have none."""
        if event.kind == "settings.changed":
            self.settings = Settings.model_validate({**self.settings.model_dump(mode="json"), **event.body})

    def criterion(self, name: str) -> Criterion | None:
        return next((criterion for criterion in self.settings.criteria if criterion.name == name), None)

    def with_criterion(self, criterion: Criterion) -> dict[str, Any]:
        """The change that declares `criterion`, in place of one of the same name.

        Raises ApiError 409 where it is one too many: what is stored must be readable when the gateway starts again.
        """
        others = [each for each in self.settings.criteria if each.name != criterion.name]
        if len(others) >= MOST_CRITERIA:
            raise ApiError(409, f"there are {MOST_CRITERIA} criteria, which is all that fit", param="name")
        return {"criteria": [each.model_dump(mode="json") for each in (*others, criterion)]}
