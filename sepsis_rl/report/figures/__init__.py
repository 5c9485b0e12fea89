"""Figures of the report: each a function of the evidence, None where its runs are missing."""
