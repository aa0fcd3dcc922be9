"""The command `theracast`: what can be asked for, and how its errors leave the program."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from theracast import __version__

_EXPLAIN = "features-explain"
_EPILOG = """exit codes: 0 done, 1 the input must be mended, 2 wrong usage.
State (runs, registry, tuning journals) lies under THERACAST_HOME, by default .theracast; MLFLOW_TRACKING_URI is respected."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:2] == ["features", "explain"]:  # a verb of its own: `features STUDY` takes a file in that place
        given[:2] = [_EXPLAIN]
    options = build_parser().parse_args(given)
    logging.basicConfig(
        level=logging.DEBUG if options.debug else logging.INFO if options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for library in ("matplotlib", "git", "urllib3", "alembic", "mlflow", "fontTools"):
        logging.getLogger(library).setLevel(logging.WARNING)
    logging.getLogger("retrying").setLevel(logging.ERROR)  # a traceback for each try; the verb says what failed
    module, _, function = options.verb_target.partition(":")
    from theracast_data.errors import TheracastError

    try:
        verb: Callable[[argparse.Namespace], int] = getattr(import_module(module), function)
        return verb(options)
    except TheracastError as error:
        return _refused(str(error), debug=options.debug)
    except FileExistsError as error:
        return _refused(str(error), debug=options.debug)
    except KeyboardInterrupt:
        print("theracast: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _refused(message: str, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"theracast: {message}", file=sys.stderr)
    return 1


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog="theracast",
        description="Treatment-response prediction: a study file in, an honestly validated, explained model out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"theracast {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("-v", "--verbose", action="store_true", help="tell the story of the run on stderr")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, target: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, parents=[common])
        added.set_defaults(verb_target=f"theracast.verbs.{target}")
        return added

    _add_data_verbs(verb)
    _add_training_verbs(verb)
    _add_scoring_verbs(verb)
    images = verbs.add_parser("images", help="images: fetch, series, extract, stability, habitats", parents=[common])
    _add_image_verbs(images, common)
    models = verbs.add_parser("models", help="the registry: list, show, alias, rollback", parents=[common])
    _add_registry_verbs(models, common)
    return parser


_AddVerb = Callable[[str, str, str], argparse.ArgumentParser]


def _add_data_verbs(verb: _AddVerb) -> None:
    init = verb("init", "data:init", "draft a study file from a table")
    init.add_argument("name", metavar="NAME", help="name of the study; the file is NAME.yaml")
    init.add_argument("--from", dest="table", type=Path, required=True, metavar="TABLE", help="CSV, XLSX or Parquet")
    init.add_argument("--out", type=Path, metavar="FILE", help="where to write it (default NAME.yaml)")
    _overwrite(init)
    schema = verb("schema", "data:schema", "print the JSON schema of a study file")
    schema.add_argument("--out", type=Path, metavar="FILE")
    _overwrite(schema)
    check = verb("check", "data:check", "audit a study's data before modelling; exit 1 on open errors")
    _study(check)
    check.add_argument("--html", type=Path, metavar="FILE", help="also write the findings as a page")
    _overwrite(check)
    _json(check)
    features = verb("features", "data:features", "write one row of features per decision, and their catalogue")
    _study(features)
    features.add_argument("--out", type=Path, required=True, metavar="FILE", help="Parquet file")
    cache = features.add_mutually_exclusive_group()
    cache.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="parts of tables; default: features in THERACAST_HOME"
    )
    cache.add_argument("--no-cache", action="store_true", help="compute everything, keep nothing but the file")
    _overwrite(features)
    _json(features)
    explain = verb(_EXPLAIN, "data:explain", "`features explain`: how a feature came about, and from which rows")
    explain.add_argument("name", metavar="NAME", help="name of the feature, e.g. lab.albumin.slope.30d")
    explain.add_argument("--study", type=Path, required=True, metavar="STUDY", help="study file (YAML)")
    explain.add_argument("--patient", metavar="ID", help="show the rows of this patient")
    ingest = verb("ingest", "data:ingest", "read sources of dated facts into an event store")
    ingest.add_argument("source", type=Path, metavar="SOURCE", help="YAML file that lists the sources")
    ingest.add_argument(
        "--to", type=Path, required=True, metavar="STORE", help="folder of the event store; made if new"
    )
    ingest.add_argument("--shards", type=int, default=16, metavar="N", help="shards of a new store (default 16)")
    _json(ingest)
    deidentify = verb("deidentify", "intake:deidentify", "copy DICOM files without the patients' identity")
    _deidentify(deidentify)
    fetch = verb("fetch", "data:fetch", "download a public cohort and check its hash")
    fetch.add_argument("name", metavar="NAME", help="e.g. icb")
    fetch.add_argument("--to", type=Path, required=True, metavar="DIR")
    _overwrite(fetch)
    demo = verb(
        "demo", "demo:demo", "make a synthetic cohort and run ingest, check, train, register, score and report on it"
    )
    demo.add_argument(
        "--to", type=Path, default=Path("demo"), metavar="DIR", help="where the outputs go (default demo)"
    )


def _add_training_verbs(verb: _AddVerb) -> None:
    train = verb("train", "training:train", "tune, validate and register the model of a study")
    _study(train)
    train.add_argument("--seed", type=int, metavar="N", help="seed of everything random (default: the study's)")
    train.add_argument("--trials", type=int, metavar="N", help="trials a family (default: the study's)")
    train.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: the number of cores)")
    train.add_argument("--report", type=Path, metavar="FILE", help="where the study report goes, beside MLflow's copy")
    _overwrite(train)
    _json(train)
    evaluate = verb("evaluate", "training:evaluate", "judge a model on a cohort that it has never seen")
    _model(evaluate)
    evaluate.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        nargs="?",
        help="CSV, XLSX, Parquet or JSON with the outcome; without it, the sources and events of --study",
    )
    evaluate.add_argument("--sheet", metavar="S", help="sheet of an XLSX file")
    evaluate.add_argument("--study", type=Path, metavar="STUDY", help="read the data as this study says")
    evaluate.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap")
    _json(evaluate)
    effects = verb(
        "effects", "effects:effects", "compare the treatments of a study: effects, or prognosis with overlap"
    )
    _study(effects)
    effects.add_argument("--out", type=Path, metavar="FILE", help="also write a page (HTML)")
    effects.add_argument("--individual", type=Path, metavar="FILE", help="also write one row a patient (CSV)")
    _overwrite(effects)
    _json(effects)
    interface = verb("ui", "models:ui", "open MLflow on the embedded store")
    interface.add_argument("--port", type=int, default=5000, metavar="N")


