"""What a step of the demonstration or of a scene claims.

One rule: a claim that does not hold ends the play, with what was seen instead.
"""


class StepFailedError(AssertionError):
    """A step's claim does not hold."""


def claim(holds: object, what: str) -> None:
    """Go on if it holds. Raises: StepFailedError, with `what` was seen."""
    if not holds:
        raise StepFailedError(what)
