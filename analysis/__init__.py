"""Reads records: metrics, plots, traces, fits, comparisons. Runs nothing."""
