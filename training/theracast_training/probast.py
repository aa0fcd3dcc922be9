"""PROBAST+AI: the signalling questions on quality and risk of bias, with what the run can bring to each.

Two parts, development (16 questions, quality) and evaluation (18, risk of bias), over four domains: participants and data
sources (3 questions), predictors (4), outcome (4), analysis (5 in development, 7 in evaluation): Moons et al., BMJ
2025;388:e082505. Counts and domains are those of the article's abstract; the order of the questions follows a public
transcription of the tool, and the numbers here (domain and place, `D4.2`, `E4.6`) are ours: they could not be compared with
the article itself. What is asked is said in words of our own.

A verdict stands only where the run itself is evidence: `yes`, `no`, `partly`, `does not apply`. Everything else is `to be
judged` (with what the study says) or not answered. Applicability and the ratings of domains are for people to give.
"""

from __future__ import annotations

from collections.abc import Iterator

from theracast_training.checklist import JUDGE, OPEN, Item, from_statement
from theracast_training.content import NESTED, ReportContent
from theracast_training.run_words import (
    evaluation_sizes,
    measures_words,
    missing_words,
    modelling_words,
    outcome_words,
    size_words,
    sources_words,
)
from theracast_training.wording import listed, plural

PARTS = {"D": "Development", "E": "Evaluation"}
LEAST_EVENTS = 100
"""Events, and non-events, that an evaluation needs: Vergouwe et al., J Clin Epidemiol 2005;58:475-483."""

Told = tuple[str, str]


def probast_items(content: ReportContent) -> list[Item]:
    """Return the signalling questions of both parts in order."""
    found: list[Item] = []
    for side in PARTS:
        found += _numbered(side, 1, "Participants and data sources", _participants(content, side))
        found += _numbered(side, 2, "Predictors", _predictors(content))
        found += _numbered(side, 3, "Outcome", _outcome(content))
        analysis = _development(content) if side == "D" else _evaluation(content)
        found += _numbered(side, 4, "Analysis", analysis)
    return found


Question = tuple[str, str, Told]


def _numbered(side: str, domain: int, name: str, questions: Iterator[Question]) -> list[Item]:
    return [
        Item(f"{side}{domain}.{place}", f"{PARTS[side]}: {name}", side, topic, asks, *told)
        for place, (topic, asks, told) in enumerate(questions, start=1)
    ]


def _judge(content: ReportContent, key: str, *, beside: str = "", where: str = "report, Patients") -> Told:
    """Return what the study says of something, or what the run can bring, for people to judge."""
    told, source = from_statement(content, key)
    if source:
        return f"{JUDGE}: {told}{f' {beside}' if beside else ''}", source
    return (f"{JUDGE}: {beside} Say more in statement.{key} of the study file.", where) if beside else (told, "")


def _participants(content: ReportContent, side: str) -> Iterator[Question]:
    yield (
        "Data sources",
        "Are the sources of the data fit for it",
        _judge(content, "design", beside=sources_words(content)),
    )
    yield "Design", "Does the design of the study fit the question", _judge(content, "design")
    shown = (content.external if side == "E" else ()) or content.development
    dropped = sum(int(row["dropped"]) for row in content.attrition if row["site"] in shown)
    yield (
        "Selection",
        "Do those included stand for the patients meant",
        _judge(
            content,
            "eligibility",
            beside=f"{plural(dropped, 'row')} left out while reading at {listed(list(shown)) or 'no site'}.",
        ),
    )


def _predictors(content: ReportContent) -> Iterator[Question]:
    yield (
        "Same definition",
        "Are predictors defined and measured alike for all",
        _judge(content, "predictor_assessment"),
    )
    yield (
        "Same preparation",
        "Is the preparation of predictors alike for all",
        ("yes: one code prepares every decision, in training, scoring and serving.", "model, inputs"),
    )
    yield "Blinding", "Were predictors measured without the outcome", _judge(content, "predictors_blinded")
    suspects = ((content.statistics.get("leaks") or {}).get("screen") or {}).get("suspects") or []
    seen = "dated facts are seen up to the index time only; that undated columns were known by then is the study file's word"
    if suspects:
        told = f"{JUDGE}: {seen}; {listed([str(one['label']) for one in suspects])} tells too much by itself."
    elif content.statistics.get("leaks"):
        told = f"partly: {seen}; no feature tells too much by itself."
    else:
        told = f"{JUDGE}: {seen}."
    yield (
        "Known in time",
        "Are the predictors known when the model is to be used",
        (told, "report, How far the figures hold"),
    )


