"""All builders over events from the study's sections: the same cells from a store and from a request, and their lineage."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from theracast_data.cohort import Cohort
from theracast_data.errors import StudyError
from theracast_data.events.access import KEY, CohortEvents, given_events
from theracast_data.events.concepts import Concept
from theracast_data.events.schema import EVENT_SCHEMA, empty_events
from theracast_data.events.section import EventSection
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.sources import Inputs, TableSource
from theracast_data.table import cohort_from_frame, read_cohort
from theracast_features.build import build_features, event_builders
from theracast_features.events.aggregates import AggregateBuilder
from theracast_features.lineage import feature_lineage
from theracast_features.section import FeatureSection

INDEX = pd.Timestamp("2024-06-01T12:00")
CONCEPTS = {
    "psa": Concept(codes=("LOINC//2857-1",), unit="ng/mL", assume_unit="ng/mL", label="PSA"),
    "ca125": Concept(codes=("LOINC//83082-3",), unit="[arb'U]/mL", assume_unit="[arb'U]/mL", label="CA-125"),
    "chemotherapy": Concept(codes=("RxNorm//40048", "RxNorm//56946"), modality="treatment"),
    "diameters": Concept(codes=("RECIST//SLD",), unit="mm", assume_unit="mm", modality="imaging"),
    "kras": Concept(codes=("HGNC//KRAS",), modality="genomic"),
}


def log_normal(median: float, sd_log: float) -> dict[str, float]:
    return {"median": median, "sd_log": sd_log}


POPULATION = {
    "source": "invented for tests",
    "kelim": log_normal(0.06, 0.5),
    "kprod": log_normal(10.0, 1.0),
    "beta": log_normal(0.005, 0.3),
    "rate": log_normal(0.05, 0.3),
    "a50": log_normal(0.3, 0.3),
    "start": log_normal(300.0, 1.2),
    "residual_sd_log": 0.15,
}
SECTIONS: dict[str, Any] = {
    "events": [
        {"concept": "psa", "windows": ["60d", "all"], "aggregates": ["last", "count", "exists", "since_last", "mean"]},
        {"concept": "kras", "windows": ["all"], "aggregates": ["exists", "count"]},
    ],
    "therapy": {
        "drugs": {"carboplatin": ["RxNorm//40048"], "paclitaxel": ["RxNorm//56946"], "nivolumab": ["ATC//L01FF*"]},
        "classes": {"platinum": ["carboplatin"], "checkpoint_inhibitor": ["nivolumab"]},
        "responses": {"PR": ["RECIST//response=PR"], "PD": ["RECIST//response=PD"]},
        "gap_days": 60,
    },
    "markers": [
        {"concept": "psa", "window_days": 120},
        {
            "concept": "psa",
            "name": "psa_since",
            "kinetics": ["best_change_percent"],
            "start": {"concept": "chemotherapy"},
        },
    ],
    "kelim": {
        "concept": "ca125",
        "chemotherapy": {"concept": "chemotherapy", "pause_days": 90},
        "population": POPULATION,
        "standard": 0.06,
    },
    "growth": [{"concept": "diameters", "start": {"concept": "chemotherapy", "pause_days": 90}}],
    "comorbidity": {"weights": "2011", "exclude": ["cancer", "metastatic"], "diseases": ["diabetes", "renal"]},
    "genes": {
        "name": "blood",
        "genes": ["KRAS", "TP53"],
        "pathways": {"ras": ["KRAS", "NF1"]},
        "panels": {"hotspots": ["KRAS"]},
    },
}


def section_of(*keys: str) -> FeatureSection:
    chosen = {key: SECTIONS[key] for key in keys or SECTIONS}
    return FeatureSection.model_validate(chosen | {"missing_indicators": "none"})


EVERYTHING = section_of()
KINDS: list[tuple[str, float | None, str | None]] = [
    ("LOINC//2857-1", 4.0, None),
    ("LOINC//2857-1", 9.0, None),
    ("LOINC//2857-1", None, "<0.1"),
    ("LOINC//83082-3", 800.0, None),
    ("LOINC//83082-3", 90.0, None),
    ("LOINC//83082-3", 30.0, None),
    ("LOINC//2857-1", 1.0, None),
    ("RxNorm//40048", None, None),
    ("RxNorm//56946", None, None),
    ("ATC//L01FF01", None, None),
    ("RECIST//SLD", 40.0, None),
    ("RECIST//SLD", 55.0, None),
    ("RECIST//response", None, "PR"),
    ("RECIST//response", None, "PD"),
    ("ICD10CM//E11.9", None, None),
    ("ICD10CM//E11.2", None, None),
    ("ICD10CM//N18.3", None, None),
    ("VARIANT//KRAS//missense//driver", 0.3, "NM_1:c.1A>G"),
    ("VARIANT//KRAS//missense", 0.1, "NM_1:c.2A>G"),
    ("VARIANT//TP53//synonymous", None, "NM_2:c.2A>G"),
    ("VARIANT//TP53//nonsense", 0.02, "NM_2:c.3A>G"),
    ("HGNC//KRAS", 0.3, "p.G12D"),
    ("ASSAY//hotspots", 2.0, None),
    ("ASSAY//exome", 2.0, None),
    ("OTHER//code", 1.0, None),
]
Row = tuple[str, int, float | None, int | None]  # patient, kind, days from the index, delay
ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, len(KINDS) - 1),
        st.none() | st.integers(-200, 60).map(float),
        st.none() | st.integers(0, 40),
    ),
    max_size=60,
)


def events_of(rows: list[Row]) -> pa.Table:
    columns: list[list[Any]] = [[] for _ in EVENT_SCHEMA]
    for patient, kind, days, delay in rows:
        code, number, text = KINDS[kind]
        time = None if days is None else INDEX + pd.Timedelta(days=days)
        known = (
            None
            if delay is None
            else (INDEX if time is None else time) + pd.Timedelta(days=delay - 20 * (time is None))
        )
        for column, value in zip(columns, (patient, time, code, number, text, None, known), strict=True):
            column.append(value)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, EVENT_SCHEMA, strict=True)]
    return pa.table(arrays, schema=EVENT_SCHEMA)


# Two decisions of `a`, one each of `b` and `c`, one of a patient without events, one of `d` that was never dated.
ASKED = [("a", 0.0), ("a", -45.0), ("b", 0.0), ("c", 10.0), ("nobody", 0.0), ("d", None)]


def cohort_of(*shards: pa.Table, asked: list[tuple[str, float | None]] = ASKED) -> Cohort:
    moments = [pd.NaT if days is None else INDEX + pd.Timedelta(days=days) for _, days in asked]
    decisions = pd.DataFrame(
        {
            "subject_id": pd.Series([patient for patient, _ in asked], dtype="str"),
            "site": pd.Series(["A"] * len(asked), dtype="str"),
            "index_time": pd.Series(moments, dtype="datetime64[us]"),
            "treatment": pd.Series(["x"] * len(asked), dtype="str"),
            "calendar": np.full(len(asked), np.nan),
            KEY: pd.Series([patient for patient, _ in asked], dtype="str"),
        }
    )
    nothing = pd.DataFrame(index=decisions.index)

    return Cohort(decisions, nothing, nothing, {}, events=CohortEvents(CONCEPTS, Shards(shards)))


@dataclass(frozen=True)
class Shards:
    """Tables as the shards of a store, each with the patients that it holds; counts how often one is read."""

    tables: Sequence[pa.Table]
    read: list[int] = field(default_factory=list)

    @property
    def shard_count(self) -> int:
        return len(self.tables)

    def shards_of(self, subjects: Sequence[str], /) -> np.ndarray[Any, np.dtype[np.int64]]:
        place = {one: n for n, table in enumerate(self.tables) for one in table["subject_id"].to_pylist()}
        return np.array([place.get(subject, 0) for subject in subjects], dtype=np.int64)

    def read_shard(self, shard: int, /) -> pa.Table:
        self.read.append(shard)
        return self.tables[shard]

    def shard_hash(self, shard: int, /) -> str:
        return str(shard)


def cells(*shards: pa.Table, section: FeatureSection = EVERYTHING) -> pd.DataFrame:
    return build_features(cohort_of(*shards), section).frame


@settings(max_examples=12, deadline=None)
@given(ROWS, st.randoms(use_true_random=False), st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_order_and_shards_change_no_cell(rows: list[Row], chance: Any, places: list[int]) -> None:
    """Permuted events; patients in one shard, each in some of three, and shards of patients nobody asks about."""
    expected = cells(events_of(rows))
    mixed = list(rows)
    chance.shuffle(mixed)
    shards = [events_of([row for row in mixed if places["abcd".index(row[0])] == place]) for place in range(3)]
    pd.testing.assert_frame_equal(cells(*shards), expected, check_exact=True)
    pd.testing.assert_frame_equal(cells(*shards[::-1]), expected, check_exact=True)


@settings(max_examples=12, deadline=None)
@given(ROWS, ROWS)
def test_what_comes_or_is_known_later_changes_no_cell(rows: list[Row], others: list[Row]) -> None:
    """Rows dated after the last decision, and rows dated before it that become known after it."""
    later = [(patient, kind, 11 + abs(days or 0), None) for patient, kind, days, _ in others]
    unknown = [(patient, kind, -abs(days or 0), int(abs(days or 0)) + 11) for patient, kind, days, _ in others]
    pd.testing.assert_frame_equal(cells(events_of([*rows, *later, *unknown])), cells(events_of(rows)), check_exact=True)


@settings(max_examples=8, deadline=None)
@given(ROWS)
def test_a_decision_is_the_same_alone_and_among_others(rows: list[Row]) -> None:
    whole = cohort_of(events_of(rows))
    together = build_features(whole, EVERYTHING).frame
    for row in range(len(whole)):
        alone = build_features(whole.take([row]), EVERYTHING).frame
        pd.testing.assert_frame_equal(alone, together.iloc[[row]].reset_index(drop=True), check_exact=True)


def many_rows(seed: int = 3, patients: int = 40) -> tuple[list[Row], list[tuple[str, float | None]]]:
    """Patients with up to sixty events each, the last of them with none."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(patients - 1):
        for _ in range(int(rng.integers(10, 60))):
            days = None if rng.random() < 0.1 else float(rng.integers(-200, 60)) + float(rng.integers(0, 24)) / 24
            delay = None if rng.random() < 0.5 else int(rng.integers(0, 30))
            rows.append((f"P{number}", int(rng.integers(len(KINDS))), days, delay))
    return rows, [(f"P{number}", float(rng.integers(-20, 20))) for number in range(patients)]


