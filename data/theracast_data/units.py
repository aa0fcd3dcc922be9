"""Conversion between UCUM units, as they stand in a study file."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, TypeVar, cast

import numpy as np

from theracast_data.errors import SchemaError

Values = TypeVar("Values")

# What people write for a unit that UCUM spells otherwise.
_UCUM_SPELLING = {
    "years": "a", "year": "a", "yr": "a", "months": "mo", "month": "mo", "weeks": "wk", "days": "d", "hours": "h",
    "mmhg": "mm[Hg]", "cc": "mL", "ml": "mL", "mm3": "mm3", "mcg": "ug", "µg": "ug", "iu/l": "[IU]/L",
    "µmol/l": "umol/L", "mcg/l": "ug/L", "°c": "Cel", "percent": "%", "k/ul": "10*3/uL", "g/dl": "g/dL", "g/l": "g/L",
}  # fmt: skip


class UnitError(SchemaError):
    """A unit is not UCUM, or cannot be converted into the other."""


def convert(values: Values, from_unit: str, to_unit: str, *, quantity: str) -> Values:
    """Return the values in `to_unit`; an array keeps its shape, NaN stays NaN.

    Args:
        values: a number or float array in `from_unit`.
        quantity: what is measured, for the message.

    Raises:
        UnitError: a unit is not UCUM, or the two measure different things (molar and mass concentration among them).
    """
    if from_unit == to_unit:
        return values
    slope, offset = _affine(from_unit, to_unit, quantity)
    given: Any = values
    array = np.asarray(given, dtype=np.float64) * slope + offset
    converted: Any = float(array) if array.ndim == 0 else array
    return cast("Values", converted)


def factor(from_unit: str, to_unit: str, *, quantity: str) -> float:
    """Return the number by which values in `from_unit` are multiplied to be in `to_unit`.

    Raises:
        UnitError: as `convert`; also where the scales have different zeros, such as Cel and [degF].
    """
    slope, offset = (1.0, 0.0) if from_unit == to_unit else _affine(from_unit, to_unit, quantity)
    if offset:
        raise UnitError(
            f"{quantity}: {from_unit} and {to_unit} have different zeros, so no factor turns one into the other. "
            "Convert the values with `convert`."
        )
    return slope


@lru_cache(maxsize=1024)
def _affine(from_unit: str, to_unit: str, quantity: str) -> tuple[float, float]:
    """Return slope and offset of the conversion."""
    import pint

    source, target = (_parsed(unit, quantity) for unit in (from_unit, to_unit))
    registry = _registry()
    try:
        zero, one = (
            registry.Quantity(value * float(source.magnitude), source.units).to(target.units).magnitude
            for value in (0.0, 1.0)
        )
    except pint.DimensionalityError as error:
        why = "they measure different things"
        if "[substance]" in f"{source.dimensionality}{target.dimensionality}":
            why = "one is molar, the other is not, and the molar mass is not known here"
        raise UnitError(
            f"{quantity}: cannot convert {from_unit} to {to_unit}; {why}. "
            "Correct `unit`, `source_unit` or `site_units`, or convert the column in the source."
        ) from error
    scale = float(target.magnitude)
    return _rounded(float(one - zero) / scale), _rounded(float(zero) / scale)


def _rounded(number: float) -> float:
    """Return the number without the noise of its last bits: 10.000000000000002 is 10."""
    return float(f"{number:.14g}")


@lru_cache(maxsize=1)
def _registry() -> Any:
    from ucumvert import PintUcumRegistry

    return PintUcumRegistry()


@lru_cache(maxsize=256)
def _parsed(unit: str, quantity: str) -> Any:
    """Return the unit as a pint quantity."""
    try:
        parsed = _registry().from_ucum(unit)
        _ = parsed.magnitude
    except Exception as error:  # the parser raises lark, pint and its own errors
        near = _UCUM_SPELLING.get(unit.strip().lower()) or re.sub(r"^x?\s*10\^", "10*", unit.strip())
        hint = f" Did you mean {near!r}?" if near != unit else ""
        raise UnitError(
            f"{quantity}: {unit!r} is not a UCUM unit that can be converted.{hint} "
            "Write units as in UCUM (g/dL, 10*9/L, mm[Hg], a for years), or give the file's and the model's unit alike."
        ) from error
    return parsed
