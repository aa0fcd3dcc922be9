"""The study: one YAML file, the whole question. Sections live beside the code they configure; here they come together."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from theracast_data.audit.section import Acceptance, OutcomeCodes
from theracast_data.decisions.section import DecisionSection
from theracast_data.endpoints import Endpoint, event_endpoints, table_endpoints
from theracast_data.errors import StudyError
from theracast_data.events.section import EventSection
from theracast_data.paths import resolve_path
from theracast_data.section import Section, describe_faults
from theracast_data.sources import Inputs, TableSource
from theracast_features.imaging.habitat_file import read_fitted
from theracast_features.imaging.habitat_section import NOT_FITTED
from theracast_features.imaging.section import ImageFeatures
from theracast_features.imaging.stability_file import read_stability
from theracast_features.section import FeatureSection
from theracast_models.standing import FloorSection
from theracast_training.effects.section import TreatmentSection
from theracast_training.sample_size import SampleSizeSection
from theracast_training.statement import StatementSection
from theracast_training.subgroups import FairnessSection

FamilyName = Literal["elasticnet", "late", "lightgbm", "neural", "gated", "cnn", "stack"]


class SchemeSection(Section):
    """How the development decisions are split for tuning (inner) and for judging the whole procedure (outer)."""

    outer: int = Field(5, ge=0, description="Outer folds; 0 leaves nested cross-validation out.")
    inner: int = Field(5, ge=2, description="Inner folds.")
    repeats: int = Field(1, ge=1, description="Repeats of the outer split.")
    by: Literal["subject", "site", "time"] = Field(
        "subject",
        description="`subject`: stratified, a patient in one fold only; `site`: leave sites out; `time`: forward.",
    )


class ValidationSection(Section):
    """Who develops the model and who judges it."""

    development: tuple[str, ...] = Field((), description="Sites; by default all that are not external.")
    external: tuple[str, ...] = Field((), description="Sites never seen in development.")
    scheme: SchemeSection = Field(SchemeSection())


class SearchSection(Section):
    """What is tried."""

    families: tuple[FamilyName, ...] = Field(
        ("elasticnet", "late", "lightgbm", "stack"),
        min_length=1,
        description="`late` and `gated` fuse a model of each kind of data; `cnn` learns from pictures of regions (`patch` in "
        "features.images.NAME) and joins the stack.",
    )
    trials: int = Field(50, ge=1, description="Trials a family; of late and cnn at most 3, of neural 10, of gated 12.")
    seed: int = Field(7, ge=0)
    one_standard_error: bool = Field(
        True, description="Prefer the simplest family within one standard error of the best."
    )
    replicates: int = Field(40, ge=10, description="Bootstrap refits behind the interval of each probability.")


class BaselineSection(Section):
    """A published score to compare with, and where its inputs are."""

    score: str = Field(description="Name of the score, e.g. loris.")
    inputs: dict[str, str] = Field(
        {},
        description="Input to a feature without its prefix, where the names differ, e.g. {albumin: albumin.last.90d}.",
    )


class GateSection(Section):
    """What a version must show before it may become champion; what is not given comes from mlflow/gates.yaml."""

    auc_lower: float | None = Field(
        None, ge=0, le=1, description="Least lower bound of the AUC, pooled over external sites."
    )
    calibration_slope: tuple[float, float] | None = Field(None, description="Allowed calibration slope.")
    calibration_intercept: tuple[float, float] | None = Field(None, description="Allowed calibration intercept.")
    minimum_n: int | None = Field(None, ge=1, description="Least number of decisions behind the evaluation.")
    minimum_events: int | None = Field(
        None, ge=1, description="Least number of decisions of the rarer outcome behind the evaluation."
    )
    beats: Literal["champion", "none"] | None = Field(None, description="Must not be worse than the present champion.")
    margin: float | None = Field(
        None, ge=0, le=0.2, description="Loss of AUC against the champion that the data must rule out."
    )


class StatisticsSection(Section):
    """How thoroughly a training questions its own figures; 0 leaves a question out."""

    optimism: int = Field(
        50,
        ge=0,
        description="Bootstrap refits of the chosen recipe by which its optimism is measured; 200 for a paper.",
    )
    learning_curve: int = Field(
        10, ge=0, description="Splits behind the learning curve, each fitted on four growing parts of the patients."
    )
    permutations: int = Field(
        0,
        ge=0,
        description="Runs of the whole procedure on outcomes dealt out at random, in search of a leak; at least 3, 20 tell "
        "more. Each costs about a nested cross-validation with 3 trials.",
    )

    @model_validator(mode="after")
    def _check_counts(self) -> StatisticsSection:
        if 0 < self.optimism < 10 or 0 < self.permutations < 3 or 0 < self.learning_curve < 3:
            raise ValueError(
                "fewer than 10 refits for optimism, 3 splits or 3 permutations tell nothing; say 0 or more"
            )
        return self


class ReportSection(Section):
    """What the reports show."""

    thresholds: tuple[float, ...] = Field((0.2, 0.3, 0.5), description="Probabilities at which decisions are judged.")
    decision_range: tuple[float, float] = Field((0.05, 0.6), description="Range of the decision curve.")
    bootstrap: int = Field(1000, ge=100, description="Resamples behind every interval of a metric.")
    statistics: StatisticsSection = Field(StatisticsSection())


class Study(Section):
    """One question, asked of one cohort."""

    study: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name; also the model's name in the registry."
    )
    question: str = Field(description="The question in a sentence.")
    sources: tuple[TableSource, ...] = Field(
        (),
        description="Tables. The first one's rows are the decisions, unless `decisions` says how they follow from events.",
    )
    events: EventSection | None = Field(None, description="Dated facts of the patients, and their concepts.")
    decisions: DecisionSection | None = Field(
        None, description="Who is asked about and when, from events alone; all sources are joined by subject."
    )
    endpoints: tuple[Endpoint, ...] = Field(
        min_length=1, description="The first one is trained unless `primary` says so."
    )
    primary: str | None = Field(None, description="Name of the endpoint that is trained first, and leads every report.")
    further: tuple[str, ...] = Field(
        (), description="Names of endpoints that the model answers too, e.g. [pfs, os]; each has a search of its own."
    )
    features: FeatureSection = Field(FeatureSection())
    treatment: TreatmentSection | None = Field(
        None, description="Treatments that are compared by `theracast effects`, and what allows the comparison."
    )
    validation: ValidationSection = Field(ValidationSection())
    search: SearchSection = Field(SearchSection())
    baselines: tuple[str | BaselineSection, ...] = Field(
        (), description="Published scores to compare with, e.g. [loris]."
    )
    gates: GateSection = Field(GateSection())
    floor: FloorSection | None = Field(
        None, description="What must have been validated for the data that a patient has, else there is no answer."
    )
    report: ReportSection = Field(ReportSection())
    sample_size: SampleSizeSection | None = Field(
        None,
        description="What is anticipated of the model, from which the patients needed follow; judged before tuning.",
    )
    statement: StatementSection = Field(
        StatementSection(),
        description="What no data can tell a report: setting, intended use, ethics, funding and the like.",
    )
    fairness: FairnessSection | None = Field(None, description="Subgroups in which the model is judged and compared.")
    accept: tuple[Acceptance, ...] = Field(
        (), description="Audit findings that are known and accepted, with the reason."
    )
    outcome_codes: tuple[OutcomeCodes, ...] = Field(
        (), description="Codes by which outcomes show in the events; the audit looks for them before the decision."
    )

    @model_validator(mode="after")
    def _check_inputs(self) -> Study:
        try:
            _ = self.inputs
        except ValidationError as error:
            raise ValueError(
                "; ".join(str(fault["msg"]).removeprefix("Value error, ") for fault in error.errors())
            ) from None
        dated = [one.name for one in event_endpoints(self.endpoints)]
        if dated and self.events is None:
            raise ValueError(
                f"endpoints: {', '.join(dated)} come from events, and there is no `events` section that says where they lie"
            )
        tabled = [one.name for one in table_endpoints(self.endpoints)]
        if tabled and not self.sources:
            raise ValueError(
                f"endpoints: {', '.join(tabled)} come from columns of a table, and there is no source. Give the source, or "
                "say how the endpoint follows from events: kind: first_event or best_response"
            )
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Study:
        names = [endpoint.name for endpoint in self.endpoints]
        if len(set(names)) != len(names):
            raise ValueError("two endpoints have the same name")
        if self.primary is not None and self.primary not in names:
            raise ValueError(f"primary: no endpoint is named {self.primary!r}; there are {', '.join(names)}")
        strange = [name for name in self.further if name not in names or name == self.endpoint.name]
        if strange or len(set(self.further)) < len(self.further):
            raise ValueError(
                f"further: name endpoints of the study other than {self.endpoint.name}, each once; "
                f"there are {', '.join(names)}"
            )
        compared = self.treatment.endpoint if self.treatment is not None else None
        if compared is not None and compared not in names:
            raise ValueError(f"treatment.endpoint: no endpoint is named {compared!r}; there are {', '.join(names)}")
        if self.features.reads_events and self.events is None:
            keys = ", ".join(f"features.{key}" for key in self.features.reads_events)
            raise ValueError(f"{keys}: the study has no `events` section that says where they lie")
        if self.outcome_codes and self.events is None:
            raise ValueError("outcome_codes: the study has no `events` section in which they could be found")
        known = self.events.concepts if self.events else {}
        unknown = [
            f"{key}: no concept is named {name}" for name, key in self.features.concepts.items() if name not in known
        ]
        if unknown:
            raise ValueError(f"{'; '.join(unknown)}; see events.concepts")
        first = self.sources[0] if self.sources and self.decisions is None else None
        if self.events is not None and first is not None and first.index_time is None and first.asked_at is None:
            raise ValueError(
                "events need the moment of each decision: name its column as `index_time` of the first source"
            )
        both = set(self.validation.development) & set(self.validation.external)
        if both:
            raise ValueError(f"validation: {', '.join(sorted(both))} cannot be both development and external")
        return self

    @model_validator(mode="after")
    def _check_pictures(self) -> Study:
        if "cnn" in self.search.families and not any(one.patch for one in self.features.images.values()):
            raise ValueError(
                "search.families: cnn looks at pictures of regions, and the study asks for none. Say `patch: {window: [LOW, "
                "HIGH]}` in features.images.NAME and extract the images again, or leave cnn out"
            )
        return self

    @property
    def inputs(self) -> Inputs:
        """The part that travels inside the model."""
        return Inputs(sources=self.sources, events=self.events, decisions=self.decisions)

    @property
    def published(self) -> tuple[BaselineSection, ...]:
        """The baselines, each with its inputs."""
        return tuple(one if isinstance(one, BaselineSection) else BaselineSection(score=one) for one in self.baselines)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that is trained."""
        return next((one for one in self.endpoints if one.name == self.primary), self.endpoints[0])

    @property
    def trained(self) -> tuple[Endpoint, ...]:
        """The endpoints that the model answers, the primary one first."""
        named = {one.name: one for one in self.endpoints}
        return (self.endpoint, *(named[name] for name in self.further))

    def development_sites(self, sites: Sequence[str]) -> list[str]:
        """Return the sites that develop the model, of those found in the data; all but the external ones by default."""
        chosen = self.validation.development or tuple(site for site in sites if site not in self.validation.external)
        unknown = [site for site in (*chosen, *self.validation.external) if site not in sites]
        if unknown:
            raise StudyError(
                f"validation: no decision comes from {', '.join(unknown)}. The sites in the data are: {', '.join(sites)}."
            )
        return list(chosen)


