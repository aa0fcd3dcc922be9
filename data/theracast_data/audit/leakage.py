"""Checks."""

from __future__ import annotations

from theracast_data.audit.findings import Check

CHECKS: tuple[Check, ...] = ()
