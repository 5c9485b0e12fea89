"""Figures of the report: each a function of the experiment, None where its runs are missing."""
