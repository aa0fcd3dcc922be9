"""Estimators, calibration, uncertainty, explanation, and the one artefact that answers."""
