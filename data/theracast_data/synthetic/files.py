"""The synthetic cohort as a hospital keeps it: a workbook of the clinic, exports of the laboratory, and so on."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.synthetic.patients import MODALITY_COLUMNS

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]

CLINIC = {
    "age": "Age (years)",
    "sex": "Sex",
    "bmi": "BMI",
    "ecog": "ECOG PS",
    "stage": "Stage",
    "cancer_type": "Diagnosis",
    "smoking": "Smoking",
    "systemic_therapy_history": "Systemic therapy before",
    "line_of_therapy": "Line",
    "regimen": "Regimen",
}
OUTCOMES = {
    "recist": "Best response",
    "pfs_months": "PFS (months)",
    "pfs_event": "Progressed or died",
    "os_months": "OS (months)",
    "os_event": "Status",
}
LABS = {
    "albumin": "ALB",
    "haemoglobin": "HB",
    "neutrophils": "NEUT",
    "lymphocytes": "LYMPH",
    "platelets": "PLT",
    "ldh": "LDH",
    "crp": "CRP",
}
GENOMICS = {"tmb": "TMB_mut_per_Mb", "pdl1_tps": "PD-L1 TPS (%)", "msi": "MSI status", "driver_mutation": "Driver"}
IMAGING = {"tumour_volume": "Tumour volume [ml]", "sum_of_diameters": "SLD [mm]"}
QUESTIONNAIRES = {"fatigue": "FA", "quality_of_life": "QL2"}
WEARABLES = {"daily_steps": "steps_per_day", "resting_heart_rate": "resting_heart_rate"}

# g/L at one site and g/dL at the others: `site_units` in the study.
TIMES_TEN = {"albumin": "Harbour", "haemoglobin": "Lakeside"}
NOT_KNOWN = {"crp": "n.d.", "ldh": "haemolysed", "albumin": "n.d.", "haemoglobin": "n.d."}


def write_files(folder: Path, tables: Tables, rng: np.random.Generator) -> None:
    """Write clinic.xlsx, labs.csv, genomics.csv, imaging.csv, questionnaires.csv and wearables.parquet.

    A patient without a modality has no row in its file; rows stand in no particular order there.
    """
    decisions, values, outcomes = tables
    folder.mkdir(parents=True, exist_ok=True)
    _write_clinic(folder / "clinic.xlsx", decisions, values, outcomes)
    order = rng.permutation(len(decisions))
    keys = pd.DataFrame({"patient": decisions["subject_id"], "hospital": decisions["site"]})
    labs = pd.concat([keys, _labs(decisions, values)], axis=1).iloc[order]
    labs.to_csv(folder / "labs.csv", index=False, lineterminator="\n")
    exports = {
        name: pd.concat([keys[["patient"]], table], axis=1).iloc[order[_was_done(values, name)[order]]]
        for name, table in (
            ("genomics", _genomics(values)),
            ("imaging", values[list(IMAGING)].rename(columns=IMAGING)),
            ("questionnaires", values[list(QUESTIONNAIRES)].rename(columns=QUESTIONNAIRES)),
            ("wearables", values[list(WEARABLES)].rename(columns=WEARABLES)),
        )
    }
    exports["genomics"].to_csv(folder / "genomics.csv", index=False, lineterminator="\n")
    exports["imaging"].to_csv(folder / "imaging.csv", index=False, sep=";", decimal=",", lineterminator="\n")
    exports["questionnaires"].to_csv(folder / "questionnaires.csv", index=False, lineterminator="\n")
    exports["wearables"].to_parquet(folder / "wearables.parquet", index=False)


def _was_done(values: pd.DataFrame, modality: str) -> NDArray[np.bool_]:
    return values[list(MODALITY_COLUMNS[modality])].notna().any(axis=1).to_numpy()


def _write_clinic(path: Path, decisions: pd.DataFrame, values: pd.DataFrame, outcomes: pd.DataFrame) -> None:
    """Write one sheet per site, with dates as dates and yes/no as words."""
    clinic = values[list(CLINIC)].rename(columns=CLINIC)
    clinic[CLINIC["systemic_therapy_history"]] = values["systemic_therapy_history"].map({1.0: "yes", 0.0: "no"})
    outcome = outcomes[list(OUTCOMES)].rename(columns=OUTCOMES)
    outcome[OUTCOMES["os_event"]] = outcomes["os_event"].map({1.0: "died", 0.0: "alive"})
    table = pd.concat(
        [
            decisions["subject_id"].rename("Patient"),
            decisions["index_time"].dt.date.rename("Decision date"),
            clinic,
            outcome,
        ],
        axis=1,
    )
    memory = io.BytesIO()
    with pd.ExcelWriter(memory, engine="openpyxl") as writer:
        for site in dict.fromkeys(decisions["site"]):
            table[(decisions["site"] == site).to_numpy()].to_excel(writer, sheet_name=site, index=False)
    path.write_bytes(_without_clock(memory.getvalue()))


def _without_clock(workbook: bytes) -> bytes:
    """Return the workbook without the times of writing, so that the same cohort gives the same bytes."""
    clean = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook)) as old, zipfile.ZipFile(clean, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "docProps/core.xml":
                content = re.sub(rb"\d{4}-\d\d-\d\dT[\d:.]+Z", b"2025-01-01T00:00:00Z", content)
            new.writestr(zipfile.ZipInfo(name, date_time=(2025, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return clean.getvalue()


def _labs(decisions: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Return the laboratory's export: each site in its own units, codes where there is no result."""
    labs = pd.DataFrame(index=values.index)
    for name, header in LABS.items():
        numbers = values[name]
        if name in TIMES_TEN:
            numbers = (numbers * 10).round(1).where(decisions["site"] == TIMES_TEN[name], numbers)
        labs[header] = numbers.astype(object).where(numbers.notna(), NOT_KNOWN.get(name))
    return labs


def _genomics(values: pd.DataFrame) -> pd.DataFrame:
    genomics = values[list(GENOMICS)].rename(columns=GENOMICS)
    genomics[GENOMICS["msi"]] = values["msi"].map({0.0: "MSS", 1.0: "MSI-H"})
    stains = values["pdl1_tps"]
    genomics[GENOMICS["pdl1_tps"]] = stains.astype(object).where(stains.notna(), "not stained")
    return genomics
