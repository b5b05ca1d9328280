"""Probes: one file for each type. A failed probe is a value, never an exception."""