def _outcome(content: ReportContent) -> Iterator[Question]:
    yield (
        "Definition",
        "Is the outcome defined and assessed well",
        _judge(content, "outcome_assessment", beside=outcome_words(content), where="study file, endpoints"),
    )
    yield (
        "Same definition",
        "Is it defined and assessed alike for all",
        (
            "partly: one rule of the study file gives the outcome of every decision; how each site assessed it is not known.",
            "study file, endpoints",
        ),
    )
    yield "Blinding", "Was it assessed without the predictors", _judge(content, "outcome_blinded")
    asked = content.asked
    when = listed(list(asked.horizons.values())) if asked.horizons else ""
    yield (
        "Interval",
        "Is the time between predictors and outcome right",
        (f"{JUDGE}: the probability is told by {when} after the decision.", "study file, endpoints.horizons")
        if when
        else _judge(content, "outcome_assessment"),
    )


def _development(content: ReportContent) -> Iterator[Question]:
    yield "Sample size", "Was the sample large enough for the model", _size(content)
    yield (
        "Handling of predictors",
        "Were numbers and categories handled well",
        (
            "yes: numbers are not cut into groups by the data; categories keep their levels.",
            "study file, sources.columns",
        ),
    )
    yield (
        "Missing and censored",
        "Were missing and censored data handled well",
        (f"partly: {missing_words(content)}", "report, Inputs"),
    )
    yield "Imbalance", "Was the model recalibrated after methods against imbalance", _imbalance()
    yield (
        "Overfitting",
        "Was overfitting dealt with",
        (f"yes: by penalties and limited trees. {modelling_words(content)}", "report, Tuning"),
    )


def _size(content: ReportContent) -> Told:
    found = size_words(content)
    if not found:
        return f"{OPEN}: the run could not ask.", ""
    enough = content.statistics["sample_size"]["achieved"]["enough"]
    return f"{'yes' if enough else 'no'}: {found}", "report, How far the figures hold"


def _imbalance() -> Told:
    return "does not apply: none was used.", "study file, search"


def _evaluation(content: ReportContent) -> Iterator[Question]:
    nested, outside = NESTED in content.performance, [site for site in content.performance if site != NESTED]
    kinds = [
        name
        for name, there in (("nested cross-validation", nested), (f"evaluation at {listed(outside)}", bool(outside)))
        if there
    ]
    yield (
        "Not apparent alone",
        "Does the evaluation go beyond the patients who taught",
        (f"yes: {listed(kinds)}.", "report, Performance")
        if kinds
        else ("no: the model was not judged.", "report, Performance"),
    )
    yield "Sample size", "Was the sample large enough to judge", _evaluation_size(content)
    yield (
        "Missing and censored",
        "Were missing and censored data handled well",
        (f"partly: {missing_words(content)}", "report, Inputs"),
    )
    yield "Imbalance", "Was the model judged on data without correction for imbalance", _imbalance()
    yield "Leakage", "Where data were split, was leakage avoided", _leakage(content)
    yield (
        "All steps repeated",
        "Does resampling repeat every step of the development",
        (
            "yes: preparation, tuning, choice of family and calibration are repeated in each outer fold.",
            "report, Tuning",
        )
        if nested
        else ("does not apply: nested cross-validation was left out.", "study file, validation.scheme.outer"),
    )
    judged = "yes" if content.performance else "no"
    yield (
        "Measures",
        "Are calibration, ranking and benefit judged well",
        (f"{judged}: {measures_words(content)}", "report, Performance and Calibration"),
    )


def _evaluation_size(content: ReportContent) -> Told:
    words = evaluation_sizes(content)
    if not words:
        return f"{JUDGE}: nested cross-validation alone judges, on the development decisions.", "report, Patients"
    few = []
    for site, record in content.performance.items():
        if site == NESTED or record.get("events") is None:
            continue
        if min(int(record["events"]), int(record["n"]) - int(record["events"])) < LEAST_EVENTS:
            few.append(site)
    if few:
        return (
            f"partly: fewer than {LEAST_EVENTS} decisions with the rarer outcome at {listed(few)}. {words}",
            "report, Performance",
        )
    return f"yes: {words}", "report, Performance"


def _leakage(content: ReportContent) -> Told:
    leaks = content.statistics.get("leaks") or {}
    suspects = (leaks.get("screen") or {}).get("suspects") or []
    permuted = leaks.get("permuted")
    found = "splits are by patient and everything is learnt in the training folds"
    if permuted and permuted["leak"]:
        return f"no: {permuted['sentence']}", "report, How far the figures hold"
    if suspects:
        return f"{JUDGE}: {found}; {suspects[0]['sentence']}", "report, How far the figures hold"
    tail = f" {permuted['sentence']}" if permuted else ""
    return f"yes: {found}.{tail}", "report, How far the figures hold"
