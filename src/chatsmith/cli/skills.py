"""`chatsmith skills`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chatsmith.cli.options import Json


def skills(
    model: Annotated[Path | None, Parameter(help="A model folder; without one, the built-in model.")] = None,
    /,
    *,
    skill: Annotated[tuple[str, ...], Parameter(help="Only this skill; may be given several times.")] = (),
    shots: Annotated[tuple[int, ...], Parameter(help="Solved examples before a question (default: 0, 1 and 4).")] = (),
    count: Annotated[int, Parameter(help="Questions for each skill, split and number of examples.")] = 100,
    seed: Annotated[int, Parameter(help="Other questions for another seed.")] = 0,
    misses: Annotated[int, Parameter(help="Show so many wrong answers of each row.")] = 0,
    json: Json = False,
) -> None:
    """Measure what a model of the built-in corpus has learned.

    Each skill is asked about what was trained and about combinations that were held out of training, after no, one and
    four solved examples. Right answers are counted, with the 95% interval. A model without a chat template is asked
    nothing in conversations.
    """
    from chatsmith.cli.built_in import existing_built_in
    from chatsmith.cli.console import out, print_json, safe
    from chatsmith.evaluate.skills import measure_skills
    from chatsmith.language_model import load

    loaded = load(model if model is not None else existing_built_in())
    report = measure_skills(
        loaded.complete,
        skills=skill or None,
        shots=shots or (0, 1, 4),
        count=count,
        seed=seed,
        keep_misses=misses,
        fits=loaded.fits,
        talks=bool(loaded.tokenizer.chat_template),
    )
    if json:
        print_json(report.to_mapping())
        return
    out().print(report)
    for miss in report.misses:
        print(f"\n{miss.skill}, {miss.split}, {miss.shots} examples: {safe(miss.question)}")
        print(f"  answered {safe(miss.answer)!r}, not {' or '.join(map(repr, miss.wanted))}")
