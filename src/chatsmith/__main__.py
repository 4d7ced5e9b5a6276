"""`python -m chatsmith`, and what the `chatsmith` script calls."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; returns the exit code (0 done, 1 the work failed, 2 the request was wrong)."""
    try:
        from chatsmith.cli.app import run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed while the program was still loading
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
