"""schemathesis makes requests out of /openapi.json, right ones and wrong ones: nothing may answer as it should not."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def test_what_the_description_says_holds(listening: Any, tmp_path: Path) -> None:
    if find_spec("schemathesis") is None:
        pytest.skip("schemathesis is not installed: make test-clients")
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "run", f"{listening.url}/openapi.json", "--url", listening.url, "--seed", "1"]
    command += ["--max-examples", "25", "--suppress-health-check", "all", "--generation-database", "none"]
    # What this check holds against us is meant: whole numbers are not taken as 3.0, prompt and answer must fit the
    # context, and some fields exclude each other.
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
