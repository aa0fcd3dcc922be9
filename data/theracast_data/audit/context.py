"""The roles of sites and endpoints in an audit, and the views of the cohort that all checks share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.endpoints import BinaryEndpoint, Endpoint, TimeToEventEndpoint, as_table_endpoint
from theracast_data.sources import Kind, OneHotSpec

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.intp]

DISCRETE_VALUES = 8
"""A numeric column with fewer distinct values is a code or a grade: its distribution is not compared by quantiles."""


@dataclass(frozen=True)
class AuditContext:
    """Which sites develop and which judge, and what is predicted; the first endpoint is the primary one."""

    development: tuple[str, ...]
    external: tuple[str, ...]
    endpoints: tuple[Endpoint, ...] = ()

    @classmethod
    def of(
        cls, cohort: Cohort, *, development: Sequence[str], external: Sequence[str], endpoints: Sequence[Endpoint]
    ) -> AuditContext:
        """Return the context; without named development sites, all that are not external."""
        named = tuple(development) or tuple(site for site in cohort.sites if site not in set(external))
        return cls(named, tuple(external), tuple(as_table_endpoint(one) for one in endpoints))

    @property
    def binary(self) -> list[BinaryEndpoint]:
        """Endpoints that are yes or no."""
        return [one for one in self.endpoints if isinstance(one, BinaryEndpoint)]

    @property
    def followed(self) -> list[TimeToEventEndpoint]:
        """Endpoints that are times to an event."""
        return [one for one in self.endpoints if isinstance(one, TimeToEventEndpoint)]


def site_rows(cohort: Cohort) -> dict[str, Positions]:
    """Return the positions of each site's decisions, sites in the order in which they were read."""
    codes, names = pd.factorize(cohort.decisions["site"])
    return {str(site): np.flatnonzero(codes == number) for number, site in enumerate(names)}


def kind_of(cohort: Cohort, name: str) -> Kind:
    """Return the type of a column after reading."""
    spec = cohort.columns[name]
    return "categorical" if isinstance(spec, OneHotSpec) else spec.resolved_kind


def is_feature(cohort: Cohort, name: str) -> bool:
    """Return whether a model may see the column."""
    return cohort.columns[name].role == "feature"


def numbers(cohort: Cohort, name: str) -> Floats:
    """Return a numeric or boolean column, (n,) with NaN where missing."""
    return np.asarray(cohort.values[name].to_numpy(dtype=np.float64, na_value=np.nan))


def missing(cohort: Cohort, name: str) -> Booleans:
    """Return where a column is missing, (n,)."""
    return np.asarray(cohort.values[name].isna().to_numpy(), dtype=np.bool_)


def read_columns(cohort: Cohort) -> list[str]:
    """Return the columns of the cohort that carry a spec, in the order of the study."""
    return [name for name in cohort.columns if name in cohort.values.columns]


def continuous_columns(cohort: Cohort) -> Iterator[tuple[str, Floats]]:
    """Yield name and values of the numeric columns with at least `DISCRETE_VALUES` distinct values."""
    for name in read_columns(cohort):
        if kind_of(cohort, name) != "numeric":
            continue
        values = numbers(cohort, name)
        if len(np.unique(values[np.isfinite(values)])) >= DISCRETE_VALUES:
            yield name, values


def endpoint_values(cohort: Cohort, column: str) -> Floats | None:
    """Return a column of the endpoint table, None where the cohort does not have it."""
    if column not in cohort.endpoints.columns:
        return None
    return np.asarray(cohort.endpoints[column].to_numpy(dtype=np.float64, na_value=np.nan))


def own_labels(cohort: Cohort, context: AuditContext) -> Iterator[tuple[BinaryEndpoint, Floats]]:
    """Yield the binary endpoints that are no horizon of a follow-up, with what is known of them, (n,)."""
    for endpoint in context.binary:
        label = endpoint_values(cohort, endpoint.name)
        if label is not None and endpoint.follow_up is None:
            yield endpoint, label


def lacks(cohort: Cohort, site: str, name: str, absent: Booleans) -> bool:
    """Return whether the site's table lacks the column, or holds nothing in it (`absent`: where the site misses it)."""
    return name in cohort.absent.get(site, frozenset()) or bool(absent.all())
