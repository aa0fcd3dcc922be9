"""Split, tune, fit, evaluate, report and register: from a study to a validated model in the registry."""
