"""Numbers of a comparison in words."""

from __future__ import annotations

import pytest

from theracast_training.effects.text import amount, interval, ratio


@pytest.mark.parametrize(
    ("scale", "values", "words"),
    [
        ("restricted_mean", (64.4, 29.2, 99.6), "+64 days (+29 to +100)"),
        ("restricted_mean", (2.94, -7.6, 13.3), "+2.9 days (−7.6 to +13.3)"),
        ("risk", (0.153, -0.01, 0.3), "+15.3 points (−1.0 to +30.0)"),
        ("mean", (0.5, 0.1, 0.9), "+0.50 (+0.10 to +0.90)"),
    ],
)
def test_estimates_carry_unit_and_sign(scale: str, values: tuple[float, float, float], words: str) -> None:
    estimate = dict(zip(("value", "low", "high"), values, strict=True))
    assert interval(estimate, scale) == words
    assert "days" not in interval(estimate, scale, bare=True)


def test_what_is_not_known_is_said_so() -> None:
    assert interval({}, "risk") == "not estimable"
    assert ratio(None) == "–"
    assert amount(None, "mean") == "–"
    assert amount(0.25, "risk") == "25.0 %"
