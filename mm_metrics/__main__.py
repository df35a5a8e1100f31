"""``python -m mm_metrics``: the command line."""

from mm_metrics.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
