"""The study report: complete, self-contained, safe, and true to the numbers it was given."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from theracast_features.specs import FeatureSpec
from theracast_training.content import ReportContent, explanation_summary
from theracast_training.evaluation import curves, evaluate_binary
from theracast_training.limits import derived_limits
from theracast_training.report import study_report
from theracast_training.summary import summary_sentences
from theracast_training.wording import (
    calibration_verdict,
    count,
    interval,
    listed,
    number,
    p_value,
    percent,
    percent_interval,
    rival_label,
    sentence,
)

VOID = {"meta", "br", "hr", "img", "link", "input"}


class _Balance(HTMLParser):
    """Collects open elements, ids and the anchors that point to them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.anchors: set[str] = set()
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.anchors.add(str(given["href"]))
        self.scripts += tag == "script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(report_content: ReportContent) -> str:
    return study_report(report_content)


def _parsed(page: str) -> _Balance:
    found = _Balance()
    found.feed(page)
    assert found.open == []
    return found


def _words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_page_is_well_formed_and_its_contents_lead_somewhere(page: str) -> None:
    found = _parsed(page)
    assert {anchor.removeprefix("#") for anchor in found.anchors} <= set(found.ids)
    assert len(found.anchors) >= 12
    assert found.scripts == 0


def test_page_asks_nothing_of_the_network(page: str) -> None:
    assert set(re.findall(r"https?://[^\s\"'<)]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"@import|url\((?!#)|<link|<iframe", page)
    assert len(page) < 700_000


def test_same_content_gives_the_same_page(report_content: ReportContent, page: str) -> None:
    assert study_report(report_content) == page


def test_page_tells_the_numbers_with_their_intervals(report_content: ReportContent, page: str) -> None:
    words = _words(page)
    for site, record in report_content.performance.items():
        assert interval(record, "auc") in words, site
        assert interval(record, "calibration_slope") in words, site
    assert "21 November 2026" in words
    assert "not in the cohort: another treatment" in words
    assert "no index time" not in words
    assert "The site sent no laboratory values" in words
    assert report_content.fingerprint in words
    assert "elasticnet × 0.71" in words


def test_text_from_the_study_cannot_become_markup(report_content: ReportContent) -> None:
    site = '<script>alert("x")</script>'
    changed = replace(
        report_content,
        question="a < b & c",
        external=(site,),
        evaluations={"cv": {}, "external": {site: report_content.evaluations["external"]["Hill"]}},
        curves={site: report_content.curves["Hill"]},
        comparisons=[],
    )
    page = study_report(changed)
    assert _parsed(page).scripts == 0
    assert "a &lt; b &amp; c" in page


def test_smallest_possible_content_still_gives_a_page(report_content: ReportContent) -> None:
    bare = replace(
        report_content,
        external=(),
        cohort=[],
        attrition=[],
        findings=[],
        searches={},
        evaluations={},
        curves={},
        comparisons=[],
        explanation={"n": 0, "features": []},
        catalogue=[],
        scheme=dict(report_content.scheme) | {"outer": 0},
        seconds=None,
    )
    words = _words(study_report(bare))
    assert "The audit found nothing" in words
    assert "has not been judged outside" in words
    assert "Nested cross-validation was left out" in words


def test_site_with_one_outcome_only_is_shown_as_not_estimable(report_content: ReportContent) -> None:
    y, p = np.zeros(20), np.linspace(0.1, 0.5, 20)
    changed = replace(
        report_content,
        external=("Quiet",),
        evaluations={"cv": {}, "external": {"Quiet": evaluate_binary(y, p, bootstrap=100)}},
        curves={"Quiet": curves(y, p, bootstrap=20)},
        comparisons=[],
    )
    words = _words(study_report(changed))
    assert "not estimable" in words
    assert "At Quiet the AUC cannot be estimated: all known outcomes are the same." in words


def test_summary_answers_in_three_sentences(report_content: ReportContent) -> None:
    what, whom, how_well = summary_sentences(report_content)
    assert what == (
        "The model gives the probability of objective response (CR or PR) for one patient from 6 genomic, lab and "
        "clinical features."
    )
    assert whom.startswith("It was developed on 900 decisions")
    assert "at four sites that took no part" in whom
    assert "North later, the largest site" in how_well
    assert "too high at Harbour" in how_well
    assert "cannot be judged at Hill" in how_well


def test_limits_follow_from_the_numbers(report_content: ReportContent) -> None:
    found = "\n".join(derived_limits(replace(report_content, limits=("Scanner changed in 2019.",))))
    assert "Fewer than 100 decisions with the rarer outcome at Lakeside" in found
    assert re.search(r"The AUC is compatible with chance at .*Lakeside.* and Hill", found)
    assert "At Harbour the probabilities are too high" in found
    assert "At Lakeside the probabilities are too extreme" in found
    assert "Ranking is clearly worse than in development" in found
    assert "At no external site is the model shown to rank better than the published score LORIS" in found
    assert "Hill has no values of Albumin" in found
    assert "1 open error" not in found
    assert "2 open warnings" in found
    assert found.endswith("Scanner changed in 2019.")


def test_a_good_model_has_few_limits(report_content: ReportContent) -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1.2, 2, 3000)
    record = evaluate_binary((rng.random(3000) < p).astype(float), p, bootstrap=100)
    good = replace(
        report_content,
        external=("Large",),
        cohort=[{"site": "North", "decisions": 900, "known": 900, "events": 300}],
        evaluations={"cv": record, "external": {"Large": record}},
        comparisons=[],
        findings=[],
    )
    assert derived_limits(good) == []


def test_explanation_summary_holds_no_values_and_no_identifiers() -> None:
    rng = np.random.default_rng(0)
    n = 500
    values = pd.DataFrame(
        {"lab.x": rng.normal(100, 10, n), "clin.group": rng.choice(["a", "b"], n), "lab.y": np.ones(n)}
    )
    values.loc[:49, "lab.x"] = np.nan
    values["clin.group"] = values["clin.group"].astype("str")
    values.loc[:2, "clin.group"] = "rare"
    contributions = pd.DataFrame(
        {
            "lab.x": -0.1 * (values["lab.x"].fillna(100) - 100),
            "clin.group": np.where(values["clin.group"] == "a", 0.5, -0.5),
            "lab.y": np.zeros(n),
        }
    )
    specs = [
        FeatureSpec("lab.x", "lab", "numeric", "X", ("x",), "g/L"),
        FeatureSpec("clin.group", "clinical", "categorical", "Group", ("group",)),
        FeatureSpec("lab.y", "lab", "numeric", "Y", ("y",)),
    ]
    found = explanation_summary(contributions, values, specs, limit=100, seed=1)
    x, group, constant = found["features"]
    assert (found["n"], len(x["phi"]), len(x["scaled"])) == (500, 100, 100)
    assert x["mean_abs"] == pytest.approx(np.abs(contributions["lab.x"]).mean())
    assert x["direction"] < -0.9
    assert all(one is None or 0 <= one <= 1 for one in x["scaled"])
    assert None in x["scaled"]
    assert [level["level"] for level in group["levels"]] == ["a", "b"]
    assert (constant["direction"], constant["mean_abs"]) == (None, 0)
    assert found == explanation_summary(contributions, values, specs, limit=100, seed=1)


def test_wording_of_numbers() -> None:
    assert number(-0.0004) == "0.00"
    assert number(-0.25) == "−0.25"
    assert number(0.25, signed=True) == "+0.25"
    assert number(None) == "–"
    assert interval({"auc": 0.7, "auc_low": None, "auc_high": None}, "auc") == "0.70"
    assert interval({"auc": None}, "auc") == "not estimable"
    assert percent_interval({"npv": 0.625, "npv_low": 0.55, "npv_high": 0.68}, "npv") == "62 % (55 to 68)"
    assert (percent(0.004), percent(0.29), percent(None)) == ("0.4 %", "29 %", "–")
    assert (p_value(0.0004), p_value(0.041), p_value(0.66)) == ("< 0.001", "0.041", "0.66")
    assert sentence("least loss: stack") == "Least loss: stack."
    assert count(12345) == "12\u202f345"
    assert (listed([]), listed(["a"]), listed(["a", "b", "c"])) == ("", "a", "a, b and c")
    assert (rival_label("loris"), rival_label("patient_reported")) == ("LORIS", "patient reported")


@pytest.mark.parametrize(
    ("intercept", "slope", "verdict"),
    [
        ((-0.1, 0.1), (0.8, 1.2), "agrees"),
        ((-0.5, -0.1), (0.8, 1.2), "too high"),
        ((0.1, 0.5), (0.3, 0.9), "too low and too extreme"),
        ((-0.1, 0.1), (1.1, 1.9), "too cautious"),
        ((-1.0, 1.0), (-0.5, 2.5), "too few to judge"),
        ((None, None), (None, None), "too few to judge"),
    ],
)
def test_verdict_on_calibration(
    intercept: tuple[float | None, float | None], slope: tuple[float | None, float | None], verdict: str
) -> None:
    record = {
        "calibration_intercept_low": intercept[0],
        "calibration_intercept_high": intercept[1],
        "calibration_slope_low": slope[0],
        "calibration_slope_high": slope[1],
    }
    assert calibration_verdict(record) == verdict


def test_backticks_of_an_audit_message_become_code(report_content: ReportContent) -> None:
    finding = dict(report_content.findings[1]) | {"remedy": "List it under `missing`, not <b>`odd", "accepted": None}
    page = study_report(replace(report_content, findings=[finding]))
    assert "List it under <code>missing</code>, not &lt;b&gt;" in page


def test_findings_of_one_check_stand_together(report_content: ReportContent) -> None:
    base = {"check": "absent-column", "severity": "warning", "why": "The model goes without.", "accepted": None}
    findings = [
        base | {"site": site, "column": column, "message": f"Empty at {site}.", "remedy": f"Leave out {column}."}
        for site in ("Harbour", "Hill")
        for column in ("msi", "hed")
    ]
    words = _words(study_report(replace(report_content, findings=findings)))
    assert words.count("The model goes without.") == 1
    assert "Harbour: msi, hed Empty at Harbour." in words
    assert "For example: Leave out msi." in words
