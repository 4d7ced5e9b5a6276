"""What every test room shares: the corpora that live outside the repository."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # a test must not fail because the machine is busy
settings.load_profile("any machine")

# A shell that starts the tests in its background has them ignore Ctrl-C, and so would all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared corpora, models and known answers; the test is skipped, saying so, where it is missing.

    It is `$CHATSMITH_SHARED`, else the folder `shared` beside the checkout.
    """
    chosen = os.environ.get("CHATSMITH_SHARED")
    folder = Path(chosen) if chosen else Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no shared corpora in {folder}; set CHATSMITH_SHARED to the folder that holds them")
    return folder
