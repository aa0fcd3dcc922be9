"""The images of the synthetic patients: a CT with an outlined lesion before the first dose, and one at the first assessment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.synthetic import dicom_files as files
from theracast_data.synthetic.export_fhir import SCAN_DAYS, scans
from theracast_data.synthetic.lesions import SCANNERS, Scanner, ct_image, draw_shape, lesion_mask, most_voxels
from theracast_data.synthetic.truth import Truth

Booleans = NDArray[np.bool_]
Stored = NDArray[np.uint16]

ENHANCED = ("Harbour",)
"""Hospitals whose CT is one multi-frame file with a DICOM segmentation; the others write slices and an RT structure set."""
_RESIDUAL = 0.25  # share of the diameters that a complete response leaves as a scar
_DEPTH = 0.2  # how the logarithm of a volume after treatment varies within a category
_FIRST_CLOCK = timedelta(hours=7, minutes=40)


@dataclass(frozen=True)
class Scan:
    """What one scan shows.

    Attributes:
        timepoint: 0 before the decision, 1 at the first assessment.
        share: shown volume to true volume; below 1 where the lesion outgrows the field of view.
        values: (n_slices, n_rows, n_columns) as stored, HU + 1024; mask: the lesion, same shape.
    """

    study: files.Study
    site: str
    timepoint: int
    volume_ml: float
    share: float
    values: Stored
    mask: Booleans


def write_images(truth: Truth, folder: Path, *, seed: int = 7, patients: int | None = None) -> pd.DataFrame:
    """Write `folder/PATIENT/DATE/` of every patient with imaging, and return a row a scan.

    The volume of the lesion is the truth's; where it outgrows the field of view at one of its scans, both are drawn smaller
    by one factor (`share`), so that the change between them stays true. A complete response leaves a scar. The unevenness
    inside follows the truth's `heterogeneity`, and each hospital's scanner changes the numbers in its own way. The same
    arguments give the same files, byte for byte.

    Args:
        seed: of shapes, texture and noise.
        patients: the first so many of each hospital; all by default.

    Returns:
        `subject_id`, `site`, `timepoint`, `taken`, `volume_ml` (as drawn), `share`, `path`.
    """
    writers = {site: _Writer(site) for site in SCANNERS}
    rows = []
    for scan in draw_scans(truth, seed=seed, patients=patients):
        path = folder / scan.study.subject_id / scan.study.taken.strftime("%Y-%m-%d")
        writers[scan.site].write(scan, path)
        rows.append(
            {
                "subject_id": scan.study.subject_id,
                "site": scan.site,
                "timepoint": scan.timepoint,
                "taken": scan.study.taken,
                "volume_ml": scan.volume_ml,
                "share": scan.share,
                "path": str(path),
            }
        )
    return pd.DataFrame(rows)


def draw_scans(truth: Truth, *, seed: int = 7, patients: int | None = None) -> Iterator[Scan]:
    """Yield the scans of the patients whose imaging is in the tables; see `write_images`."""
    tables = (truth.decisions, truth.values, truth.outcomes, truth.latent)
    number_at = truth.decisions.groupby("site").cumcount()
    for number, rows in enumerate(zip(*(table.to_dict("records") for table in tables), strict=True)):
        decision, values, outcomes, latent = rows
        if np.isnan(values["tumour_volume"]) or (patients is not None and number_at.iloc[number] >= patients):
            continue
        rng = np.random.default_rng([seed, 2, number])
        yield from _of_patient(decision, values["tumour_volume"], outcomes, latent["heterogeneity"], rng)


def _of_patient(
    decision: Any, volume_ml: float, outcomes: Any, heterogeneity: float, rng: np.random.Generator
) -> Iterator[Scan]:
    scanner: Scanner = SCANNERS[decision["site"]]
    shape = draw_shape(rng)
    # Day after the decision, and what is left of the volume.
    visits = [(SCAN_DAYS, 1.0)]
    visits += [
        (day, float(max(share, _RESIDUAL) ** 3 * np.exp(_DEPTH * rng.standard_normal())))
        for day, share in scans(outcomes)[:1]
    ]
    span = np.array(scanner.spacing_mm) * (0.5, 1.5, 1.5)  # how far the lesion lies from the middle, at most
    radii = [shape.radius(scanner, span * rng.uniform(-1, 1, size=3)) for _ in visits]
    room = min(most_voxels(radius) * scanner.voxel_ml for radius in radii)
    share = min(1.0, room / (volume_ml * max(left for _, left in visits)))
    for timepoint, ((day, left), radius) in enumerate(zip(visits, radii, strict=True)):
        mask = lesion_mask(radius, volume_ml * share * left, scanner)
        image = ct_image(radius, mask, heterogeneity=heterogeneity, scanner=scanner, rng=rng)
        clock = _FIRST_CLOCK + timedelta(minutes=int(rng.integers(0, 45)))
        taken: datetime = decision["index_time"].to_pydatetime() + timedelta(days=day) + clock
        yield Scan(
            study=files.Study(decision["subject_id"], taken),
            site=decision["site"],
            timepoint=timepoint,
            volume_ml=float(mask.sum()) * scanner.voxel_ml,
            share=share,
            values=np.clip(np.round(image) - files.INTERCEPT_HU, 0, 4095).astype(np.uint16),
            mask=mask,
        )


class _Writer:
    """Writes the scans of one hospital."""

    def __init__(self, site: str) -> None:
        self._scanner = SCANNERS[site]
        self._enhanced = site in ENHANCED
        rng = np.random.default_rng(0)  # only to find the pixels in the bytes of the prototype
        values = rng.integers(0, 4096, self._scanner.shape, dtype=np.uint16)
        if self._enhanced:
            slices = files.ct_slices(self._scanner, files.PROTOTYPE, values, series="ct-slices")
            mask = rng.uniform(size=values.shape) < 0.5
            whole = files.enhanced(slices, files.PROTOTYPE)
            made = files.segmentation([whole], files.PROTOTYPE, mask)
            self._ct = [files.prototype_template(whole, _pixels(values[::-1]))]
            self._seg = files.prototype_template(made, _bits(mask))
        else:
            slices = files.ct_slices(self._scanner, files.PROTOTYPE, values)
            self._ct = [
                files.prototype_template(one, _pixels(plane)) for one, plane in zip(slices, values, strict=True)
            ]

    def write(self, scan: Scan, folder: Path) -> None:
        """Write the CT and the region of a scan into a folder of their own."""
        count = len(scan.values)
        fields = scan.study.fields | scan.study.instances(count)
        if self._enhanced:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "CT.dcm").write_bytes(self._ct[0].fill(fields | {"pixels": _pixels(scan.values[::-1])}))
            (folder / "SEG.dcm").write_bytes(self._seg.fill(fields | {"pixels": _bits(scan.mask[::-1])}))
            return
        (folder / "CT").mkdir(parents=True, exist_ok=True)
        for number, (template, plane) in enumerate(zip(self._ct, scan.values, strict=True)):
            path = folder / "CT" / f"IM{count - number:04d}.dcm"
            path.write_bytes(template.fill(fields | {"pixels": _pixels(plane)}))
        outline = files.structure_set(self._scanner, scan.study, scan.mask)
        outline.save_as(folder / "RTSTRUCT.dcm", enforce_file_format=True)


def _pixels(values: Stored) -> bytes:
    return values.astype("<u2").tobytes()


def _bits(mask: Booleans) -> bytes:
    return np.packbits(mask.ravel(), bitorder="little").tobytes()
