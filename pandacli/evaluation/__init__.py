"""Scoring of answer files: text metrics, choices, a judge model, intervals and the report."""
