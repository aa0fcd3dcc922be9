"""Load one artefact, check one request, answer with an explained score."""
