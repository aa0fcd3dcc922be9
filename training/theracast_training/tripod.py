"""TRIPOD+AI: what a report of a prediction model must tell, answered from the run.

27 items with sub-items (52 rows), their numbers, their order and whether they concern development (D) or evaluation (E) are
those of Collins et al., BMJ 2024;385:e078378; they were compared with a public transcription of the published checklist, not
with the journal's own supplement. What is asked is said here in words of our own and no more than points to the item; the
statement says it in full. An answer is what this run knows (`tripod_answers`); what it cannot know is left open, with the key
of the study file that would answer it.
"""

from __future__ import annotations

from theracast_training.checklist import Item
from theracast_training.content import ReportContent
from theracast_training.tripod_answers import tripod_answers

ITEMS = (
    ("1", "Title", "D;E", "Title", "Name the study for what it is, for whom, and of what outcome"),
    ("2", "Abstract", "D;E", "Abstract", "A summary by the checklist for abstracts"),
    ("3a", "Introduction", "D;E", "Background", "Medical context, reason for the model, earlier models"),
    ("3b", "Introduction", "D;E", "Background", "Target patients, place in care, intended users"),
    ("3c", "Introduction", "D;E", "Background", "Known inequalities between groups"),
    ("4", "Introduction", "D;E", "Objectives", "Aims; development, evaluation or both"),
    ("5a", "Methods", "D;E", "Data", "Where development and evaluation data come from, and why these"),
    ("5b", "Methods", "D;E", "Data", "First and last day of accrual, end of follow-up"),
    ("6a", "Methods", "D;E", "Participants", "Setting, number and places of centres"),
    ("6b", "Methods", "D;E", "Participants", "Who was eligible"),
    ("6c", "Methods", "D;E", "Participants", "Treatments given, and how they were dealt with"),
    ("7", "Methods", "D;E", "Data preparation", "Preparation and checks of the data, alike in all groups"),
    ("8a", "Methods", "D;E", "Outcome", "The outcome, its horizon, how and when it is assessed, why it was chosen"),
    ("8b", "Methods", "D;E", "Outcome", "Who assessed an outcome that needs judgement"),
    ("8c", "Methods", "D;E", "Outcome", "Blinding of the assessment of the outcome"),
    ("9a", "Methods", "D", "Predictors", "How predictors were chosen before modelling"),
    ("9b", "Methods", "D;E", "Predictors", "What each predictor is, how and when it was measured; blinding"),
    ("9c", "Methods", "D;E", "Predictors", "Who assessed predictors that need judgement"),
    ("10", "Methods", "D;E", "Sample size", "How the size came about, and whether it is enough"),
    ("11", "Methods", "D;E", "Missing data", "How missing data were handled, why any were left out"),
    ("12a", "Methods", "D", "Analysis", "How the data were used and split"),
    ("12b", "Methods", "D", "Analysis", "Functional form, scaling, transformation of predictors"),
    ("12c", "Methods", "D", "Analysis", "Kind of model, steps of building, tuning, internal validation"),
    ("12d", "Methods", "D;E", "Analysis", "How differences between clusters were handled and measured"),
    ("12e", "Methods", "D;E", "Analysis", "Measures and plots of performance, comparisons"),
    ("12f", "Methods", "E", "Analysis", "Updating of the model after evaluation"),
    ("12g", "Methods", "E", "Analysis", "How predictions were calculated for evaluation"),
    ("13", "Methods", "D;E", "Class imbalance", "Methods against imbalance, and recalibration after them"),
    ("14", "Methods", "D;E", "Fairness", "What was done for fairness, and why"),
    ("15", "Methods", "D", "Output", "What the model gives; thresholds and where they come from"),
    ("16", "Methods", "D;E", "Training against evaluation", "Differences in setting, eligibility, outcome, predictors"),
    ("17", "Methods", "D;E", "Ethics", "Approval and consent"),
    ("18a", "Open science", "D;E", "Funding", "Who paid, and their part"),
    ("18b", "Open science", "D;E", "Conflicts", "Conflicts of interest"),
    ("18c", "Open science", "D;E", "Protocol", "Where the protocol is"),
    ("18d", "Open science", "D;E", "Registration", "Register and number"),
    ("18e", "Open science", "D;E", "Data sharing", "Where the data can be had"),
    ("18f", "Open science", "D;E", "Code sharing", "Where the code can be had"),
    ("19", "Involvement", "D;E", "Patients and public", "Their part in the study"),
    ("20a", "Results", "D;E", "Participants", "Flow of participants, with and without the outcome, follow-up"),
    ("20b", "Results", "D;E", "Participants", "Characteristics of each source, with missing data"),
    ("20c", "Results", "E", "Participants", "Development and evaluation data side by side"),
    ("21", "Results", "D;E", "Development", "Participants and events in each analysis"),
    ("22", "Results", "D", "Specification", "The full model, so that others can use and judge it"),
    ("23a", "Results", "D;E", "Performance", "Performance with intervals, also of subgroups"),
    ("23b", "Results", "D;E", "Performance", "Differences of performance between clusters"),
    ("24", "Results", "E", "Updating", "Results of any updating"),
    ("25", "Discussion", "D;E", "Interpretation", "What the results mean, fairness included, beside earlier studies"),
    ("26", "Discussion", "D;E", "Limitations", "Limits of the study and what follows from them"),
    ("27a", "Discussion", "D", "Use", "What to do with poor or missing input"),
    ("27b", "Discussion", "D", "Use", "What users must do, and what they must know"),
    ("27c", "Discussion", "D;E", "Use", "What research comes next"),
)
"""Number, part of the report, whom it concerns, topic, and what is asked."""


def tripod_items(content: ReportContent) -> list[Item]:
    """Return every item in order, with what the run answers."""
    answers = tripod_answers(content)
    return [Item(*item, *answers[item[0]]) for item in ITEMS]
