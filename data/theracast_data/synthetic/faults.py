"""Faults that real exports have, planted on purpose for the audit to find."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.synthetic.files import Tables
from theracast_data.synthetic.patients import MODALITY_COLUMNS
from theracast_data.synthetic.truth import PlantedFault

U_PER_L_IN_UKAT_PER_L = 60.0

FAULTS = (
    PlantedFault("unit-shift", "Lakeside", "ldh"),
    PlantedFault("constant-at-site", "Harbour", "bmi"),
    PlantedFault("unseen-level", "Lakeside", "cancer_type"),
    PlantedFault("outcome-contradiction", "Northfield", None),
    PlantedFault("same-patient-at-two-sites", "Lakeside", None),
    PlantedFault("duplicate-row", "Harbour", None),
)


def plant_faults(decisions: pd.DataFrame, values: pd.DataFrame, outcomes: pd.DataFrame) -> Tables:
    """Return the tables with one fault of each kind in `FAULTS`; the tables given stay as they are.

    Lakeside gives LDH in ukat/L without saying so, Harbour fills in one BMI for everybody, Lakeside has two patients
    with a diagnosis that no development site has, three patients at Northfield die before they progress, three of
    Northfield's patients come again at Lakeside under new ids, and two of Harbour's rows are there twice.
    """
    decisions, values, outcomes = decisions.copy(), values.copy(), outcomes.copy()
    rows = {site: np.flatnonzero(decisions["site"] == site) for site in ("Northfield", "Harbour", "Lakeside")}
    at_lakeside = decisions["site"] == "Lakeside"
    values["ldh"] = (values["ldh"] / U_PER_L_IN_UKAT_PER_L).round(2).where(at_lakeside, values["ldh"])
    values.loc[rows["Harbour"], "bmi"] = 26.4
    values.loc[rows["Lakeside"][:2], "cancer_type"] = "Mesothelioma"
    progressed = rows["Northfield"][(outcomes["pfs_event"].to_numpy() == 1)[rows["Northfield"]]][:3]
    outcomes.loc[progressed, "os_months"] = (outcomes.loc[progressed, "pfs_months"] / 2).round(2)
    outcomes.loc[progressed, "os_event"] = 1.0
    again = _again(decisions, rows["Northfield"][10:13], site="Lakeside", prefix="LX")
    twice = _again(decisions, rows["Harbour"][5:7], site="Harbour", prefix="HX")
    copied = np.concatenate([rows["Northfield"][10:13], rows["Harbour"][5:7]])
    extra = values.iloc[copied].reset_index(drop=True)
    extra["ldh"] = (extra["ldh"] / U_PER_L_IN_UKAT_PER_L).round(2).where(extra.index < len(again), extra["ldh"])
    extra.loc[extra.index < len(again), list(MODALITY_COLUMNS["wearables"])] = np.nan
    return (
        pd.concat([decisions, again, twice], ignore_index=True),
        pd.concat([values, extra], ignore_index=True),
        pd.concat([outcomes, outcomes.iloc[copied]], ignore_index=True),
    )


def _again(decisions: pd.DataFrame, rows: NDArray[np.intp], *, site: str, prefix: str) -> pd.DataFrame:
    copies = decisions.iloc[rows].copy()
    copies["site"] = site
    copies["subject_id"] = [f"{prefix}-{number:04d}" for number in range(1, len(rows) + 1)]
    return copies
