"""The synthetic cohort as a hospital exports it: a FHIR bulk export, the laboratory's CSV file, the days of the wearables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from theracast_data.synthetic.export_fhir import MAKERS
from theracast_data.synthetic.export_series import lab_results, wearable_days
from theracast_data.synthetic.files import LABS
from theracast_data.synthetic.truth import Truth

SHORT_DAY_MINUTES = 95


@dataclass(frozen=True)
class PlantedRefusal:
    """A record that cannot be understood, put into the export on purpose: what the ingestion says of it."""

    source: str
    code: str
    reason: str


REFUSALS = (
    PlantedRefusal("hospital", "line", "not JSON"),
    PlantedRefusal("hospital", "Observation", "status entered-in-error"),
    PlantedRefusal("laboratory", "demo_lab//LDH", "value is no number, kept as text"),
    PlantedRefusal("laboratory", "demo_lab//CRP", "collected is no moment of the form ISO 8601"),
    PlantedRefusal("wearables", "(day)", "the day was worn less than 600 minutes"),
)


def export(truth: Truth, folder: Path, *, seed: int = 7, faults: bool = True) -> tuple[PlantedRefusal, ...]:
    """Write `fhir/*.ndjson`, `labs.csv` and `wearables.csv` into `folder`, and return what was planted.

    The last value of each quantity before the decision is the cohort's, of the wearables the mean of the days before it.
    What lies after the decision is there as it would be in a hospital: later cycles, scans, forms and laboratory values,
    disease status, death or the last contact. Instants of the resources carry the offset of the hospitals' clock, the long
    files do not; days without a clock time are written as days. The same arguments give the same files, byte for byte.
    `studies/ingest/demo.yaml` reads them.

    Args:
        seed: of the courses around the values.
        faults: also plant the records in `REFUSALS`.
    """
    (folder / "fhir").mkdir(parents=True, exist_ok=True)
    rows = list(
        zip(*(part.to_dict("records") for part in (truth.decisions, truth.values, truth.outcomes)), strict=True)
    )
    for name, maker in MAKERS.items():
        with (folder / "fhir" / f"{name}.ndjson").open("w", encoding="utf-8", newline="\n") as stream:
            for decision, values, outcomes in rows:
                for resource in maker(decision, values, outcomes):
                    stream.write(json.dumps(resource, separators=(",", ":"), ensure_ascii=False) + "\n")
    labs = lab_results(truth, np.random.default_rng([seed, 0]))
    labs.to_csv(folder / "labs.csv", index=False, lineterminator="\n")
    days = wearable_days(truth, np.random.default_rng([seed, 1]))
    days.to_csv(folder / "wearables.csv", index=False, lineterminator="\n")
    if not faults:
        return ()
    _plant(truth, folder)
    return REFUSALS


def _plant(truth: Truth, folder: Path) -> None:
    """Append a line that was cut off, a withdrawn result, a haemolysed sample, a day that is none, a day hardly worn."""
    observations = folder / "fhir" / "Observation.ndjson"
    first = observations.read_text(encoding="utf-8").splitlines()[0]
    withdrawn = json.loads(first) | {"id": "withdrawn", "status": "entered-in-error"}
    with observations.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(json.dumps(withdrawn, separators=(",", ":"), ensure_ascii=False) + "\n" + first[:60] + "\n")
    patient, site = truth.decisions[["subject_id", "site"]].iloc[0]
    day = truth.decisions["index_time"].iloc[0].strftime("%Y-%m-%d")
    with (folder / "labs.csv").open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(f"{patient},{site},{LABS['ldh']},haemolysed,U/L,{day} 06:10,{day} 07:00\n")
        stream.write(f"{patient},{site},{LABS['crp']},7.1,mg/L,2021-02-30 08:00,2021-03-01 09:00\n")
    with (folder / "wearables.csv").open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(f"{patient},2018-05-01,120,71,{SHORT_DAY_MINUTES}\n")
