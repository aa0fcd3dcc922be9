"""What is known about the patients: readers, units, schema and audit. Knows no other Theracast package."""
