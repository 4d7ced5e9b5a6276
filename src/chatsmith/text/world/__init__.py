"""The small world: the built-in corpus, made by our own generator, endless and seeded.

Stories that hold together and talk about them, small talk, numbers, what words mean to each other, English and French,
reviews with labels, and tasks that only their examples explain. For every skill some combinations are held out of all
training text, so that what was learned can be told from what was memorised.
"""

from __future__ import annotations

from chatsmith.text.world.items import SKILLS, SPLITS, Skill, SkillItem, Split, skill_items
from chatsmith.text.world.lexicon import lexicon
from chatsmith.text.world.mixture import CURRICULUM, KINDS, MIXTURE, documents

__all__ = [
    "CURRICULUM",
    "KINDS",
    "MIXTURE",
    "SKILLS",
    "SPLITS",
    "Skill",
    "SkillItem",
    "Split",
    "documents",
    "lexicon",
    "skill_items",
]
