"""One row per decision: one builder per modality, merged into one feature table with a catalogue."""
