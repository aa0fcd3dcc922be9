"""What a study file tells the audit: findings that are known and accepted, and how the outcomes show in the events."""

from __future__ import annotations

from pydantic import Field

from theracast_data.section import Section


class Acceptance(Section):
    """Silences a finding; the reason stands in every report instead."""

    check: str = Field(description="Stable name of the check, e.g. constant-at-site.")
    column: str | None = Field(None, description="Only for this column (name inside Theracast).")
    site: str | None = Field(None, description="Only at this site.")
    reason: str = Field(min_length=10, description="Why it is acceptable; printed in the report.")


class OutcomeCodes(Section):
    """The codes by which an outcome shows itself in the events."""

    name: str = Field(description="The outcome, e.g. progression.")
    codes: tuple[str, ...] = Field(min_length=1, description="Codes of the outcome; a final * stands for any ending.")
    synonyms: tuple[str, ...] = Field((), description="Codes of other systems, texts' codes, billing codes for it.")
    follow_up: tuple[str, ...] = Field((), description="Drugs and procedures that follow it, e.g. the next line.")
    lookback: str = Field("(-inf, 0d]", description="What features may see, as a window before the index time.")
