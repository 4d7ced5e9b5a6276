"""The memory of a training step, as reckoned and as PyTorch allocates it, in a process that holds nothing else.

What other tests have left in a process (threads that still work ahead, tables that were built) would be counted, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE


def test_a_step_allocates_what_was_reckoned() -> None:
    cases = Path(__file__).with_name("allocations.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(cases)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env=os.environ, cwd=cases.parents[2]
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
