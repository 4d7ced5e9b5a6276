"""`chatsmith convert`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from chatsmith.cli.options import Cache, Json


def convert(
    model: Annotated[Path, Parameter(help="A model folder, or a GGUF file.")],
    out: Annotated[Path, Parameter(help="The folder to write, or a file that ends in .gguf.")],
    /,
    *,
    to: Annotated[Literal["int8", "int4", "bf16", "f16", "f32"], Parameter(help="The format of the weights.")],
    group: Annotated[
        Literal[32, 64, 128] | None, Parameter(help="Weights that share a scale (default: int8 128, int4 32).")
    ] = None,
    zeros: Annotated[bool, Parameter(help="int4 with a zero of its own for each group.")] = False,
    head: Annotated[
        Literal["int8", "int4", "bf16", "f16", "f32"] | None,
        Parameter(help="The format of embedding and output head (default: that of the rest, int8 for int4)."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        Parameter(help="A text like those it will see, or own (its own words): int8, int4 round by what layers read."),
    ] = None,
    text: Annotated[
        Path | None, Parameter(help="A text to measure on; without one, what the model itself writes.")
    ] = None,
    cache: Cache = None,
    force: Annotated[bool, Parameter(help="Write it whatever it costs.")] = False,
    overwrite: Annotated[bool, Parameter(help="Replace a model that is in the folder already.")] = False,
    json: Json = False,
) -> None:
    """Write a model in a lighter format, and report what that cost.

    int8 and int4 give a folder with packed weights, which the native backend maps and runs without torch; a name that
    ends in .gguf gives a file for llama.cpp (Q8_0, Q4_0, BF16, F16 or F32), which has no choice of --group, --zeros or
    --head, and --calibrate for int4 alone. The report tells size, perplexity, divergence, how often the likeliest token
    stays the same, and, of a folder, speed; with --cache, what keys and values in that format cost too. Where
    perplexity grows beyond the bound (f32 0.05%, f16 0.1%, bf16 and int8 0.5%, int4 3%; what --cache adds: as its
    format), or the text is too short to tell, nothing is written, unless --force.
    """
    import sys

    from chatsmith.cli.console import out as console
    from chatsmith.cli.console import print_json
    from chatsmith.convert import convert as run

    report = run(
        model,
        out,
        to=to,
        group=group,
        symmetric=not zeros,
        head=head,
        calibrate="own" if calibrate == Path("own") else calibrate,
        text=text,
        cache=cache,
        force=force,
        overwrite=overwrite,
        progress=lambda line: print(line, file=sys.stderr),
    )
    if json:
        print_json(report.to_mapping())
    else:
        console().print(report)
