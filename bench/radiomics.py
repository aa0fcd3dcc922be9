"""How fast radiomics is, and in how much memory: alone, by family, by size of the region, and beside other libraries.

    python bench/radiomics.py [--voxels 75000] [--skip-growth] [--plot growth.svg]
                              [--mirp PYTHON] [--zrad PYTHON] [--pyradiomics PYTHON]

One region in a CT of 512 x 512 x 120 voxels of 1 mm. The full set is every family of the image, of 3 Laplacians of Gaussian and
of 8 wavelet bands. Each row runs in a process of its own, on one thread; wall and CPU are the best of some repetitions after
a first one, peak memory is that of the whole process. Other libraries are run by the Python of an environment that has them
(none of them is a dependency); they read the same image, cropped to the region with 16 voxels around it, which ours does itself.
Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "NUMBA_NUM_THREADS",
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
    ),
    "1",
)
SHAPE = (120, 512, 512)
GROWTH = (3_000, 10_000, 30_000, 75_000, 150_000, 300_000, 450_000)
SIGMAS_MM = (1.0, 2.0, 3.0)
BANDS = ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH")
TEXTURE = ("glcm", "glrlm", "glszm", "gldzm", "ngtdm", "ngldm")
REPEATS = 3


def make(folder: Path, voxels: int) -> None:
    """Write a CT (correlated noise around soft tissue) and the mask of a lumpy ball, whole and cropped, as NIfTI and npy."""
    import nibabel as nib
    import numpy as np
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(7)
    image = np.empty(SHAPE, np.int16)
    for z in range(0, SHAPE[0], 20):  # in slabs: the noise itself is larger than the image
        noise = gaussian_filter(rng.normal(size=(20, *SHAPE[1:])).astype(np.float32), 1.0)
        image[z : z + 20] = np.clip(np.rint(40 + 400 * noise), -1000, 3000)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    angle = np.arctan2(y - 250, x - 260)
    radius = (3 * voxels / (4 * np.pi)) ** (1 / 3) * (1 + 0.08 * np.sin(5 * angle)) * (1 + 0.05 * np.sin(z / 4))
    mask = (z - 60) ** 2 + (y - 250) ** 2 + (x - 260) ** 2 <= radius**2
    np.save(folder / "image.npy", image)
    np.save(folder / "mask.npy", mask)
    places = np.argwhere(mask)
    crop = tuple(slice(max(low - 16, 0), high + 17) for low, high in zip(places.min(0), places.max(0), strict=True))
    for name, volume in (("image", image), ("mask", mask.astype(np.uint8))):
        nib.save(nib.Nifti1Image(volume[crop].T, np.diag([1.0, 1.0, 1.0, 1.0])), folder / f"{name}.nii")


def settings(families: tuple[str, ...] | None = None, *, filters: bool = True) -> Any:
    """Return the settings of the full set, or of some families of the image alone."""
    from theracast_features.imaging.settings import (
        FixedBinSize,
        LaplacianOfGaussian,
        RadiomicsSettings,
        Resegmentation,
        Wavelet,
    )

    chosen = [LaplacianOfGaussian(sigma_mm=sigma) for sigma in SIGMAS_MM]
    plain = RadiomicsSettings(
        resegmentation=Resegmentation(minimum=-1000, maximum=400),
        discretisation=FixedBinSize(width=25),
        aggregations=("3D_avg",),
        filters=(*chosen, Wavelet(wavelet="coif1", bands=BANDS)) if filters else (),
    )
    return plain if families is None else plain.model_copy(update={"families": families})


def ours(folder: Path, families: tuple[str, ...] | None = None, *, filters: bool = True) -> Callable[[], int]:
    """Return a call that computes a set and gives the number of its features."""
    import numpy as np

    from theracast_features.imaging.extract import radiomics

    image, mask = np.load(folder / "image.npy", mmap_mode="r"), np.load(folder / "mask.npy")
    chosen = settings(families, filters=filters)
    return lambda: len(radiomics(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=chosen))


def texture_alone(folder: Path, family: str) -> Callable[[], int]:
    """Return a call that computes matrices and features of one family (or all) from ready grey levels."""
    import numpy as np

    from theracast_features.imaging import extract
    from theracast_features.imaging.discretise import discretise
    from theracast_features.imaging.levels import VoxelFrame
    from theracast_features.imaging.region import prepare_region

    chosen = settings(filters=False)
    image, mask = np.load(folder / "image.npy", mmap_mode="r"), np.load(folder / "mask.npy")
    region = prepare_region(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=chosen)
    frame = VoxelFrame.of(region.intensity_mask, region.shape_mask, reach=1)
    grey = discretise(region.intensities, chosen.discretisation, minimum=-1000)
    families: Any = TEXTURE if family == "all" else (family,)
    return lambda: len(extract.texture_features(frame, grey, chosen, families))


def mirp(folder: Path) -> Callable[[], int]:
    from mirp import extract_features

    def call() -> int:
        (found,) = extract_features(
            image=str(folder / "image.nii"),
            mask=str(folder / "mask.nii"),
            image_modality="ct",
            write_features=False,
            export_features=True,
            num_cpus=1,
            resegmentation_intensity_range=[-1000.0, 400.0],
            base_discretisation_method="fixed_bin_size",
            base_discretisation_bin_width=25.0,
            base_feature_families="all",
            glcm_spatial_method="3d_average",
            glrlm_spatial_method="3d_average",
            glszm_spatial_method="3d",
            gldzm_spatial_method="3d",
            ngtdm_spatial_method="3d",
            ngldm_spatial_method="3d",
            filter_kernels=["laplacian_of_gaussian", "separable_wavelet"],
            laplacian_of_gaussian_sigma=list(SIGMAS_MM),
            separable_wavelet_families="coif1",
            separable_wavelet_set=list(BANDS),
            separable_wavelet_rotation_invariance=False,
            response_map_feature_families=["statistics", "intensity_histogram", "ivh", *TEXTURE],
            response_map_discretisation_method="fixed_bin_number",
            response_map_discretisation_n_bins=32,
        )
        return int(found.shape[1])

    return call


def zrad(folder: Path) -> Callable[[], int]:
    from zrad.filtering import LoG, Wavelets3D
    from zrad.image import Image
    from zrad.preprocessing import (
        IntensityMaskBuilder,
        IVHIntensityDiscretizer,
        Resegmenter,
        RoiCropper,
        RoiData,
        TextureDiscretizer,
    )
    from zrad.radiomics import Radiomics

    maps = ["intensity_statistics", "intensity_histogram", "ivh", *TEXTURE]
    filters = [
        None,
        *(LoG(padding_type="reflect", sigma_mm=sigma, cutoff=4, dimensionality="3D") for sigma in SIGMAS_MM),
    ]
    filters += [Wavelets3D("coif1", "reflect", band, 1, rotation_invariance=False) for band in BANDS]

    def call() -> int:
        count = 0
        image = Image.from_nifti(str(folder / "image.nii"))
        mask = Image.from_nifti_mask(str(folder / "mask.nii"), reference=image)
        for chosen in filters:
            roi = RoiData(image=image, morphological_mask=mask)
            steps = [
                *([] if chosen is None else [chosen]),
                IntensityMaskBuilder(),
                RoiCropper(),
                Resegmenter(intensity_range=[-1000, 400]),
                TextureDiscretizer(bin_size=25) if chosen is None else TextureDiscretizer(number_of_bins=32),
                IVHIntensityDiscretizer(method="direct"),
            ]
            for step in steps:
                roi = step.apply(roi)
            families = ["morphology", "local_intensity", *maps] if chosen is None else maps
            count += len(Radiomics(aggr_dim="3D", aggr_method="AVER").extract_features(roi_data=roi, families=families))
        return count

    return call


def pyradiomics(folder: Path) -> Callable[[], int]:
    import logging

    from radiomics import featureextractor, logger

    logger.setLevel(logging.ERROR)
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=25, preCrop=False)
    extractor.enableAllFeatures()
    extractor.enableImageTypes(
        Original={}, LoG={"sigma": list(SIGMAS_MM), "binWidth": 5}, Wavelet={"wavelet": "coif1", "binWidth": 5}
    )

    def call() -> int:
        found = extractor.execute(str(folder / "image.nii"), str(folder / "mask.nii"))
        return sum(not name.startswith("diagnostics") for name in found)

    return call


ROWS: dict[str, Callable[[Path], Callable[[], int]]] = {
    "full": ours,
    "image": lambda folder: ours(folder, filters=False),
    "mirp": mirp,
    "zrad": zrad,
    "pyradiomics": pyradiomics,
} | {f"texture {family}": (lambda folder, family=family: texture_alone(folder, family)) for family in ("all", *TEXTURE)}  # type: ignore[misc]


def run_row(row: str, folder: Path, repeats: int) -> None:
    """Run one row in this process and print its figures as JSON."""
    # This script's folder comes first on the path, and `import radiomics` would find the script.
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    begun = time.perf_counter()
    call = ROWS[row](folder)
    loaded = time.perf_counter()
    used = time.process_time()
    count = call()
    first, first_cpu = time.perf_counter() - loaded, time.process_time() - used
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    figures = {
        "import": loaded - begun,
        "first": first,
        "first_cpu": first_cpu,
        "wall": min(walls),
        "cpu": min(cpus),
        "memory": memory,
    }
    print(json.dumps(figures | {"count": count}))


def measure(row: str, folder: Path, *, python: str, repeats: int, cache: Path) -> dict[str, float] | str:
    """Return the figures of one row from a new process, or why there are none."""
    command = [python, __file__, "--row", row, "--folder", str(folder), "--repeats", str(repeats)]
    environment = os.environ | ONE_THREAD | {"NUMBA_CACHE_DIR": str(cache)}
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_row(label: str, found: dict[str, float] | str, *, milliseconds: bool = False) -> None:
    if isinstance(found, str):
        print(f"{label:28} left out: {found}", flush=True)
        return
    scale = 1000 if milliseconds else 1
    figures = "".join(f"{found[name] * scale:10.{1 if milliseconds else 2}f}" for name in ("wall", "cpu"))
    print(
        f"{label:28}{figures}{found['first']:10.2f}{found['import']:10.2f}{found['memory']:9.0f}{found['count']:10,.0f}",
        flush=True,
    )


def header(title: str, unit: str) -> None:
    print(
        f"\n{title}\n{'':28}{'wall ' + unit:>10}{'CPU ' + unit:>10}{'first s':>10}{'import s':>10}{'peak MB':>9}{'features':>10}"
    )


def plot_growth(rows: list[tuple[int, dict[str, float]]], path: Path) -> None:
    """Save CPU seconds against voxels, with the line that linear growth through the middle point would follow."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    sizes, seconds = [size for size, _ in rows], [found["cpu"] for _, found in rows]
    axes.loglog(sizes, seconds, "o-", color="#0072B2", label="full set")
    anchor = len(rows) // 2
    axes.loglog(
        sizes, [seconds[anchor] * size / sizes[anchor] for size in sizes], "--", color="#999999", label="linear"
    )
    axes.set(xlabel="voxels of the region", ylabel="CPU seconds")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=75_000)
    parser.add_argument("--skip-growth", action="store_true")
    parser.add_argument("--plot", type=Path, help="where to save the picture of the growth")
    for peer in ("mirp", "zrad", "pyradiomics"):
        parser.add_argument(f"--{peer}", metavar="PYTHON", help=f"Python of an environment with {peer}")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        run_row(given.row, given.folder, given.repeats)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), Path(name) / "numba"

        def prepare(voxels: int) -> None:
            # Not in this process: the peak memory of a child starts at what its parent holds.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                pool.submit(make, folder, voxels).result()

        prepare(given.voxels)
        header(f"Region of about {given.voxels:,} voxels in {SHAPE[2]} x {SHAPE[1]} x {SHAPE[0]}", "s")
        compiling = measure("full", folder, python=sys.executable, repeats=1, cache=cache)
        mine = measure("full", folder, python=sys.executable, repeats=given.repeats, cache=cache)
        print_row("theracast, full set", mine)
        print_row(
            "theracast, image alone",
            measure("image", folder, python=sys.executable, repeats=given.repeats, cache=cache),
        )
        for peer in ("mirp", "zrad", "pyradiomics"):
            python = getattr(given, peer)
            if python is None:
                print_row(peer, f"--{peer} PYTHON was not given")
                continue
            found = measure(peer, folder, python=python, repeats=1, cache=cache)
            print_row(f"{peer}, cropped image", found)
            if not isinstance(found, str) and not isinstance(mine, str):
                print(f"{'':28}{found['wall'] / mine['wall']:9.1f}x{found['cpu'] / mine['cpu']:9.1f}x")
        if not isinstance(compiling, str):
            print(
                f"compilation, once per installation: first call {compiling['first']:.1f} s, {compiling['first_cpu']:.1f} s of CPU"
            )
        header("Texture of one image, from grey levels", "ms")
        for family in ("all", *TEXTURE):
            found = measure(f"texture {family}", folder, python=sys.executable, repeats=9, cache=cache)
            print_row(f"texture, {family}", found, milliseconds=True)
        if given.skip_growth:
            return
        header("Growth of the full set", "s")
        rows: list[tuple[int, dict[str, float]]] = []
        for voxels in GROWTH:
            prepare(voxels)
            found = measure("full", folder, python=sys.executable, repeats=2, cache=cache)
            print_row(f"{voxels:,} voxels", found)
            if not isinstance(found, str):
                rows.append((voxels, found))
                print(f"{'':28}{1e6 * found['cpu'] / voxels:20.1f} microseconds of CPU a voxel")
        if given.plot is not None:
            plot_growth(rows, given.plot)


if __name__ == "__main__":
    main()
