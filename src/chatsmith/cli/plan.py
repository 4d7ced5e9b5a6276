"""`chatsmith plan`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from chatsmith.cli.options import Json

if TYPE_CHECKING:
    from chatsmith.tables import Report

_TRAIN = Group("Training", sort_key=1)
_CHOOSE = Group("What to train", sort_key=2)
_DIVIDE = Group("Many devices", sort_key=3)
_RUN = Group("Generating", sort_key=4)
_SHOW = Group("What is shown", sort_key=5)


def plan(
    model: Annotated[
        str | None, Parameter(help="A preset (gpt3-175b), a recipe, a config.json or a model folder.")
    ] = None,
    /,
    *,
    tokens: Annotated[str | None, Parameter(help="Tokens to train on, as 300B.", group=_TRAIN)] = None,
    context: Annotated[str | None, Parameter(help="Tokens in a row; by default the model's.", group=_TRAIN)] = None,
    on: Annotated[tuple[str, ...], Parameter(help="An accelerator, as h100; --on again compares.", group=_TRAIN)] = (),
    count: Annotated[str | None, Parameter(help="How many of them.", group=_TRAIN)] = None,
    tflops: Annotated[
        str | None, Parameter(help="TFLOP/s that each achieves, where you know it.", group=_TRAIN)
    ] = None,
    price: Annotated[str | None, Parameter(help="Dollars an hour of each.", group=_TRAIN)] = None,
    devices: Annotated[Path | None, Parameter(help="A TOML file with accelerators of your own.", group=_TRAIN)] = None,
    compare: Annotated[bool, Parameter(help="Rank hardware by money and by time.", group=_TRAIN)] = False,
    budget: Annotated[str | None, Parameter(help="Dollars to spend: what do they buy?", group=_CHOOSE)] = None,
    days: Annotated[
        str | None,
        Parameter(help="Days to spend; with --tokens, the days it may take.", group=_CHOOSE),
    ] = None,
    fit: Annotated[
        tuple[str, ...],
        Parameter(
            help="Scaling law: besiroglu (if none is named), hoffmann, hoffmann-unrounded, kaplan.", group=_CHOOSE
        ),
    ] = (),
    layout: Annotated[bool, Parameter(help="Find the fastest way to divide the training.", group=_DIVIDE)] = False,
    batch_tokens: Annotated[str | None, Parameter(help="Tokens in a step, as 2M.", group=_DIVIDE)] = None,
    node_size: Annotated[str | None, Parameter(help="Devices in a node.", group=_DIVIDE)] = None,
    network: Annotated[str | None, Parameter(help="GB/s of each device between nodes, one way.", group=_DIVIDE)] = None,
    emit: Annotated[
        Literal["torchrun", "slurm", "skypilot"] | None,
        Parameter(help="Print a launch file for the layout instead.", group=_DIVIDE),
    ] = None,
    run: Annotated[bool, Parameter(help="What it takes to generate.", group=_RUN)] = False,
    batch: Annotated[str, Parameter(help="Sequences at a time.", group=_RUN)] = "1",
    fits: Annotated[
        bool, Parameter(help="What trains and runs on this machine: every size, or MODEL.", group=_RUN)
    ] = False,
    explain: Annotated[bool, Parameter(help="Show each formula with its numbers and its source.", group=_SHOW)] = False,
    table: Annotated[str | None, Parameter(help="A published table, recomputed row by row: gpt3.", group=_SHOW)] = None,
    plot: Annotated[
        Path | None, Parameter(help="Draw loss against compute and cost against hardware, as .svg.", group=_SHOW)
    ] = None,
    json: Json = False,
) -> None:
    """Know the cost before you spend it: sizes, compute, memory, time and money.

    Numbers may end in K, M, B or T. Rates and losses that are predicted say so; prices carry provider and date.
    Without a model, --budget or --days with --on finds what to train.
    """
    from chatsmith.cli.console import out, print_json, say, write_text

    if table is not None or fits:
        report = _published(table, model) if table is not None else _fits(model)
        print_json(report) if json else out().print(report)
        return
    from chatsmith.plan.scaling import DEFAULT_FIT
    from chatsmith.planning import plan as make_plan

    found = make_plan(
        model,
        tokens=tokens,
        context=context,
        on=on,
        count=count,
        price=price,
        tflops=tflops,
        budget=budget,
        days=days,
        fits=fit or DEFAULT_FIT,
        run=run,
        batch=batch,
        layout=layout or emit is not None,
        batch_tokens=batch_tokens,
        node_size=node_size,
        network_gb_s=network,
        compare_devices=compare,
        devices=devices,
        explain=explain,
        plot=plot,
        note=say,
    )
    if emit is not None and found.layout is not None:
        from chatsmith.plan.emit import launch_file

        recipe = model if model is not None and model.endswith(".toml") else "recipe.toml"
        text = launch_file(emit, found.layout, recipe=recipe)
        print_json({"kind": emit, "text": text, "layout": found.layout}) if json else write_text(text)
    elif json:
        print_json(found)
    else:
        out().print(found)
    if plot is not None:
        say(f"wrote {plot}")


def _published(name: str, model: str | None) -> Report:
    from chatsmith.errors import RequestError
    from chatsmith.plan.published import published_table

    if model is not None:
        raise RequestError("--table shows what a paper printed and takes no model", f"chatsmith plan --table {name}")
    return published_table(name)


def _fits(model: str | None) -> Report:
    from chatsmith.cli.console import say
    from chatsmith.planning import fits

    return fits(model, note=say)
