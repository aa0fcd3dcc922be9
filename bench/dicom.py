"""How long a CT series takes to become a checked volume, beside pydicom and SimpleITK.

`pydicom` decodes all pixels and does nothing else; `+ volume` puts them in one array in HU, as a user would, unchecked and
unsorted.

    python bench/dicom.py [--slices 120] [--size 512] [--repeats 5]

The series is random noise over a gradient, written here; the least CPU time of the repeats is told. Prints a
table; asserts nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uids
from pydicom.dataset import FileDataset, FileMetaDataset

from theracast_data.dicom.series import read_series


def write_series(folder: Path, slices: int, size: int, syntax: uids.UID) -> list[Path]:
    """Write a CT series of 12 bits."""
    noise = np.random.default_rng(1).integers(0, 40, (size, size))
    ramp = np.linspace(0, 3000, size).astype(int)
    files = []
    for number in range(slices):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = uids.ExplicitVRLittleEndian, uids.CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID, image.Modality = uids.CTImageStorage, f"1.2.3.{number}", "CT"
        image.PatientID, image.StudyInstanceUID, image.SeriesInstanceUID = "P", "1.2", "1.2.3"
        image.FrameOfReferenceUID, image.ImageType = "1.2.4", ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 2.5 * number], [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness, image.InstanceNumber = [0.8, 0.8], 2.5, number + 1
        image.Rows, image.Columns, image.SamplesPerPixel = size, size, 1
        image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 0
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 12, 11
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.PixelData = (noise + ramp[:, None] + number).astype("<u2").tobytes()
        image["PixelData"].VR = "OW"
        if syntax != uids.ExplicitVRLittleEndian:
            image.compress(syntax, generate_instance_uid=False)
        files.append(folder / f"{number:04d}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    return files


def bare_pydicom(files: list[Path]) -> None:
    """Decode the pixels of each file."""
    for path in files:
        pydicom.dcmread(path).pixel_array  # noqa: B018


def pydicom_volume(files: list[Path]) -> None:
    """Decode the pixels of each file into one array in HU."""
    images = [pydicom.dcmread(path) for path in files]
    slope, intercept = float(images[0].RescaleSlope), float(images[0].RescaleIntercept)
    np.stack([image.pixel_array for image in images]).astype(np.float32) * np.float32(slope) + np.float32(intercept)


def simpleitk(files: list[Path]) -> None:
    """Read the files, which are in order already."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in files])
    SimpleITK.GetArrayFromImage(reader.Execute())


def least_seconds(run: Callable[[list[Path]], object], files: list[Path], repeats: int) -> float:
    """Return the least CPU time of a run, which other work on the machine touches least."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run(files)
        times.append(time.process_time() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.slices} slices of {options.size} x {options.size}, CPU seconds\n")
    heads = (
        f"{'theracast':>10}{'pydicom':>9}{'+ volume':>10}{'SimpleITK':>11}{'/ pydicom':>11}{'/ volume':>10}{'/ ITK':>8}"
    )
    print(f"{'stored as':32}{heads}")
    for syntax in (uids.ExplicitVRLittleEndian, uids.RLELossless, uids.JPEGLSLossless):
        with tempfile.TemporaryDirectory() as folder:
            files = write_series(Path(folder), options.slices, options.size, syntax)
            runs = (read_series, bare_pydicom, pydicom_volume, simpleitk)
            ours, bare, stacked, itk = (least_seconds(run, files, options.repeats) for run in runs)
        print(
            f"{syntax.name[:30]:32}{ours:10.3f}{bare:9.3f}{stacked:10.3f}{itk:11.3f}"
            f"{ours / bare:11.2f}{ours / stacked:10.2f}{ours / itk:8.2f}"
        )


if __name__ == "__main__":
    main()