def _add_scoring_verbs(verb: _AddVerb) -> None:
    score = verb("score", "scoring:score", "score patients, each with its explanation")
    _model(score)
    score.add_argument("file", type=Path, metavar="FILE", help="CSV, XLSX, Parquet or JSON; - for JSON on stdin")
    score.add_argument("--sheet", metavar="S", help="sheet of an XLSX file")
    score.add_argument(
        "--site", metavar="SITE", help="where the patients are treated, for units and validation by site"
    )
    score.add_argument(
        "--index-time",
        metavar="TIME",
        help="when a FHIR bundle is asked about, as 2024-05-31T08:30; else its latest fact",
    )
    _images(score)
    where = score.add_mutually_exclusive_group()
    where.add_argument("--out", type=Path, metavar="FILE", help="CSV, Parquet or JSON, by its ending")
    where.add_argument("--json", action="store_true", help="one JSON object on stdout")
    _overwrite(score)
    report = verb("report", "scoring:report", "write the board sheet of one patient")
    _model(report)
    report.add_argument("file", type=Path, metavar="FILE", help="CSV, XLSX, Parquet or JSON with the patient")
    report.add_argument("--patient", required=True, metavar="ID")
    report.add_argument("--out", type=Path, required=True, metavar="FILE", help="HTML file")
    report.add_argument("--sheet", metavar="S", help="sheet of an XLSX file")
    report.add_argument("--site", metavar="SITE", help="where the patient is treated")
    _images(report)
    _overwrite(report)
    verify = verb("verify", "scoring:verify", "replay stored example patients on every road and compare the answers")
    _model(verify)
    _json(verify)
    serve = verb("serve", "scoring:serve", "serve a model over REST")
    _model(serve)
    serve.add_argument("--port", type=int, default=8000, metavar="N")
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS")


def _images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="DICOM of the patients, measured as the model measures"
    )


def _deidentify(deidentify: argparse.ArgumentParser) -> None:
    deidentify.add_argument("source", type=Path, metavar="SOURCE", help="folder of DICOM files, with folders in it")
    deidentify.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the copies go")
    deidentify.add_argument(
        "--key", type=Path, required=True, metavar="KEYFILE", help="secret of the project: same key, same pseudonyms"
    )
    deidentify.add_argument("--new-key", action="store_true", help="make the key file (mode 600); keep it safe")
    deidentify.add_argument(
        "--keep-patient-characteristics",
        action="store_true",
        help="keep age, sex, size and weight (SUV needs the weight); option 113108 of the standard",
    )
    deidentify.add_argument("--keep-ages-over-89", action="store_true", help="do not write ages over 89 years as 090Y")
    deidentify.add_argument(
        "--keep-text",
        action="append",
        default=[],
        metavar="KEYWORD",
        help="keep this descriptor too, cleaned, e.g. SeriesDescription (region names are always kept, cleaned)",
    )
    deidentify.add_argument(
        "--allow-burned-in",
        action="store_true",
        help="take images that may have text in their pixels (ultrasound, ...)",
    )
    deidentify.add_argument(
        "--link",
        type=Path,
        metavar="FILE",
        help="write patient, pseudonym and date shift (CSV, mode 600); keep it secret",
    )
    _overwrite(deidentify)
    _json(deidentify)


