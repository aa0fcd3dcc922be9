"""Which findings of the audit are known and accepted: the `accept` section of a study file."""

from __future__ import annotations

from pydantic import Field

from theracast_data.section import Section


class Acceptance(Section):
    """Silences a finding; the reason stands in every report instead."""

    check: str = Field(description="Stable name of the check, e.g. constant-at-site.")
    column: str | None = Field(None, description="Only for this column (name inside Theracast).")
    site: str | None = Field(None, description="Only at this site.")
    reason: str = Field(min_length=10, description="Why it is acceptable; printed in the report.")
