"""How long a test waits for a process that it started: a test must not fail because the machine is busy."""

PATIENCE = 1800.0
"""Seconds: for what would otherwise wait for ever."""
