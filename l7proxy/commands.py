"""Commands that l7proxy gives itself, in processes of its own."""

from __future__ import annotations

WORKER = "worker"
"""Serve as a supervisor says."""
REHEARSE = "rehearse"
"""Do all that a start does before it serves."""
