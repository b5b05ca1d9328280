"""The lab's fixtures, for the half of the suite that runs on a real kernel."""

from tests.lab.conftest import kernel, lab

__all__ = ["kernel", "lab"]
