"""What one check of the audit has to say, and the words shared by all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from theracast_data.audit.context import AuditContext
    from theracast_data.cohort import Cohort

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing a careful statistician would point at. Figures are aggregates; patients appear by identifier alone.

    Attributes:
        check: stable name, e.g. `unit-shift`.
        severity: `error` where going on gives a wrong model or a wrong validation, `warning` where the reader must
            act or decide, `note` for information.
        site: where; None for the whole cohort.
        column: name inside Theracast of a column or an endpoint; None for whole rows.
        message: what was found, with counts.
        why: why it matters for the model.
        remedy: what to do, with the key of the study file where there is one.
        count: decisions concerned.
        subjects: identifiers as SITE/SUBJECT where single patients must be looked at.
        accepted: the reason of the study's acceptance; None while the finding is open.
    """

    check: str
    severity: Severity
    site: str | None
    column: str | None
    message: str
    why: str
    remedy: str
    count: int | None = None
    accepted: str | None = None
    subjects: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return asdict(self) | {"subjects": list(self.subjects)}


Check = Callable[["Cohort", "AuditContext"], list[Finding]]


def percent(share: float) -> str:
    """Return a share as text: `0.4 %`, `12 %`, `>99 %`."""
    value = 100.0 * share
    if 0.0 < value < 0.1:
        return "<0.1 %"
    if 99.5 <= value < 100.0:
        return ">99 %"
    return f"{value:.1f} %" if value < 1.0 and value > 0.0 else f"{value:.0f} %"


def figure(value: float) -> str:
    """Return a number with three significant digits and no exponent where it can be avoided."""
    if value == 0.0:
        return "0"
    if abs(value) >= 1000.0 and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def listing(names: Sequence[str], *, limit: int = 5) -> str:
    """Return names as one phrase, the rest as a count: `a, b, c and 4 more`."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 decision`, `12 decisions`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
