"""What the synthetic CTs hold can be measured: heterogeneity, which adds to the tables, scanners, and the change of a lesion."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.stats import mannwhitneyu, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from theracast_data.events.ingest import ingest, read_spec
from theracast_data.events.store import EventStore
from theracast_data.synthetic import Truth, export, generate, write_images
from theracast_data.synthetic.images import draw_scans
from theracast_data.synthetic.lesions import SCANNERS
from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.imaging.extraction import extract_images
from theracast_features.imaging.measure import measure
from theracast_features.specs import FeatureTable
from theracast_models.combat import Combat
from theracast_training.study import Study, read_study
from theracast_training.study_audit import audit_study

SCALED = ["stat_mean", "stat_mad", "cm_joint_entr_3D_comb"]
"""What moves with the scanner's gain; a correlation does not."""
TEXTURE = ["stat_mad", "cm_joint_entr_3D_comb", "cm_corr_3D_comb"]


@pytest.fixture(scope="module")
def study(repository: Path) -> Study:
    return Study.model_validate(yaml.safe_load((repository / "studies" / "demo.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    return generate(tmp_path_factory.mktemp("truth"), patients=420, seed=3)


@pytest.fixture(scope="module")
def measured(truth: Truth, study: Study) -> pd.DataFrame:
    """What the demo study measures in the scan before the decision, by patient, straight from the drawn voxels."""
    settings = study.features.images["ct"].measures
    rows = {
        scan.study.subject_id: measure(
            scan.values - 1024.0, scan.mask, spacing_mm=SCANNERS[scan.site].spacing_mm, measures=settings
        )
        | {"site": scan.site}
        for scan in draw_scans(truth)
        if scan.timepoint == 0
    }
    return pd.DataFrame.from_dict(rows, orient="index")


@pytest.fixture(scope="module")
def harmonised(measured: pd.DataFrame) -> pd.DataFrame:
    """Intensity and texture after ComBat over the scanners."""
    names = ["stat_mean", *TEXTURE]
    values, batch = measured[names].to_numpy(dtype=np.float64), measured["site"].tolist()
    combat = Combat.learn(values, batch, features=names)
    return pd.DataFrame(combat.apply(values, batch), columns=names, index=measured.index)


def test_heterogeneity_can_be_measured(truth: Truth, measured: pd.DataFrame) -> None:
    """By texture at every scanner, not by size, and not perfectly."""
    latent = truth.latent["heterogeneity"].set_axis(truth.decisions["subject_id"])
    for _, own in measured.groupby("site"):
        for name in TEXTURE:
            assert 0.6 < spearmanr(own[name], latent[own.index]).statistic < 0.95
        assert abs(spearmanr(own["volume_ml"], latent[own.index]).statistic) < 0.25


def test_scanners_differ_until_they_are_harmonised(measured: pd.DataFrame, harmonised: pd.DataFrame) -> None:
    """Intensity and texture tell the two hospitals of the development apart before ComBat, and not after it."""
    north, harbour = (measured["site"] == name for name in ("Northfield", "Harbour"))
    before = [mannwhitneyu(measured[name][north], measured[name][harbour]).pvalue for name in SCALED]
    after = [mannwhitneyu(harmonised[name][north], harmonised[name][harbour]).pvalue for name in SCALED]
    assert max(before) < 1e-3
    assert min(after) > 0.05


def test_harmonised_texture_is_nearer_to_the_latent(
    truth: Truth, measured: pd.DataFrame, harmonised: pd.DataFrame
) -> None:
    latent = truth.latent["heterogeneity"].set_axis(truth.decisions["subject_id"])[measured.index]
    for name in ("stat_mad", "cm_joint_entr_3D_comb"):
        assert spearmanr(harmonised[name], latent).statistic > spearmanr(measured[name], latent).statistic


def test_images_add_to_all_that_the_tables_know(truth: Truth, harmonised: pd.DataFrame) -> None:
    """Even against the true log-odds of the tables; texture dealt out to other patients adds nothing."""
    index = truth.decisions["subject_id"]
    response = truth.outcomes["response"].set_axis(index)[harmonised.index]
    known = response.notna()
    [driver] = truth.image_drivers
    tables = pd.Series(truth.log_odds - driver.coefficient * driver.standardised(truth.latent), index)
    rest = tables[harmonised.index][known].to_numpy()[:, None]
    texture = harmonised.loc[known, TEXTURE].to_numpy()
    texture = (texture - texture.mean(axis=0)) / texture.std(axis=0)
    shuffled = np.random.default_rng(0).permutation(texture)

    def auc(*parts: np.ndarray) -> float:
        design = np.hstack(parts)
        probability = cross_val_predict(
            LogisticRegression(C=0.3), design, response[known], cv=10, method="predict_proba"
        )
        return float(roc_auc_score(response[known], probability[:, 1]))

    assert auc(rest, texture) > auc(rest) + 0.02
    assert auc(rest, shuffled) < auc(rest) + 0.005
    assert auc(texture) > 0.58


@pytest.fixture(scope="module")
def road(
    truth: Truth, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, pd.DataFrame, dict[str, Any]]:
    """A folder with the store of the export and of the images of 42 patients, the scans, and the extraction's report."""
    folder = tmp_path_factory.mktemp("road")
    export(truth, folder / "export")
    scans = write_images(truth, folder / "images", patients=14)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(folder))
        spec = read_spec(repository / "studies" / "ingest" / "demo.yaml")
        store = EventStore.create(folder / "store", shards=2)
        now = datetime(2026, 1, 1, tzinfo=UTC)
        ingest(spec, store=store, base=folder, now=now)
        images = read_study(repository / "studies" / "demo.yaml").features.images
        report = extract_images(
            folder / "images", {name: one.measures for name, one in images.items()}, store=store, now=now
        )
    return folder, scans, json.loads(json.dumps(report.to_json()))


@pytest.mark.parametrize("name", ["demo.yaml", "demo_week10.yaml"])
def test_the_studies_pass_the_audit(
    road: tuple[Path, pd.DataFrame, dict[str, Any]], repository: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No feature of an image sees ahead; at a landmark a patient whose later events are cut off is still asked."""
    monkeypatch.setenv("THERACAST_DATA", str(road[0]))
    study = read_study(repository / "studies" / name)
    report = audit_study(study, read_cohort(study.inputs, study.endpoints, base=repository / "studies"))
    assert [finding for finding in report.findings if finding.severity == "error"] == []


def table_of(name: str, folder: Path, repository: Path) -> FeatureTable:
    """The feature table of a study of the repository over the store of the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(folder))
        study = read_study(repository / "studies" / name)
        cohort = read_cohort(study.inputs, study.endpoints, base=repository / "studies")
        return build_features(cohort, resolve_section(study.features, cohort.at(study.validation.development)))


def test_a_small_cohort_becomes_a_feature_table(
    road: tuple[Path, pd.DataFrame, dict[str, Any]], measured: pd.DataFrame, repository: Path
) -> None:
    """From DICOM over events to features: what is measured in the files is what is measured in the drawn voxels."""
    folder, scans, report = road
    assert report["measured"] == len(scans)
    assert (report["faults"], report["notes"]) == ([], {})
    table = table_of("demo.yaml", folder, repository)
    found = table.frame.set_axis(table.decisions["subject_id"])
    with_images = scans["subject_id"].unique()
    assert 36 <= len(with_images) <= 42
    for name in ("longest_axial_mm", *TEXTURE):
        column = found[f"image.ct.{name}.last.90d"]
        np.testing.assert_allclose(column[with_images], measured.loc[with_images, name], rtol=1e-9)
        assert column.drop(with_images).isna().all()
    batches = {spec.batch for spec in table.catalogue if spec.name.startswith("image.ct.cm_")}
    assert len(batches) == 1
    scanner = table.decisions.set_index("subject_id")[batches.pop()].dropna()
    assert set(scanner.index) == set(with_images)
    assert scanner.nunique() == len(SCANNERS)


def test_at_week_ten_the_change_between_the_scans_is_seen(
    road: tuple[Path, pd.DataFrame, dict[str, Any]], repository: Path
) -> None:
    """For those still at risk: the drawn volumes' relative change; missing where there was no second scan by then."""
    folder, scans, _ = road
    table = table_of("demo_week10.yaml", folder, repository)
    found = table.frame.set_axis(table.decisions["subject_id"])
    visits = scans.pivot(index="subject_id", columns="timepoint", values=["volume_ml", "taken"])
    asked = table.decisions.set_index("subject_id")["index_time"].reindex(visits.index)
    seen = visits[asked.notna() & (visits["taken"][1] <= asked)]
    assert len(seen) > 20
    expected = (seen["volume_ml"][1] / seen["volume_ml"][0]).astype(float) - 1
    np.testing.assert_allclose(found["image.ct.volume_ml.relative_change.90d"][seen.index], expected, rtol=1e-9)
    alone = found.index.intersection(visits.index.difference(seen.index))
    assert found["image.ct.volume_ml.relative_change.90d"][alone].isna().all()
