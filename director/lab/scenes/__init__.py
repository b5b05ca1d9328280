"""Six scenes: one thing a time that the product does, on the lab's hosts, explained to somebody who sees it first."""
