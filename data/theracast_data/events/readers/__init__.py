"""Readers: one source each into events, streaming, with a report of what was not understood."""
