"""The record of one answer as REST and `theracast score --json` give it, for the OpenAPI schema."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Number = float | None


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class HorizonAnswer(_Part):
    """One of the answers of an endpoint: the chance of the event by a horizon, of a level or a better one, or a number."""

    name: str
    horizon: Number = Field(None, description="Days from the decision.")
    level: str | None = None
    probability: Number = None
    value: Number = None
    low: float
    high: float
    competing: Number = Field(None, description="Chance that the competing event comes first and by the horizon.")


class PredictionSet(_Part):
    """What is to be expected with a stated assurance (conformal)."""

    set_: list[str] | None = Field(None, alias="set", description="Outcomes: yes, no, or levels.")
    low: Number = Field(None, description="Of a number; null is open.")
    high: Number = None
    not_before_day: Number = Field(None, description="Days before which the event does not come.")
    coverage: float
    basis: str = Field("", description="On which patients it rests.")


class RarelySeen(_Part):
    """How unusual the patient is among the development patients."""

    rare: bool
    percentile: float
    modalities: dict[str, float]
    because: list[str] = []
    sentence: str | None = None


class SimilarCurve(_Part):
    """Share without the event at each day among similar patients; null where fewer than ten would tell."""

    days: list[float]
    event_free: list[Number]
    low: list[Number]
    high: list[Number]
    at_risk: list[int | None]


class Similar(_Part):
    """What became of the development decisions most like this one."""

    n: int = Field(description="Decisions.")
    patients: int
    far: bool = Field(description="Even these are unlike this patient.")
    rate: Number = None
    mean: Number = None
    low: Number = None
    high: Number = None
    spread: Number = None
    levels: dict[str, float] | None = None
    curve: SimilarCurve | None = None


class Validated(_Part):
    """Performance validated for the modalities that this patient has."""

    pattern: list[str]
    absent: list[str]
    exact: bool
    sentence: str
    n: int | None = None
    events: int | None = None
    auc: Number = None
    auc_low: Number = None
    auc_high: Number = None


class MovedValue(_Part):
    """A feature whose value moved between two decisions; null is not measured."""

    before: float | str | None
    now: float | str | None
    change: Number = None
    unit: str | None = None


class ChangeRecord(_Part):
    """What changed since an earlier decision: `base` and `contributions` are exact differences on the scale of the answer."""

    from_day: float
    day: float
    before: float
    now: float
    base: float
    contributions: dict[str, float]
    values: dict[str, MovedValue]
    sentence: str


class Changes(_Part):
    """What changed; `since_start` where the last decision was not the first one."""

    since_last_decision: ChangeRecord
    since_start: ChangeRecord | None = None


class EndpointRecord(_Part):
    """The answer for one endpoint. On its scale the leading answer is `base + sum of contributions`.

    The scale is log-odds for yes or no and ordered levels, the log cumulative hazard for a time to an event, the number itself
    for a number. Where `abstained` stands, no answer is given and the numbers are null.
    """

    kind: Literal["time_to_event", "ordinal", "continuous"] | None = Field(None, description="Absent for yes or no.")
    scale: str | None = None
    unit: str | None = None
    probability: Number = Field(None, description="Calibrated; of yes, or of the leading horizon or level.")
    value: Number = Field(None, description="In place of the probability, of a number.")
    low: Number = Field(description="Lower end of the 95 % interval.")
    high: Number
    base: Number
    contributions: dict[str, float]
    modalities: dict[str, float]
    on_scale: Number = Field(
        None, description="Where another event may come first: what base and contributions add up to."
    )
    answers: list[HorizonAnswer] = Field([], description="All horizons or levels, the leading one first.")
    prediction_set: PredictionSet | None = None
    rarely_seen: RarelySeen | None = None
    similar: Similar | None = None
    validated: Validated | None = None
    abstained: str | None = Field(None, description="Why there is no answer.")
    change: Changes | None = Field(None, description="Where the patient had earlier decisions.")


class ScoredRow(EndpointRecord):
    """The answer for one decision: for the primary endpoint, and for the others in `endpoints`."""

    subject_id: str
    missing: list[str]
    warnings: list[str]
    endpoints: dict[str, EndpointRecord] = {}


class ScoreAnswer(BaseModel):
    """The contract of `theracast score --json`, and beside it what was wrong with the request as a whole."""

    model: str
    rows: list[ScoredRow]
    warnings: list[str] = []
