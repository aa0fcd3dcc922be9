"""The answers of a run to the items of TRIPOD+AI, by the number of the item."""

from __future__ import annotations

from theracast_training.checklist import OPEN, from_statement, with_statement
from theracast_training.content import ReportContent
from theracast_training.limits import derived_limits
from theracast_training.run_words import (
    evaluation_sizes,
    heterogeneity_words,
    measures_words,
    missing_words,
    modelling_words,
    outcome_words,
    performance_words,
    size_words,
    sources_words,
)
from theracast_training.statistics_tables import group_names
from theracast_training.summary import summary_sentences
from theracast_training.wording import count, listed, percent, plural

Told = tuple[str, str]
"""An answer, and where it stands in the run."""


def tripod_answers(content: ReportContent) -> dict[str, Told]:
    """Return number to answer and source, for every item."""
    return {
        **_front(content),
        **_people(content),
        **_inputs(content),
        **_methods(content),
        **_open(content),
        **_results(content),
        **_discussion(content),
    }


def _front(content: ReportContent) -> dict[str, Told]:
    both = " and judged elsewhere" if content.external else ""
    return {
        "1": (
            f"{content.name}: a prediction model, developed{both}; predicts {content.asked.label}. {content.question}",
            "study file, study and question",
        ),
        "2": (" ".join(summary_sentences(content)), "report, Summary"),
        "3a": _context(content),
        "3b": with_statement(content, "intended_use", f"Asked: {content.question}", "study file, question"),
        "3c": from_statement(content, "inequalities"),
        "4": (
            f"Development{' and external evaluation' if content.external else ' with internal validation'} of a model of "
            f"{content.asked.label}.",
            "study file, validation",
        ),
    }


def _context(content: ReportContent) -> Told:
    published = list(content.study.get("baselines") or [])
    if not published:
        return from_statement(content, "context")
    found = f"Compared on the same patients with the published {listed([one.upper() for one in published])}."
    return with_statement(content, "context", found, "study file, baselines")


def _people(content: ReportContent) -> dict[str, Told]:
    years = content.study.get("calendar")
    if years:
        dates = with_statement(
            content, "accrual", f"Development decisions date from {years[0]} to {years[1]}.", "study file, calendar"
        )
    else:
        dates = from_statement(content, "accrual")
    sites = [*content.development, *content.external]
    treatments = list(content.study.get("treatments") or [])
    told = (
        with_statement(content, "treatments", f"Treatments asked about: {listed(treatments)}.", "data, treatment")
        if treatments
        else from_statement(content, "treatments")
    )
    accepted = sum(bool(one.get("accepted")) for one in content.findings)
    left = len(content.findings) - accepted
    return {
        "5a": with_statement(content, "design", sources_words(content), "report, Patients"),
        "5b": dates,
        "6a": with_statement(
            content, "setting", f"{plural(len(sites), 'site')} in the data: {listed(sites)}.", "study file, validation"
        ),
        "6b": _eligibility(content),
        "6c": told,
        "7": (
            f"Units are converted and cells typed by the study file; the audit has {plural(left, 'open finding')} and "
            f"{plural(accepted, 'accepted one')}, by site. Whether groups differ in this is not looked at.",
            "report, Audit of the data",
        ),
        "8a": with_statement(content, "outcome_assessment", outcome_words(content), "study file, endpoints"),
        "8b": from_statement(content, "outcome_assessment"),
        "8c": from_statement(content, "outcome_blinded"),
    }


def _eligibility(content: ReportContent) -> Told:
    include = content.study.get("include") or {}
    dropped = sum(int(row["dropped"]) for row in content.attrition)
    found = f"{plural(dropped, 'row')} left out while reading"
    if include:
        found += f", by {listed([f'{key} in {rule}' for key, rule in include.items()])}"
    return with_statement(content, "eligibility", f"{found}.", "report, Patients; study file, sources.include")


def _inputs(content: ReportContent) -> dict[str, Told]:
    modalities = list(dict.fromkeys(str(spec["modality"]).replace("_", " ") for spec in content.features))
    features = f"{plural(len(content.features), 'feature')} ({listed(modalities)})"
    sizes = " ".join(one for one in (size_words(content), evaluation_sizes(content)) if one)
    return {
        "9a": with_statement(
            content,
            "predictor_choice",
            f"{features}, named in the study file; none was selected by the outcome before modelling.",
            "study file, sources",
        ),
        "9b": with_statement(
            content,
            "predictors_blinded",
            f"{features} with unit and code; only what was known at the index time is seen.",
            "report, Inputs",
        ),
        "9c": from_statement(content, "predictor_assessment"),
        "10": (f"The data there are were used. {sizes}", "report, How far the figures hold")
        if sizes
        else (f"{OPEN}: the run did not ask.", ""),
        "11": (missing_words(content), "report, Inputs and Methods"),
    }


