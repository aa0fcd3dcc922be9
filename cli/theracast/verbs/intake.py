"""deidentify, images fetch: DICOM on its way in."""

from __future__ import annotations

import argparse

from theracast.output import print_json, require_free, tell


def deidentify(options: argparse.Namespace) -> int:
    """Copy DICOM files without the patients' identity; exit 1 if none could be taken."""
    from theracast_data.dicom.deidentify import check_places, deidentify_folder, write_link
    from theracast_data.dicom.deidentify_keys import create_key, read_key
    from theracast_data.dicom.deidentify_rules import DeidentifyOptions

    choices = DeidentifyOptions(
        patient_characteristics=options.keep_patient_characteristics,
        cap_ages=not options.keep_ages_over_89,
        allow_burned_in=options.allow_burned_in,
        keep_text=tuple(options.keep_text),
    )
    check_places(options.source, to=options.to, secrets=[one for one in (options.key, options.link) if one])
    if options.link:
        require_free(options.link, overwrite=False)
    key = create_key(options.key) if options.new_key else read_key(options.key)
    report = deidentify_folder(
        options.source, to=options.to, key=key, options=choices, overwrite=options.overwrite, progress=_every_thousand
    )
    if options.link:
        write_link(options.link, report, key=key)
    if options.json:
        print_json(report.to_json())
    else:
        print(report.to_text())
    if options.new_key:
        tell(f"made the key {options.key}. Without it, later scans of these patients cannot be joined to these")
    return 0 if report.written or report.unchanged else 1


def fetch_images(options: argparse.Namespace) -> int:
    """Fetch series from an archive; exit 1 if anything listed is missing or nothing was found."""
    from theracast_data.dicom.web import connect, fetch_images, find_series

    client = connect(options.url)
    series = find_series(client, patients=options.patient, studies=options.study, modalities=options.modality)
    report = fetch_images(client, series, to=options.to)
    if options.json:
        print_json(report.to_json())
    else:
        print(report.to_text())
    if not series:
        tell("the archive holds no such series; check identifiers and modality")
    return 1 if report.incomplete or not series else 0


def _every_thousand(done: int, total: int) -> None:
    if done % 1000 == 0:
        tell(f"theracast: {done} of {total} files")
