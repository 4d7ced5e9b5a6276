"""Conversations that a record keeps in pieces: what was said before with candidates for what comes next, and labelled
segments of one prompt.

PersonaChat's records have `utterances`, each with the `history` so far and `candidates`, of which the last is what was
said and the others were drawn from elsewhere. Axolotl's `segments` are a prompt with its marks already in it, cut into
pieces whose `label` says whether they are to be learned.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeGuard

from chatsmith.text.transcripts import ENDS, transcript

PIECES = ("utterances", "candidates", "segments")
"""Names by which such a record is known."""
_MARKS = (*ENDS, "<eot>", "<|eot_id|>", "<|im_end|>")


def pieced(record: Mapping[str, Any]) -> list[list[str]] | str | None:
    """The turns of such a record, or its text where nobody answers anybody in it; None for any other."""
    return _with_candidates(record) or _of_segments(record.get("segments"))


def _with_candidates(record: Mapping[str, Any]) -> list[list[str]] | None:
    utterances = record.get("utterances")
    last = utterances[-1] if isinstance(utterances, list) and utterances else record
    if not isinstance(last, Mapping):
        return None
    history, candidates, about = last.get("history"), last.get("candidates"), record.get("personality")
    if not _are_texts(history) or not _are_texts(candidates):
        return None
    said = [*history, candidates[-1]]
    turns = [[("assistant", "user")[(len(said) - place) % 2], words] for place, words in enumerate(said, 1)]
    return [["system", "\n".join(about)], *turns] if _are_texts(about) else turns


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)


def _of_segments(segments: Any) -> list[list[str]] | str | None:
    """What is not to be learned as the user's words, what is as the assistant's; unless marks tell who speaks."""
    if not isinstance(segments, list) or not segments or not all(map(_is_segment, segments)):
        return None
    whole = "".join([one["text"] for one in segments])
    if (written_out := transcript(whole)) is not None:
        return written_out
    turns = [
        ["assistant" if learned else "user", words]
        for learned, on_end in groupby(segments, itemgetter("label"))
        if (words := _without_marks("".join([one["text"] for one in on_end])))
    ]
    return turns if len({speaker for speaker, _ in turns}) == 2 else _without_marks(whole)


def _is_segment(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("text"), str) and isinstance(one.get("label"), bool)


def _without_marks(text: str) -> str:
    for mark in _MARKS:
        text = text.replace(mark, "")
    return text.strip()
