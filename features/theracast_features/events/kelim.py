"""The CA-125 elimination rate constant K (KELIM) of a patient under chemotherapy, as an empirical Bayes estimate.

The model: with t in days from the first dose, C the marker and A the amount of drug in effect (one unit a dose),

    dC/dt = KPROD exp(BETA t) / (1 + A / A50) - KELIM C,    dA/dt = -RATE A,    C(0) = START

This is the structure of You B et al. Gynecol Oncol 2013;130:289-294 (production by a growing tumour, inhibited by an effect
that depends on the doses; first-order elimination). A patient's parameters are log-normal around those of the population,
values scatter log-normally around C, and the estimate is the mode of the patient's posterior.

The population's parameters are the study's to give, with their source: those behind the published standardised KELIM (You B
et al. Clin Cancer Res 2020;26:4625-4632) are not printed in a form that could be checked here, and a value made up would
look like theirs. Fitted on a cohort of one's own, or taken from a publication, they stand in the section.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from theracast_data.events.concepts import Concept
from theracast_data.section import Section
from theracast_data.sources import Kind
from theracast_features.events.builder import column_of, concept_step, concept_values, named_columns
from theracast_features.events.start import TreatmentStart, course_doses
from theracast_features.events.visible import by_decision, dated, visible_events
from theracast_features.naming import label_from_name
from theracast_features.specs import FeatureSpec, feature_name

Floats = NDArray[np.float64]
PARAMETERS = ("kelim", "kprod", "beta", "rate", "a50", "start")
_MAX_STEP = (
    2.0  # d; between moments the model is smooth: five points of Gauss a step give eight digits up to a rate of 1/d
)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
_LARGEST = 60.0  # logarithms beyond it are no concentrations; the prior leads back from there
_STEPS = 200


class LogNormal(Section):
    """How one parameter varies between patients."""

    median: float = Field(gt=0, description="Median of the population, in the unit of the parameter.")
    sd_log: float = Field(ge=0, le=5, description="Standard deviation of its logarithm; 0: the same for all patients.")


class KelimPopulation(Section):
    """The population's parameters. There are no defaults: they come from a publication or from a cohort of one's own."""

    source: str = Field(min_length=1, description="Publication or cohort that the parameters come from.")
    kelim: LogNormal = Field(description="Elimination rate, 1/d.")
    kprod: LogNormal = Field(description="Production at the first dose without treatment, marker's unit/d.")
    beta: LogNormal = Field(description="Growth rate of the production, 1/d.")
    rate: LogNormal = Field(description="Rate at which the effect of a dose wanes, 1/d.")
    a50: LogNormal = Field(description="Amount of drug (1 a dose) that halves the production.")
    start: LogNormal = Field(description="Marker at the first dose, marker's unit.")
    residual_sd_log: float = Field(gt=0, description="Standard deviation of the logarithm of a value around the model.")


class KelimSection(Section):
    """KELIM as of the decision. Features are called `lab.CONCEPT.kelim`, `lab.CONCEPT.kelim_standardised`, ..."""

    concept: str = Field(description="Name of a concept of the study: CA-125, in the unit of the parameters.")
    chemotherapy: TreatmentStart = Field(description="Doses of the chemotherapy.")
    population: KelimPopulation = Field(description="Parameters of the population.")
    days: float = Field(100.0, gt=0, description="Values up to so many days (d) after the first dose are used.")
    days_before: int = Field(
        0,
        ge=0,
        description="The last value up to so many calendar days before the first dose counts as one at that dose.",
    )
    min_points: int = Field(3, ge=2, description="Values above zero that are needed.")
    standard: float | None = Field(
        None, gt=0, description="KELIM (1/d) that is 1.0 on the standardised scale; without it that scale is left out."
    )


@dataclass(frozen=True)
class KelimFit:
    """Mode of one patient's posterior.

    Attributes:
        parameters: (6,) `PARAMETERS`, in the units of `KelimPopulation`.
        cost: half the sum of squares of residuals and prior, both in standard deviations.
    """

    parameters: Floats
    cost: float

    @property
    def kelim(self) -> float:
        """Elimination rate, 1/d."""
        return float(self.parameters[0])


def fit_kelim(days: ArrayLike, values: ArrayLike, doses: ArrayLike, population: KelimPopulation) -> KelimFit:
    """Return the empirical Bayes estimate of one patient.

    Args:
        days: (n,) d from the first dose, at least 0, in any order.
        values: (n,) marker, above 0, in the unit of the population's parameters.
        doses: (m,) d from the first dose, at least 0.
        population: prior.
    """
    model = _Model.of(days, doses)
    logs = np.log(np.asarray(values, dtype=np.float64))
    medians, spreads = prior(population)

    def weighed(scores: Floats) -> tuple[Floats, Floats]:
        """Return (k, n + 6) residuals and (k, n + 6, 6) slopes at (k, 6) scores, standard deviations from the median."""
        level, slopes = model.log_marker(np.exp(medians + spreads * scores))
        residuals = np.concatenate([(level - logs) / population.residual_sd_log, scores], axis=1)
        own = np.broadcast_to(np.eye(len(PARAMETERS)), (len(scores), len(PARAMETERS), len(PARAMETERS)))
        return residuals, np.concatenate([slopes * spreads / population.residual_sd_log, own], axis=1)

    # The posterior may have more than one top: a slow elimination, or a fast one with production left.
    scores, costs = _least_squares(weighed, np.outer([0.0, -1.5, 1.5], np.eye(len(PARAMETERS))[0]))
    best = int(costs.argmin())
    return KelimFit(np.exp(medians + spreads * scores[best]), float(costs[best]))


def prior(population: KelimPopulation) -> tuple[Floats, Floats]:
    """Return (6,) medians of the logarithms and their standard deviations, in the order of `PARAMETERS`."""
    own = [getattr(population, name) for name in PARAMETERS]
    return np.log([one.median for one in own]), np.array([one.sd_log for one in own], dtype=np.float64)


def marker_course(days: ArrayLike, doses: ArrayLike, parameters: ArrayLike) -> Floats:
    """Return (n,) the marker of the model at `days` (d from the first dose, at least 0), in any order."""
    level, _ = _Model.of(days, doses).log_marker(np.asarray(parameters, dtype=np.float64)[None])
    return np.asarray(np.exp(level[0]), dtype=np.float64)


@dataclass(frozen=True)
class _Model:
    """The model at the moments of one patient's values, its integral as a sum over the nodes of a quadrature.

    Attributes:
        time: (n,) d.
        node, weight: (m,) d.
        lag: (m, doses) d from each dose, negative before it.
    """

    time: Floats
    node: Floats
    weight: Floats
    lag: Floats

    @classmethod
    def of(cls, days: ArrayLike, doses: ArrayLike) -> _Model:
        """Return the model with steps that end at every value and dose, where the integrand has its corners."""
        time, given = np.asarray(days, dtype=np.float64), np.asarray(doses, dtype=np.float64)
        ends = np.unique(np.concatenate([[0.0], time, given[given < time.max(initial=0.0)]]))
        counts = np.maximum(np.ceil(np.diff(ends) / _MAX_STEP), 1).astype(int)
        parts = [np.linspace(a, b, n + 1)[1:] for a, b, n in zip(ends[:-1], ends[1:], counts, strict=True)]
        edges = np.concatenate([[0.0], *parts])
        half = np.diff(edges)[:, None] / 2
        node = (edges[:-1, None] + half * (1 + _NODES)).ravel()
        return cls(time, node, (half * _WEIGHTS).ravel(), node[:, None] - given)

    def log_marker(self, parameters: Floats) -> tuple[Floats, Floats]:
        """Return (k, n) log C and (k, n, 6) its slopes in the logarithms of (k, 6) `PARAMETERS`."""
        kelim, kprod, beta, rate, a50, start = np.moveaxis(parameters, -1, 0)[..., None]
        effect = np.where(self.lag >= 0, np.exp(-rate[..., None] * np.maximum(self.lag, 0.0)), 0.0)
        amount, waning = effect.sum(axis=-1) / a50, (effect * self.lag).sum(axis=-1) * rate / a50
        made = self.weight * kprod * np.exp(np.minimum(beta * self.node, _LARGEST)) / (1 + amount)
        age = self.time[:, None] - self.node
        left = np.where(age >= 0, np.exp(-kelim[..., None] * np.maximum(age, 0.0)), 0.0)
        first = start * np.exp(-kelim * self.time)

        def total(integrand: Floats) -> Floats:
            return np.asarray((left @ integrand[..., None])[..., 0], dtype=np.float64)

        produced = total(made)
        lost = first * self.time + ((left * age) @ made[..., None])[..., 0]
        inhibited = made / (1 + amount)
        changes = [-kelim * lost, produced, total(made * beta * self.node), total(inhibited * waning)]
        changes += [total(inhibited * amount), first]
        marker = np.maximum(first + produced, np.exp(-_LARGEST))
        return np.log(marker), np.stack(changes, axis=-1) / marker[..., None]


def _least_squares(weighed: Callable[[Floats], tuple[Floats, Floats]], starts: Floats) -> tuple[Floats, Floats]:
    """Return (k, p) scores and (k,) half sums of squares, by Levenberg and Marquardt's steps from k starts at once."""
    scores, damping = starts.copy(), np.full(len(starts), 1e-3)
    residuals, slopes = weighed(scores)
    costs = 0.5 * (residuals**2).sum(axis=1)
    for _ in range(_STEPS):
        normal = np.einsum("kni,knj->kij", slopes, slopes)
        # The prior's own part of the matrix is the unit matrix, so it always has an inverse.
        step = -np.linalg.solve(
            normal + damping[:, None, None] * np.eye(scores.shape[1]),
            np.einsum("kni,kn->ki", slopes, residuals)[..., None],
        )[..., 0]
        tried = scores + step
        tried_residuals, tried_slopes = weighed(tried)
        tried_costs = 0.5 * (tried_residuals**2).sum(axis=1)
        better = tried_costs < costs
        scores[better], costs[better] = tried[better], tried_costs[better]
        residuals[better], slopes[better] = tried_residuals[better], tried_slopes[better]
        damping = np.where(better, damping / 5, damping * 4)
        if ((np.abs(step).max(axis=1) < 1e-9) | (damping > 1e9)).all():
            break
    return scores, costs


