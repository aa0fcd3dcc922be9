"""images series, extract, stability, habitats."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from theracast.output import print_json, require_free, tell, write_text
from theracast_data.errors import StudyError, TheracastError


def series(options: argparse.Namespace) -> int:
    """List the series of a folder."""
    from theracast_data.dicom.manifest import scan_folder

    if options.out:
        require_free(options.out, overwrite=options.overwrite)
    found = scan_folder(options.folder)
    if options.out:
        found.write(options.out)
    if options.json:
        rows = [row.model_dump(mode="json") for row in found.rows]
        print_json({"series": rows, "faults": [*found.faults], "other": dict(found.other)})
    else:
        shown = ["subject_id", "acquired", "timepoint", "modality", "description", "n_files", "region_names", "faults"]
        print(found.frame()[shown].to_string(index=False, max_colwidth=40))
        for fault in found.faults:
            tell(fault)
    return 0


def extract(options: argparse.Namespace) -> int:
    """Measure the images of a study and add what was measured to an event store; exit 1 if none could be measured."""
    from theracast_data.events.store import EventStore
    from theracast_data.home import home
    from theracast_features.imaging.extraction import extract_images
    from theracast_training.study import read_study

    study = read_study(options.study, overrides=options.overrides, stability=False)
    if not study.features.images:
        raise StudyError(f"{options.study}: the study measures no images. Say what under features.images.")
    known = (options.to / "manifest.json").exists()
    store = EventStore.open(options.to) if known else EventStore.create(options.to)
    report = extract_images(
        options.folder,
        {name: one.measures for name, one in study.features.images.items()},
        store=store,
        now=datetime.now(UTC),
        jobs=options.jobs or os.cpu_count() or 1,
        cache=home() / "images",
        progress=_counted(),
    )
    if options.json:
        print_json(report.to_json())
    else:
        print(report.to_text())
    tell(f"{options.to}: {store.manifest['rows']} events in {store.shard_count} shards")
    return 0 if report.measured or report.known else 1


def stability(options: argparse.Namespace) -> int:
    """Measure the regions of a study, drawn a little differently, and write the agreement of each measurement."""
    import numpy as np

    from theracast_features.imaging.extraction import stability_of_images
    from theracast_features.imaging.stability_file import stability_text
    from theracast_training.study import read_study

    require_free(options.out, overwrite=options.overwrite)
    study = read_study(options.study, overrides=options.overrides, stability=False)
    kinds = {name: one.measures for name, one in study.features.images.items()}
    name = options.images or (next(iter(kinds)) if len(kinds) == 1 else "")
    if name not in kinds:
        raise StudyError(f"--images: name one of {', '.join(kinds) or 'none: the study measures no images'}.")
    found = stability_of_images(
        options.folder, name, kinds[name], patients=options.patients, rng=np.random.default_rng(options.seed)
    )
    write_text(options.out, stability_text(name, kinds[name], found), overwrite=options.overwrite)
    stable = sum(one.icc >= 0.75 for one in found)
    tell(f"wrote {options.out}: {stable} of {len(found)} measurements have an ICC of at least 0.75")
    return 0


def habitats(options: argparse.Namespace) -> int:
    """Fit habitats on the patients who develop the model, and write what was learnt."""
    import numpy as np

    from theracast_features.imaging.habitat_file import fitted_text
    from theracast_features.imaging.habitat_fit import fit_image_habitats
    from theracast_training.development_patients import development_patients
    from theracast_training.study import read_study

    require_free(options.out, overwrite=options.overwrite)
    study = read_study(options.study, overrides=options.overrides, stability=False, fitted=False)
    kinds = {name: one.measures for name, one in study.features.images.items() if one.habitats is not None}
    name = options.images or (next(iter(kinds)) if len(kinds) == 1 else "")
    if name not in kinds:
        raise StudyError(f"--images: name one of {', '.join(kinds) or 'none: the study asks for no habitats'}.")
    patients = development_patients(study, base=options.study.parent)
    if options.patients:
        patients &= _listed(options.patients)
    found = fit_image_habitats(
        options.folder, name, kinds[name], patients=patients, rng=np.random.default_rng(options.seed)
    )
    counts = {"others": found.others, "faults": len(found.faults)}
    text = fitted_text(name, kinds[name], found.habitats, study=study.study, seed=options.seed, **counts)
    write_text(options.out, text, overwrite=options.overwrite)
    for fault in found.faults:
        tell(f"left out: {fault}")
    for note, count in found.notes.most_common():
        tell(f"{count} x {note}")
    tell(
        f"wrote {options.out}: {found.habitats.count} habitats from {found.habitats.patients} patients; {found.others} with "
        "images do not develop the model and were left out"
    )
    return 0


def _listed(path: Path) -> frozenset[str]:
    """Return the identifiers of a file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TheracastError(f"{path}: the list of patients cannot be read ({error}). Name a text file.") from error
    return frozenset(line.strip() for line in lines if line.strip())


def _counted() -> Callable[[int, int], None]:
    """Return what tells how many images are done: on a terminal at each, elsewhere now and then."""
    last = time.monotonic()

    def count(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if sys.stderr.isatty():
            print(f"\rtheracast: {done} of {total} images", end="\n" if done == total else "", file=sys.stderr)
        elif now - last > 15 or done == total:
            last = now
            tell(f"{done} of {total} images")

    return count
