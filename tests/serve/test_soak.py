"""A minute of the hostile crowd of bench/soak.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

SOAK = Path(__file__).resolve().parents[2] / "bench" / "soak.py"


def test_a_hostile_crowd_breaks_nothing(folder: Path) -> None:
    command = [sys.executable, str(SOAK), "--model", str(folder), "--seconds", "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert json.loads(done.stdout.splitlines()[-1])["wrong"] == [], done.stderr
