"""`chatsmith write`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chatsmith.cli.options import Cache, Json, SamplingFlags, text_argument

if TYPE_CHECKING:
    from chatsmith.generate.constraints import Constraint


def write(
    model: Annotated[Path, Parameter(help="A model folder.")],
    text: Annotated[str, text_argument("The text to continue; - reads it from stdin.")] = "-",
    /,
    *,
    samples: Annotated[int, Parameter(help="So many different continuations, side by side.")] = 1,
    beams: Annotated[int | None, Parameter(help="Search for the likeliest text with so many beams.")] = None,
    length_penalty: Annotated[
        float | None, Parameter(help="How much longer texts are favoured by --beams (default: 0.6).")
    ] = None,
    schema: Annotated[Path | None, Parameter(help="A file with a JSON schema that the text must fit.")] = None,
    regex: Annotated[str | None, text_argument("A regular expression that the text must match.")] = None,
    rolling: Annotated[bool, Parameter(negative="", help="Go on beyond the context, forgetting the oldest.")] = False,
    draft: Annotated[Path | None, Parameter(help="A smaller model of the same vocabulary that guesses ahead.")] = None,
    lookup: Annotated[bool, Parameter(negative="", help="Guess ahead from what the text said before.")] = False,
    cache: Cache = None,
    sampling: SamplingFlags = SamplingFlags(),  # noqa: B008 - frozen
    json: Json = False,
) -> None:
    """Continue a text, once or in several samples side by side.

    A single continuation is printed as it is made, after the text itself.
    """
    from chatsmith.cli.console import err, out, print_json, write_text
    from chatsmith.cli.options import given_text
    from chatsmith.errors import RequestError
    from chatsmith.language_model import load

    text = given_text(text)
    constraint = _constraint(schema, regex)
    if beams is not None and (draft is not None or lookup):
        raise RequestError("a search with beams reads no guesses", "leave out --draft and --lookup, or --beams")
    loaded = load(model, draft=draft, lookup=lookup, cache=cache)
    if json or samples != 1 or beams is not None or length_penalty is not None:
        writing = loaded.write(
            text,
            samples=samples,
            beams=beams,
            length_penalty=length_penalty,
            constraint=constraint,
            rolling=rolling,
            **sampling.given(),
        )
        if json:
            print_json(writing.to_mapping())
        else:
            out().print(writing)
        return
    stream = loaded.write(text, stream=True, constraint=constraint, rolling=rolling, **sampling.given())
    write_text(text + next(stream, ""))  # not before the text has proved to fit
    for piece in stream:
        write_text(piece)
    write_text("\n")
    if forgotten := stream.answer.forgotten:
        err().print(f"the context was full: the model no longer saw the first {forgotten} tokens at the end")
    if stream.answer.full:
        err().print(f"the context of {loaded.spec.context:,} tokens is full; --rolling writes on")


def _constraint(schema: Path | None, regex: str | None) -> Constraint | None:
    """The form that the text must have, from a file or an expression."""
    from chatsmith.errors import RequestError
    from chatsmith.generate.constraints import MAX_LENGTH, Constraint

    if schema is not None and regex is not None:
        raise RequestError("--schema and --regex cannot both be given", "keep one")
    if schema is None:
        return None if regex is None else Constraint("regex", regex)
    try:
        with schema.open(encoding="utf-8") as file:
            return Constraint.schema(file.read(MAX_LENGTH + 1))
    except OSError as error:
        raise RequestError(f"{schema} cannot be read: {error.strerror}", "give a file with a JSON schema") from None
    except UnicodeDecodeError:
        raise RequestError(f"{schema} cannot be read: it is not UTF-8 text", "give a file with a JSON schema") from None