def _add_image_verbs(images: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = images.add_subparsers(title="verbs", metavar="VERB", required=True)
    text = "fetch series from an archive over DICOMweb; what is there complete is not fetched again"
    fetch = verbs.add_parser("fetch", help=text, description=text, parents=[common])
    fetch.set_defaults(verb_target="theracast.verbs.intake:fetch_images")
    fetch.add_argument("url", metavar="URL", help="root of the DICOMweb service, e.g. http://pacs.example/dicom-web")
    fetch.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where the files go")
    fetch.add_argument(
        "--patient", action="append", default=[], metavar="ID", help="only this patient; may be repeated"
    )
    fetch.add_argument("--study", action="append", default=[], metavar="UID", help="only this study; may be repeated")
    fetch.add_argument(
        "--modality", action="append", default=[], metavar="CT", help="only these series; may be repeated"
    )
    _json(fetch)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        found = verbs.add_parser(name, help=text, description=text, parents=[common])
        found.set_defaults(verb_target=f"theracast.verbs.images:{name}")
        return found

    listing = verb("series", "list the series of a folder of DICOM, their regions, and what keeps them from being read")
    listing.add_argument("folder", type=Path, metavar="FOLDER", help="folder of DICOM files, with folders in it")
    listing.add_argument("--out", type=Path, metavar="FILE", help="also write the manifest as Parquet")
    _overwrite(listing)
    _json(listing)
    extract = verb("extract", "measure images as the study says, and add the measurements to its event store")
    _study(extract)
    extract.add_argument("folder", type=Path, metavar="FOLDER", help="folder of DICOM files, with folders in it")
    extract.add_argument("--to", type=Path, required=True, metavar="STORE", help="event store, made if need be")
    extract.add_argument("--jobs", type=int, metavar="N", help="worker processes (default: the number of cores)")
    _json(extract)
    stability = verb("stability", "measure how stable image features are when regions are drawn a little differently")
    _study(stability)
    stability.add_argument("folder", type=Path, metavar="FOLDER", help="folder of DICOM files, with folders in it")
    stability.add_argument("--images", metavar="NAME", help="kind of image (default: the only one of the study)")
    stability.add_argument("--patients", type=int, default=30, metavar="N", help="at most so many (default 30)")
    stability.add_argument("--seed", type=int, default=7, metavar="N")
    stability.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="JSON; name it as `icc` in the study"
    )
    _overwrite(stability)
    habitats = verb("habitats", "fit habitats on the patients of the development sites, one image each")
    _study(habitats)
    habitats.add_argument("folder", type=Path, metavar="FOLDER", help="folder of DICOM files, with folders in it")
    habitats.add_argument("--images", metavar="NAME", help="kind of image (default: the only one with habitats)")
    habitats.add_argument(
        "--patients",
        type=Path,
        metavar="FILE",
        help="only the development patients in this file, one identifier a line",
    )
    habitats.add_argument("--seed", type=int, default=7, metavar="N")
    habitats.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="JSON; name it as `habitats.fitted` in the study"
    )
    _overwrite(habitats)


def _add_registry_verbs(models: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    verbs = models.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, parents=[common])
        added.set_defaults(verb_target=f"theracast.verbs.models:{name}")
        return added

    listing = verb("list", "models, versions, aliases and the history of moves")
    listing.set_defaults(verb_target="theracast.verbs.models:list_models")
    _json(listing)
    show = verb("show", "one model: what it is, how it performs, what moved it")
    _model(show)
    _json(show)
    alias = verb("alias", "give a version an alias; champion is held to the gates")
    alias.add_argument("name", metavar="NAME")
    alias.add_argument("version", metavar="VERSION", type=int)
    alias.add_argument("alias", metavar="ALIAS", help="champion, challenger or any other")
    alias.add_argument("--override", metavar="REASON", help="move it although gates refuse; recorded")
    alias.add_argument("--gates", type=Path, metavar="FILE", help="gate policy instead of the default one")
    alias.add_argument("--reason", default="", metavar="WHY", help="recorded with the move")
    alias.add_argument("--by", metavar="WHO", help="recorded with the move (default: the user of this machine)")
    _json(alias)
    rollback = verb("rollback", "undo the last move of an alias")
    rollback.add_argument("name", metavar="NAME")
    rollback.add_argument("--alias", default="champion", metavar="ALIAS")
    rollback.add_argument("--reason", default="", metavar="WHY")
    rollback.add_argument("--by", metavar="WHO")
    _json(rollback)


def _study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY", help="study file (YAML)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change a key, e.g. search.trials=10",
    )


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a folder, models:/NAME@ALIAS, models:/NAME/VERSION, or a name")


def _json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _overwrite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
