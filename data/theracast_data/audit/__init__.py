"""What a careful statistician would find before modelling: `audit(cohort, ...)` gives an `AuditReport`."""

from theracast_data.audit.findings import Finding
from theracast_data.audit.report import AuditReport
from theracast_data.audit.run import audit

__all__ = ["AuditReport", "Finding", "audit"]
