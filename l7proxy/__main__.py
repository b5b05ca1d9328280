"""Entry point of `l7proxy` and `python -m l7proxy`."""

from __future__ import annotations

from l7proxy.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
