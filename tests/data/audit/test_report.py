"""The report says the same as JSON, text and page; acceptances silence exactly what they name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from theracast_data.audit import AuditReport, audit
from theracast_data.audit.page import audit_page
from theracast_data.audit.section import Acceptance
from theracast_data.cohort import AttritionStep, Cohort, ReadingNote
from theracast_data.endpoints import Endpoint

REASON = "East imputed albumin with the published mean; known since the pilot."


@pytest.fixture(scope="module")
def faulty(clean: Callable[[int], Cohort]) -> Cohort:
    cohort = clean(2)
    values = cohort.values.copy()
    east = cohort.decisions["site"] == "East"
    values.loc[east, "albumin"] = 3.8
    values.loc[east, "glucose"] = np.round(values.loc[east, "glucose"] / 18.016, 1)
    note = ReadingNote("other-spelling", "nlr", "South", (), "read from the column N<L>R")
    step = AttritionStep("North", "response <not evaluable>", 12, 280)
    return replace(cohort, values=values, attrition=(step,), notes=(note,))


def audited(cohort: Cohort, endpoints: list[Endpoint], *accept: Acceptance) -> AuditReport:
    return audit(cohort, development=["North", "South"], external=["East"], endpoints=endpoints, accept=accept)


def test_acceptance_moves_its_finding_with_the_reason(faulty: Cohort, endpoints: list[Endpoint]) -> None:
    accept = Acceptance(check="constant-at-site", column="albumin", site="East", reason=REASON)
    report = audited(faulty, endpoints, accept)
    assert [(one.check, one.column, one.accepted) for one in report.accepted] == [
        ("constant-at-site", "albumin", REASON)
    ]
    assert not [one for one in report.findings if one.check == "constant-at-site"]
    assert [one.check for one in report.open_errors] == ["unit-shift"]


def test_acceptance_of_a_check_silences_it_everywhere(faulty: Cohort, endpoints: list[Endpoint]) -> None:
    report = audited(faulty, endpoints, Acceptance(check="unit-shift", reason=REASON))
    assert not report.open_errors


@pytest.mark.parametrize("elsewhere", [{"site": "South"}, {"column": "nlr"}])
def test_acceptance_of_another_place_silences_nothing(
    elsewhere: dict[str, str], faulty: Cohort, endpoints: list[Endpoint]
) -> None:
    report = audited(faulty, endpoints, Acceptance(check="unit-shift", reason=REASON, **elsewhere))
    assert [one.check for one in report.open_errors] == ["unit-shift"]
    unused = [one for one in report.findings if one.check == "unused-acceptance"]
    assert [one.severity for one in unused] == ["note"]
    assert "Remove the entry from `accept`" in unused[0].remedy


def test_json_is_plain_and_complete(faulty: Cohort, endpoints: list[Endpoint]) -> None:
    report = audited(faulty, endpoints, Acceptance(check="constant-at-site", site="East", reason=REASON))
    record = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert {"check", "severity", "site", "column", "message", "why", "remedy"} <= set(record["findings"][0])
    assert record["attrition"] == [{"site": "North", "reason": "response <not evaluable>", "dropped": 12, "left": 280}]
    assert record["missingness"]["pdl1"]["North"] == pytest.approx(0.35, abs=0.1)
    assert record["accepted"][0]["accepted"] == REASON
    assert record["summary"]["error"] == len(report.open_errors)


def test_text_is_plain_and_fits_the_width(faulty: Cohort, endpoints: list[Endpoint]) -> None:
    text = audited(faulty, endpoints, Acceptance(check="constant-at-site", site="East", reason=REASON)).to_text()
    assert max(len(line) for line in text.splitlines()) <= 110
    for part in ("ERRORS (1)", "unit-shift", "glucose at East", "ACCEPTED BY THE STUDY (1)", "12 left out"):
        assert part in text


def test_unit_shift_names_the_key_of_the_study_file(faulty: Cohort, endpoints: list[Endpoint]) -> None:
    finding = audited(faulty, endpoints).open_errors[0]
    assert 'site_units: {East: "mmol/L"}' in finding.remedy
    assert "glucose in mmol/L for mg/dL" in finding.message


def test_page_is_self_contained_and_escaped(faulty: Cohort, endpoints: list[Endpoint]) -> None:
    report = audited(faulty, endpoints, Acceptance(check="constant-at-site", site="East", reason=REASON))
    page = audit_page(report, title="Response <to> treatment")
    assert "Response &lt;to&gt; treatment" in page
    assert "response &lt;not evaluable&gt;" in page
    assert "read from the column N&lt;L&gt;R" in page
    assert REASON in page
    assert "http" not in page
    assert "<script" not in page
    reader = _Tags()
    reader.feed(page)
    assert not reader.open


def test_page_of_a_clean_cohort_says_so(clean: Callable[[int], Cohort], endpoints: list[Endpoint]) -> None:
    assert "No errors and no warnings." in audit_page(audited(clean(1), endpoints), title="Clean")


class _Tags(HTMLParser):
    """Follows which tags are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
