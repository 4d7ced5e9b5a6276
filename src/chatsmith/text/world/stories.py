"""Stories: one of many plots, cast and told."""

from __future__ import annotations

from functools import lru_cache

from chatsmith.text.world import plots_friends, plots_home, plots_out, plots_wonder
from chatsmith.text.world.dice import Dice
from chatsmith.text.world.tale import Plot, Tale


@lru_cache(maxsize=1)
def plots() -> dict[str, Plot]:
    """Every plot by name."""
    return {**plots_out.PLOTS, **plots_home.PLOTS, **plots_friends.PLOTS, **plots_wonder.PLOTS}


def tell(dice: Dice, *, plot: str | None = None, brief: bool = False, unseen: bool = False) -> Tale:
    """A story: of this plot, or of any; brief, for conversations; `unseen` with a held-out pair of name and place."""
    name = plot or dice.pick(tuple(plots()))
    tale = Tale(dice, brief=brief, unseen=unseen)
    tale.plot = name
    plots()[name](tale)
    return tale


def story(dice: Dice) -> str:
    """A story to read: sometimes with a title, sometimes with questions after it."""
    tale = tell(dice, brief=dice.chance(0.4))
    parts = [tale.text]
    if dice.chance(0.3):
        parts.insert(0, tale.heading())
    if dice.chance(0.5):
        asked = dice.sample(tale.questions(), dice.between(2, 5))
        parts.append("\n".join(f"Question: {question.ask}\nAnswer: {question.answer}" for question in asked))
    return "\n".join(parts)