@pytest.fixture(scope="module")
def stored_and_given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Cohort]:
    """The same patients as training reads them from a store, and as a request brings them, as JSON."""
    folder = tmp_path_factory.mktemp("cohort")
    rows, asked = many_rows()
    events = events_of(rows)
    store = EventStore.create(folder / "store", shards=4)
    half = len(events) // 2
    store.append(SourceRecord(name="first", kind="test"), [events.slice(0, half)])
    store.append(SourceRecord(name="second", kind="test"), [events.slice(half)])
    moments = [(INDEX + pd.Timedelta(days=days or 0)).isoformat() for _, days in asked]
    patients = pd.DataFrame({"patient": [patient for patient, _ in asked], "decided": moments})
    patients.to_csv(folder / "patients.csv", index=False)
    source = TableSource(path="patients.csv", subject="patient", index_time="decided")
    inputs = Inputs(sources=(source,), events=EventSection(store="store", concepts=CONCEPTS))
    frame = events.to_pandas()
    wire = frame.assign(**{name: frame[name].map(_iso) for name in ("time", "available_time")})
    listed = {
        patient: json.dumps(own.drop(columns="subject_id").astype(object).where(own.notna(), None).to_dict("records"))
        for patient, own in wire.astype(object).groupby("subject_id")
    }
    asked_about = patients.assign(events=[listed.get(patient) for patient in patients["patient"]])
    return read_cohort(inputs, [], base=folder), cohort_from_frame(asked_about, inputs)


