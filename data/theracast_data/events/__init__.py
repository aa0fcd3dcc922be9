"""Dated facts of patients as events (Medical Event Data Standard): store, readers, codes."""