def read_study(path: Path, *, overrides: Sequence[str] = (), stability: bool = True, fitted: bool = True) -> Study:
    """Return the study of a YAML file.

    Args:
        path: the study file.
        overrides: `KEY=VALUE` with a dotted key, e.g. `search.trials=10`; the value is read as YAML.
        stability: False leaves out the choice of image measurements by their stability, before that is measured.
        fitted: False leaves out what was learnt of habitats, before they are fitted; else it must be there.

    Raises:
        StudyError: the file is missing, not YAML, or does not fit; all faults are named at once.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError(f"{path}: the study file cannot be read ({error.strerror}). Check the path.") from error
    return parse_study(text, where=str(path), overrides=overrides, base=path.parent, stability=stability, fitted=fitted)


def parse_study(
    text: str,
    *,
    where: str = "study",
    overrides: Sequence[str] = (),
    base: Path | None = None,
    stability: bool = True,
    fitted: bool = True,
) -> Study:
    """Return the study written in `text`; `where` names it in errors, `base` is the folder that its paths count from."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StudyError(f"{where}: this is not valid YAML{place}. Mend the indentation or quoting there.") from error
    if not isinstance(content, dict):
        raise StudyError(f"{where}: a study file is a mapping that begins with `study: NAME`. See `theracast init`.")
    for override in overrides:
        _apply_override(content, override)
    for section in _image_sections(content):
        habitats = section.get("habitats")
        if isinstance(habitats, dict) and not fitted:
            habitats.pop("fitted", None)
        elif isinstance(habitats, dict) and isinstance(habitats.get("fitted"), str):
            _read_fitted(section, habitats, base=base or Path())
        if not stability:
            section.pop("icc", None)
            section.pop("icc_at_least", None)
        elif isinstance(section.get("icc"), str):
            _read_icc(section, base=base or Path())
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise StudyError(f"{where}: the study does not fit:\n{describe_faults(error, Study)}") from error
    for name, images in study.features.images.items() if fitted else ():
        if images.habitats is not None and images.habitats.fitted is None:
            raise StudyError(f"{where}: features.images.{name}: {NOT_FITTED}")
    return study