def _iso(moment: Any) -> str | None:
    return None if pd.isna(moment) else str(moment.isoformat())


@pytest.mark.parametrize("key", list(SECTIONS))
def test_a_request_gives_the_cells_of_the_store(key: str, stored_and_given: tuple[Cohort, Cohort]) -> None:
    """Each builder alone; and there is something to compare."""
    stored, asked = stored_and_given
    section = section_of(key)
    expected = build_features(stored, section)
    found = build_features(asked, section)
    pd.testing.assert_frame_equal(found.frame, expected.frame, check_exact=True)
    assert found.catalogue == expected.catalogue
    known = expected.frame.notna().sum()
    assert (known > 0).all(), known[known == 0]
    assert expected.frame.nunique().max() >= 3


def test_all_builders_read_each_shard_once_and_stand_side_by_side(stored_and_given: tuple[Cohort, Cohort]) -> None:
    """One pass; the columns are those of the builders alone, in the order of the section; all names are told apart."""
    stored, _ = stored_and_given
    assert stored.events is not None
    counted = Shards(list(stored.events.shards()))
    table = build_features(replace(stored, events=replace(stored.events, source=counted)), EVERYTHING)
    assert counted.read == [0, 1, 2, 3]
    alone = [build_features(stored, section_of(key)).frame for key in SECTIONS]
    pd.testing.assert_frame_equal(table.frame, pd.concat(alone, axis=1), check_exact=True)
    described = {spec.name: spec for spec in table.catalogue}
    assert described["treat.therapy.platinum.before"].kind == "boolean"
    assert described["lab.psa.doubling_days"].unit == "d"
    assert described["image.diameters.tgr_percent_per_month"].unit == "%/mo"
    assert described["gen.blood.tmb"].unit == "{mutations}/Mb"
    assert "Quan" in str(described["clin.charlson.score"].source)
    assert str(described["lab.ca125.kelim"].source).endswith("invented for tests")
    assert all(spec.label and spec.columns for spec in table.catalogue)
    assert (table.frame.dtypes == np.float64).all()


