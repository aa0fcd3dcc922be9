"""Features from events as of each decision, by one SQL text."""
