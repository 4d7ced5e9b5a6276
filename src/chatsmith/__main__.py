"""`python -m chatsmith`, and what the `chatsmith` script calls."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command line; returns the exit code (0 done, 1 the work failed, 2 the request was wrong)."""
    # A start makes tens of thousands of objects that stay; to look for garbage after every 700 took a fifth of it.
    gc.set_threshold(50_000)
    try:
        from chatsmith.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # pressed while the program was still loading
        from chatsmith.train.parallel.telling import report

        if not report("stopped", None, 130):
            print("stopped", file=sys.stderr)
        code = 130
    among = sys.modules.get("chatsmith.train.parallel.process")
    if among is not None and among.from_environment().size > 1:
        among.leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
