"""`python -m theracast_data.synthetic FOLDER`: write the synthetic cohort."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from theracast_data.synthetic import export, generate, write_images


def main() -> None:
    """Write the files and say where they are."""
    parser = argparse.ArgumentParser(prog="python -m theracast_data.synthetic", description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--faults", action="store_true", help="also plant faults for the audit to find")
    parser.add_argument("--export", action="store_true", help="also write the cohort as its hospitals export it")
    parser.add_argument("--images", action="store_true", help="also write their CTs as DICOM")
    chosen = parser.parse_args()
    truth = generate(chosen.folder, patients=chosen.patients, seed=chosen.seed, faults=chosen.faults)
    if chosen.export:
        export(truth, chosen.folder / "export", seed=chosen.seed)
    if chosen.images:
        write_images(truth, chosen.folder / "images", seed=chosen.seed)
    sys.stderr.write(f"{len(truth.decisions)} synthetic patients at {truth.decisions['site'].nunique()} sites: ")
    sys.stderr.write(f"{chosen.folder}\n")


if __name__ == "__main__":
    main()
