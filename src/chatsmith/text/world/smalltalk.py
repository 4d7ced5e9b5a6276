"""What people say when they meet a small model, and what it says, honestly, in return: read from `smalltalk.toml`."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files

from chatsmith.text.world.phrasing import split

LANDS = split("France Spain Italy Japan India China Peru Kenya Canada Brazil Egypt Norway Greece Mexico Poland")
TOPICS = split("greetings goodbyes self moods feelings courtesy likes jokes unknown")


@lru_cache(maxsize=1)
def tables() -> dict[str, tuple[tuple[str, str], ...]]:
    """For each topic its entries, as (what the user says, what the assistant says), with the choices still in them."""
    text = files("chatsmith.text.world").joinpath("smalltalk.toml").read_text(encoding="utf-8")
    read = tomllib.loads(text)
    return {topic: tuple((entry["user"], entry["assistant"]) for entry in read[topic]) for topic in TOPICS}