def _methods(content: ReportContent) -> dict[str, Told]:
    study = content.study
    transforms, harmonised = list(study.get("transforms") or []), list(study.get("harmonised") or [])
    handled = [
        f"transformed: {listed(transforms)}" if transforms else "no transformation is declared",
        f"{study['caps']} capped" if study.get("caps") else "",
        f"harmonised by {listed(harmonised)}" if harmonised else "",
    ]
    different = heterogeneity_words(content)
    groups = list(study.get("fairness") or [])
    return {
        "12a": (
            f"{listed(list(content.development)) or 'One site'} develops; {listed(list(content.external)) or 'no site'} judges and "
            f"took no part in any choice. Splits keep a patient's decisions together.",
            "study file, validation",
        ),
        "12b": (
            f"Numbers stay numbers ({', '.join(one for one in handled if one)}); scaling is learnt in each training fold; trees "
            "find their own form.",
            "study file, sources.columns",
        ),
        "12c": (modelling_words(content), "report, Tuning and Methods"),
        "12d": (
            "Random-effects meta-analysis over sites (REML, Hartung and Knapp).",
            "report, How far the figures hold",
        )
        if different
        else (f"{OPEN}: fewer than two sites could be compared.", ""),
        "12e": (measures_words(content), "report, Methods"),
        "12f": ("None: external sites changed nothing.", "report, Methods"),
        "12g": (f"By the saved model itself, {content.model}: one code for training, scoring and serving.", "registry"),
        "13": ("None was used: nothing is resampled or weighted by class.", "study file, search"),
        "14": (
            f"Performance and gaps are told for {listed(groups)}; the model itself is not changed for it.",
            "study file, fairness",
        )
        if groups
        else (f"{OPEN}: the study names no groups. Name them in fairness.subgroups of the study file.", ""),
        "15": _output(content),
        "16": _differences(content),
        "17": from_statement(content, "ethics"),
    }


def _output(content: ReportContent) -> Told:
    if content.asked.kind == "continuous":
        return f"An estimate of {content.asked.label}; nobody is classified.", "study file, endpoints"
    thresholds = [percent(one) for one in content.study.get("thresholds") or []]
    judged = (
        f" Decisions are judged at {listed(thresholds)}, thresholds of the study and not of the data."
        if thresholds
        else ""
    )
    return f"The probability of {content.asked.leading}; nobody is classified.{judged}", "study file, report.thresholds"


def _differences(content: ReportContent) -> Told:
    if not content.external:
        return f"{OPEN}: no other site judges.", ""
    absent = [
        f"{site} lacks {count(missing)} of {count(len(content.features))} features"
        for site in content.external
        if (missing := sum(float((spec.get("missing") or {}).get(site) or 0) >= 1 for spec in content.features))
    ]
    found = f"{'; '.join(absent)}." if absent else "Every feature was measured at every site."
    return f"{found} Endpoint and rules are the same at all sites by construction.", "report, Inputs and Patients"


def _open(content: ReportContent) -> dict[str, Told]:
    versions = ", ".join(f"{name} {version}" for name, version in content.versions.items())
    return {
        "18a": from_statement(content, "funding"),
        "18b": from_statement(content, "conflicts"),
        "18c": from_statement(content, "protocol"),
        "18d": from_statement(content, "registration"),
        "18e": from_statement(content, "data_sharing"),
        "18f": with_statement(
            content,
            "code_sharing",
            f"Seed {content.seed}; {versions}; the resolved study is kept with the run.",
            "report, Methods",
        ),
        "19": from_statement(content, "involvement"),
    }


def _results(content: ReportContent) -> dict[str, Told]:
    flow = "; ".join(
        f"{row['site']}: {count(row['decisions'])} decisions, {count(row['known'])} known"
        + ("" if row["events"] is None else f", {count(row['events'])} with the outcome")
        for row in content.cohort
    )
    patients = content.study.get("patients")
    learnt = [row for row in content.cohort if row["site"] in content.development]
    known = sum(int(row["known"]) for row in learnt)
    people = f" of {count(patients)} patients" if patients else ""
    groups = group_names(content.statistics)
    told = performance_words(content)
    different = heterogeneity_words(content)
    return {
        "20a": (f"{flow}.", "report, Patients"),
        "20b": (
            "Numbers, outcomes and missing values by site are told; the distribution of each predictor is not, since the report "
            "holds no patient's values. Whether groups differ is told where the study names them.",
            "report, Patients and Inputs",
        ),
        "20c": ("Outcome frequency and missing values by site stand side by side.", "report, Patients and Inputs")
        if content.external
        else (f"{OPEN}: no other site judges.", ""),
        "21": (
            f"Tuning, fitting and nested cross-validation: {count(known)} decisions{people}. {evaluation_sizes(content)}".strip(),
            "report, Patients and Performance",
        ),
        "22": (
            f"{content.model}: plain files (text, JSON, numbers) with features, coefficients or trees, and calibration; identity "
            "and fingerprint are kept.",
            "registry; report, Methods",
        ),
        "23a": (
            f"{told}{f' By groups of {groups}: see the report.' if groups else ' Groups were not asked for.'}",
            "report, Performance",
        )
        if told
        else (f"{OPEN}: the model was not judged.", ""),
        "23b": (different, "report, How far the figures hold")
        if different
        else (f"{OPEN}: fewer than two sites could be compared.", ""),
        "24": ("None was done.", "report, Methods"),
    }


def _discussion(content: ReportContent) -> dict[str, Told]:
    limits = derived_limits(content)
    return {
        "25": from_statement(content, "interpretation"),
        "26": (" ".join(limits) if limits else "The figures show none beyond the usual.", "report, Limits"),
        "27a": (
            "Requests are checked for units, ranges and missing inputs; the answer tells what was missing and what is unlike the "
            "development patients.",
            "model, checks of a request",
        ),
        "27b": from_statement(content, "users"),
        "27c": from_statement(content, "next_steps"),
    }