@dataclass(frozen=True)
class KelimBuilder:
    """The `features.kelim` of a study; see `EventBuilder`."""

    section: KelimSection
    concepts: Mapping[str, Concept]

    @cached_property
    def _meanings(self) -> dict[str, FeatureSpec]:
        concept = self.concepts[self.section.concept]
        label = f"{concept.label or label_from_name(self.section.concept)} elimination rate (KELIM)"
        meanings: dict[str, tuple[str, str | None, Kind]] = {
            "kelim": (label, "/d", "numeric"),
            "kelim_points": (f"{label}, values used", None, "numeric"),
        }
        if self.section.standard is not None:
            meanings["kelim_standardised"] = (f"{label}, standardised", None, "numeric")
            meanings["kelim_favourable"] = (f"{label}, standardised at least 1.0", None, "boolean")
        source = "You B et al. Clin Cancer Res 2020;26:4625-4632; parameters: "
        return {
            column: FeatureSpec(
                name=feature_name(concept.modality, self.section.concept, column),
                modality=concept.modality,
                kind=kind,
                label=told,
                columns=(self.section.concept, self.section.chemotherapy.concept),
                unit=unit,
                role="derived",
                source=source + self.section.population.source,
            )
            for column, (told, unit, kind) in meanings.items()
        }

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        return tuple(self._meanings.values())

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the estimate as of each decision; missing with too few values since the first dose."""
        used, doses = self._used(events, decisions)
        given = {number: group["day"].to_numpy(np.float64) for number, group in doses.groupby("decision")}
        rows = {}
        for number, group in used.groupby("decision"):
            level = group.groupby("day")["value"].mean()
            rate = np.nan
            if len(level) >= self.section.min_points:
                days, values = level.index.to_numpy(np.float64), level.to_numpy(np.float64)
                rate = fit_kelim(days, values, given[number], self.section.population).kelim
            rows[number] = {"kelim": rate, "kelim_points": float(len(level))}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=["kelim", "kelim_points"], dtype=np.float64)
        table = by_decision(table, decisions)
        table["kelim_points"] = table["kelim_points"].fillna(0.0)
        standardised = table["kelim"] / (self.section.standard or np.nan)
        favourable = (standardised >= 1.0).astype(np.float64).where(standardised.notna())
        return named_columns(table.assign(kelim_standardised=standardised, kelim_favourable=favourable), self._meanings)

    def steps(self, name: str) -> tuple[str, ...]:
        """Return which values and doses are used, and the model."""
        own, doses = self.section, self.section.chemotherapy
        steps = (
            concept_step(own.concept, self.concepts[own.concept]),
            concept_step(doses.concept, self.concepts[doses.concept]),
            f"seen: values up to {own.days:g} d after the first dose, up to the decision, that were available by then",
            f"mode of the patient's posterior in the kinetic model, from at least {own.min_points} values; population: "
            f"{own.population.source}",
        )
        scaled = column_of(name, self._meanings) in ("kelim_standardised", "kelim_favourable")
        return (*steps, f"divided by {own.standard:g} per day") if scaled else steps

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the values and the doses, with `day` from the first dose."""
        used, doses = self._used(events, decisions)
        last = used.groupby("decision")["time"].max().rename("last").reset_index()
        given = doses.merge(last, on="decision")
        given = given[given["time"] <= given["last"]]
        both = pd.concat([used, given]).drop(columns=["begun", "last"])
        return both.sort_values(["decision", "time"], kind="stable")

    def _used(self, events: pa.Table, decisions: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the values of each decision that the fit uses, and the doses, both with `day` (d) from the first dose."""
        own = self.section
        doses = course_doses(events, decisions, own.chemotherapy, self.concepts)
        begun = doses.groupby("decision")["time"].transform("min")
        doses = doses.assign(day=(doses["time"] - begun).dt.total_seconds() / 86_400.0, begun=begun)
        first = doses.drop_duplicates("decision")[["decision", "begun"]]
        seen = dated(visible_events(concept_values(events, own.concept, self.concepts), decisions))
        seen = seen[seen["value"] > 0].merge(first, on="decision")
        day = (seen["time"] - seen["begun"]).dt.total_seconds() / 86_400.0
        early = day < 0
        # What was drawn on the morning of the first dose, or shortly before, is the value at that dose.
        near = early & ((seen["begun"].dt.normalize() - seen["time"].dt.normalize()).dt.days <= own.days_before)
        newest = seen["time"].where(near).groupby(seen["decision"]).transform("max")
        kept = (~early & (day <= own.days)) | (near & (seen["time"] == newest))
        return seen.assign(day=day.clip(lower=0.0))[kept], doses
