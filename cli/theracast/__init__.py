"""Theracast."""