def test_without_any_event_each_builder_says_what_it_knows() -> None:
    """Nothing on record: no lines and no values; but no diagnosis is not health, and no test no finding."""
    empty = cells(empty_events()).iloc[4]
    assert (empty["treat.therapy.prior_lines"], empty["lab.psa.points"], empty["image.diameters.points"]) == (0, 0, 0)
    assert (
        empty[["clin.charlson.score", "gen.blood.tmb", "lab.ca125.kelim", "treat.therapy.best_response"]].isna().all()
    )


def test_a_hand_counted_patient() -> None:
    """Two lines of therapy; diabetes with complications counts 1 and renal disease 1."""
    told: list[tuple[str, float | None, str | None, float | None]] = [
        ("RxNorm//40048", None, None, -190.0),
        ("RECIST//response", None, "PR", -150.0),
        ("ATC//L01FF01", None, None, -30.0),
        ("ICD10CM//E11.2", None, None, -20.0),
        ("ICD10CM//N18.3", None, None, -20.0),
        ("ASSAY//hotspots", 2.0, None, None),
        ("VARIANT//KRAS//missense//driver", 0.3, "NM_1:c.1A>G", None),
        ("RECIST//SLD", 40.0, None, -100.0),
        ("RECIST//SLD", 55.0, None, -10.0),
    ]
    rows: list[Row] = [("b", KINDS.index((code, number, text)), days, None) for code, number, text, days in told]
    row = cells(events_of(rows)).iloc[2]
    assert row["treat.therapy.prior_lines"] == 2
    assert row["treat.therapy.days_since_last"] == 30
    assert (row["treat.therapy.platinum.before"], row["treat.therapy.platinum.last_line"]) == (1, 0)
    assert (row["treat.therapy.best_response"], np.isnan(row["treat.therapy.best_response.last_line"])) == (3, True)
    assert (row["clin.charlson.score"], row["clin.charlson.diabetes"], row["clin.charlson.renal"]) == (2, 0, 1)
    assert (row["gen.blood.KRAS.mutated"], row["gen.blood.KRAS.max_af"]) == (1, 0.3)
    assert np.isnan(row["gen.blood.TP53.mutated"]), "the panel of the hotspot test does not cover it"
    assert row["gen.blood.ras.mutated"] == 1
    assert row["image.diameters.progressed"] == 1
    assert row["image.diameters.days_to_progression"] == 90


