"""Checks as they are written in YAML, and the frozen values that probes run from: one file for each type."""
