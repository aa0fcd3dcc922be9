"""What one measurement of an image is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Meaning:
    """What one measurement is.

    Attributes:
        label: what the tumour board reads.
        unit: UCUM unit, None for arbitrary units.
        code: SYSTEM:CODE where a standard has one, e.g. IBSI:RNU0.
    """

    label: str
    unit: str | None = None
    code: str | None = None