def _image_sections(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what stands under `features.images`, as far as it has that shape."""
    features = content.get("features")
    images = features.get("images") if isinstance(features, dict) else None
    return [one for one in images.values() if isinstance(one, dict)] if isinstance(images, dict) else []


def _read_fitted(section: dict[str, Any], habitats: dict[str, Any], *, base: Path) -> None:
    """Put what a file says of habitats in place of its path; not where the section does not fit, which is told."""
    path = resolve_path(habitats.pop("fitted"), base=base)
    rest = {key: value for key, value in section.items() if key not in ("icc", "icc_at_least")}
    with contextlib.suppress(ValidationError):
        habitats["fitted"] = read_fitted(path, ImageFeatures.model_validate(rest).measures)


def _read_icc(section: dict[str, Any], *, base: Path) -> None:
    """Put what a file says of the stability in place of its path; not where the section does not fit, which is told."""
    path = resolve_path(section["icc"], base=base)
    rest = {key: value for key, value in section.items() if key not in ("icc", "icc_at_least")}
    section["icc"] = {}
    with contextlib.suppress(ValidationError):
        section["icc"] = read_stability(path, ImageFeatures.model_validate(rest).measures)


def study_text(study: Study) -> str:
    """Return the resolved study as YAML; reading it gives the same study. (JSON would turn the cell 1 into "1".)"""
    return yaml.safe_dump(_lists(study.model_dump()), sort_keys=False, allow_unicode=True)


def _lists(value: Any) -> Any:
    """Return the value with lists in place of tuples, which plain YAML does not know."""
    if isinstance(value, dict):
        return {key: _lists(inner) for key, inner in value.items()}
    return [_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise StudyError(f"--set {override}: write KEY=VALUE with a dotted key, e.g. search.trials=10.")
    place: Any = content
    *path, last = key.strip().split(".")
    for part in path:
        place = place[_index(place, part, override)] if isinstance(place, list) else place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise StudyError(f"--set {override}: {part!r} is a single value and has no keys below it.")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise StudyError(f"--set {override}: the value is not valid YAML. Quote it.") from error
    if isinstance(place, list):
        place[_index(place, last, override)] = parsed
    else:
        place[last] = parsed


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise StudyError(f"--set {override}: {part!r} is not a position in a list of {len(items)}. Count from 0.")
    return int(part)
