"""The demo's traffic by a client that waits: a request that is answered late is not lost.

python patient.py SECONDS PAUSE_S ADDRESS HOST PATH
"""

import importlib.util

TRAFFIC = "/run/lab/project/director/lab/demo/traffic.py"


def main() -> None:
    spec = importlib.util.spec_from_file_location("traffic", TRAFFIC)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(TRAFFIC)
    traffic = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(traffic)
    traffic.TIMEOUT_S = 60.0  # type: ignore[attr-defined] # of a module that was loaded by its path
    traffic.main()


if __name__ == "__main__":
    main()