# What a lineage must show is counted by the features themselves.
@settings(max_examples=12, deadline=None)
@given(ROWS)
def test_explain_shows_the_rows_that_the_aggregates_counted(rows: list[Row]) -> None:
    """Also of facts without a time (`kras`), of text without a number, and of what became known late."""
    events = events_of(rows)
    cohort = cohort_of(events)
    table = build_features(cohort, section_of("events")).frame
    [builder] = event_builders(section_of("events"), given_events(events, CONCEPTS))
    assert isinstance(builder, AggregateBuilder)
    asked = cohort.decisions[["subject_id", "index_time"]]
    for concept, window in (("lab.psa", "60d"), ("lab.psa", "all"), ("gen.kras", "all")):
        seen = builder.rows(f"{concept}.count.{window}", events, asked)
        shown = seen.groupby("decision").size().reindex(range(len(cohort)), fill_value=0)
        assert shown.tolist() == table[f"{concept}.count.{window}"].tolist()
        on_record = builder.rows(f"{concept}.exists.{window}", events, asked)["decision"].unique()
        assert set(on_record) == set(np.flatnonzero(table[f"{concept}.exists.{window}"]))
    means = builder.rows("lab.psa.mean.60d", events, asked).groupby("decision")["value"].mean()
    expected = table["lab.psa.mean.60d"].dropna()
    pd.testing.assert_series_equal(
        means, expected, check_names=False, check_index_type=False, rtol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize("seed", [11, 12])
def test_explain_shows_rows_from_which_the_same_value_comes(seed: int) -> None:
    """Of every feature of every builder: built from the shown rows alone, the cell is the same; none is from the future."""
    rows = [("abcd"[int(patient[1:])], *rest) for patient, *rest in many_rows(seed, patients=5)[0]]
    events = events_of(rows)
    numbered = events.append_column("row", pa.array(range(len(events))))
    cohort = cohort_of(events)
    section = section_of("therapy", "markers", "kelim", "growth", "comorbidity")
    asked = cohort.decisions[["subject_id", "index_time"]]
    for builder in event_builders(section, given_events(events, CONCEPTS)):
        table = builder.build(events, asked)
        starts = events.filter(pa.array([code.startswith("RxNorm") for code in events["code"].to_pylist()], pa.bool_()))
        for spec in builder.catalogue:
            seen = builder.rows(spec.name, numbered, asked)
            assert (seen["time"].isna() | (seen["time"] <= seen["index_time"])).all()
            for decision in range(len(asked)):
                used = sorted(set(seen.loc[seen["decision"] == decision, "row"]))
                # The start of treatment is told in words; its doses are not rows of a marker.
                shown = pa.concat_tables([events.take(pa.array(used, pa.int64())), starts]).combine_chunks()
                own = builder.build(_distinct(shown), asked.iloc[[decision]].reset_index(drop=True))[spec.name].iloc[0]
                assert own == pytest.approx(table[spec.name].iloc[decision], nan_ok=True), spec.name


def _distinct(events: pa.Table) -> pa.Table:
    return pa.Table.from_pylist(
        [dict(one) for one in {tuple(row.items()): 1 for row in events.to_pylist()}], EVENT_SCHEMA
    )


def test_lineage_of_every_feature_tells_how_and_from_what() -> None:
    """By the patient's identifier, through the function behind `theracast features explain`."""
    rows, asked = many_rows()
    cohort = cohort_of(events_of(rows), asked=asked)
    inputs = Inputs(
        sources=(TableSource(path="patients.csv", subject="patient", index_time="decided"),),
        events=EventSection(store="store", concepts=CONCEPTS),
    )
    table = build_features(cohort, EVERYTHING)
    for spec in table.catalogue:
        told = feature_lineage(spec.name, cohort, EVERYTHING, inputs, patient="P7")
        assert told.steps
        assert len(told.rows) == 1
        assert told.spec == spec
        [(title, frame)] = told.rows
        assert title.endswith(f": {table.frame[spec.name].iloc[7]}")
        if table.frame[spec.name].notna().iloc[7] and spec.kind == "numeric" and table.frame[spec.name].iloc[7] > 0:
            assert len(frame), spec.name
        assert spec.label in told.to_text()
    assert "RxNorm//40048" in feature_lineage("treat.therapy.prior_lines", cohort, EVERYTHING, inputs).to_text()


def test_lineage_of_a_derived_feature_goes_on_to_the_events() -> None:
    section = FeatureSection.model_validate(
        {
            "events": [{"concept": "psa", "windows": ["all"], "aggregates": ["last", "first"]}],
            "derived": [
                {"kind": "ratio", "name": "psa_ratio", "numerator": "psa.last.all", "denominator": "psa.first.all"}
            ],
            "missing_indicators": "none",
        }
    )
    cohort = cohort_of(events_of([("b", 0, -90.0, None), ("b", 1, -5.0, None), ("b", 1, 15.0, None)]))
    inputs = Inputs(
        sources=(TableSource(path="patients.csv", subject="patient", index_time="decided"),),
        events=EventSection(store="store", concepts=CONCEPTS),
    )
    told = feature_lineage("lab.psa_ratio", cohort, section, inputs, patient="b")
    assert [len(frame) for title, frame in told.rows if title.startswith("lab.psa.")] == [2, 2]
    assert "computed from psa.last.all, psa.first.all" in told.to_text()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"markers": [{"concept": "pso"}]}, "features.markers: 'pso'; did you mean 'psa'"),
        ({"growth": [{"concept": "psa"}]}, "unit mm"),
        ({"growth": [{"concept": "diameters", "start": {"concept": "chemo"}}]}, "features.growth.start: 'chemo'"),
        ({"markers": [{"concept": "psa"}, {"concept": "psa"}]}, "would be made twice"),
    ],
)
def test_refusals_of_the_study(section: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        cells(empty_events(), section=FeatureSection.model_validate(section | {"missing_indicators": "none"}))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"comorbidity": {"exclude": ["cancr"]}}, "did you mean 'cancer'"),
        ({"genes": {"genes": ["ras"], "pathways": {"ras": ["KRAS"]}}}, "gene and a pathway"),
        ({"kelim": {"concept": "ca125", "chemotherapy": {"concept": "chemotherapy"}}}, "population"),
        ({"markers": [{"concept": "psa", "kinetics": ["slope"]}]}, "slope_per_day"),
        ({"therapy": {"drugs": {"a": ["A//1"]}, "gap": 3}}, "gap"),
    ],
)
def test_refusals_of_a_section(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FeatureSection.model_validate(section)
