"""`chatsmith train`"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from chatsmith.cli.options import Json
from chatsmith.errors import RequestError, did_you_mean

if TYPE_CHECKING:
    from chatsmith.train.callbacks import Callback, Outcome
    from chatsmith.train.recipe import Recipe

_MOST_PROCESSES = 1024


def train(
    recipe: Annotated[Path, Parameter(help="A TOML recipe; with --resume, the folder of the run.")],
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The folder to train into (default: the recipe's name).")] = None,
    resume: Annotated[bool, Parameter(help="Go on from the newest intact checkpoint.")] = False,
    overwrite: Annotated[bool, Parameter(help="Replace a model that the folder already holds.")] = False,
    change: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="Change a setting: key=value, as in optimizer.learning_rate=3e-4."),
    ] = (),
    dry_run: Annotated[bool, Parameter(help="Print the whole recipe and the model's size, and train nothing.")] = False,
    tensorboard: Annotated[
        bool, Parameter(help="Also write the figures for TensorBoard, into OUT/tensorboard.")
    ] = False,
    processes: Annotated[
        int, Parameter(help="Train in so many processes of this machine, as torchrun does; 1 is this one.")
    ] = 1,
    json: Json = False,
) -> int:
    """Train from a TOML recipe, or resume a run.

    Under torchrun, or with --processes, the work is divided as the recipe's [parallel] table says. A process that dies
    is replaced, and training goes on from the last checkpoint.

    Ctrl-C ends the run after its step, with a checkpoint to resume from and a model folder that can be used.
    """
    from chatsmith.cli.console import print_json

    chosen, folder = _chosen(recipe, out, resume, change)
    if processes != 1:
        _check(chosen, processes)
    if dry_run:
        _describe(chosen, folder, json)
        return 0
    if processes != 1:
        return _launch(processes)
    outcome = _run(chosen, folder, resume=resume, overwrite=overwrite, tensorboard=tensorboard)
    if int(os.environ.get("RANK", 0)):
        return 0 if outcome.stopped is None else 128 + signal.Signals[outcome.stopped]
    if json:
        print_json({"folder": folder, **_figures(outcome)})
    return farewell(outcome, f"chatsmith chat {folder}" if outcome.talks else f'chatsmith write {folder} "…"')


def _check(recipe: Recipe, processes: int) -> None:
    """Refuse what so many processes cannot do, before they are started."""
    if not 1 < processes <= _MOST_PROCESSES:
        raise RequestError(f"--processes must be from 1 to {_MOST_PROCESSES}, not {processes}")
    if "RANK" in os.environ:
        raise RequestError("torchrun has started several processes already", "leave --processes out")
    from chatsmith.train.settle import check_layout

    check_layout(recipe, processes)


def _launch(processes: int) -> int:
    """Run this command again in so many processes."""
    from chatsmith.cli.console import print_error, say
    from chatsmith.train.parallel.launch import launch

    words, rest = [], iter(sys.argv[1:])
    for word in rest:
        if word == "--processes":
            next(rest, None)
        elif not word.startswith("--processes="):
            words.append(word)
    return launch(["-m", "chatsmith", *words], processes, note=say, tell=print_error)


def _chosen(recipe: Path, out: Path | None, resume: bool, changes: Sequence[str]) -> tuple[Recipe, Path]:
    """The recipe and the folder that the arguments mean."""
    from chatsmith.train.recipe import load_recipe

    if resume and not recipe.exists():
        near = [path.name for path in recipe.parent.glob("*") if (path / "recipe.toml").is_file()]
        raise RequestError(f"there is no run {recipe}", did_you_mean(recipe.name, near))
    if recipe.is_dir():
        names = [recipe / "recipe.toml", recipe / "chatsmith.toml"]
        found = next((path for path in names if path.is_file()), None)
        if found is None:
            raise RequestError(f"{recipe} holds no training run", "name a recipe file, or the folder of a run")
        if not resume and out is None:
            raise RequestError(
                f"{recipe} is the folder of a run",
                f"go on with it: chatsmith train --resume {recipe}; or repeat it with --out into another folder",
            )
        return load_recipe(found, changes), out or recipe
    loaded = load_recipe(recipe, changes)
    return loaded, out or Path(loaded.name or recipe.stem)


def _run(recipe: Recipe, folder: Path, *, resume: bool, overwrite: bool, tensorboard: bool) -> Outcome:
    from chatsmith.cli.progress import training_view
    from chatsmith.create import continuations
    from chatsmith.evaluate.compressors import Compressors
    from chatsmith.train.run import train as run
    from chatsmith.train.speed import matrix_rate

    leads = os.environ.get("RANK", "0") == "0"
    callbacks: list[Callback] = [view := training_view()] if leads else []
    if tensorboard and leads:
        from chatsmith.train.tensorboard import TensorBoard

        callbacks.append(TensorBoard(folder / "tensorboard"))
    try:
        return run(
            recipe,
            folder,
            resume=resume,
            overwrite=overwrite,
            sampler=continuations,
            comparer=Compressors if resume else None,  # only `chatsmith new` begins with one
            callbacks=callbacks,
            peak_flops=matrix_rate(recipe.precision.compute) if leads else None,
        )
    finally:
        if leads:
            view.close()


def _describe(recipe: Recipe, folder: Path, json: bool) -> None:
    """What would be trained, and what the planner reckons that it takes."""
    from chatsmith.cli.console import print_json
    from chatsmith.plan.memory_here import training_memory
    from chatsmith.plan.quantities import bytes_text
    from chatsmith.settings import to_mapping

    spec = None if recipe.starts_from else recipe.spec(recipe.data.vocab_size or 512)
    parameters = memory = flops = None
    if spec is not None and recipe.data.vocab_size is not None:
        context, batch = recipe.context(spec), recipe.batch
        parameters, flops = spec.parameters, spec.training_flops_per_token(context)
        memory = training_memory(
            spec,
            min(batch.micro_batch, batch.rows),
            context,
            weight_bytes=4 if recipe.precision.compute == "float32" else 2,
            optimizer=recipe.optimizer.name,
            accumulate=batch.accumulation > 1,
        ).total
    if json:
        figures = {"parameters": parameters, "memory_bytes": memory, "flops_per_token": flops}
        print_json({"folder": folder, **figures, "recipe": to_mapping(recipe)})
        return
    print(recipe.to_toml())
    if parameters is None or memory is None or flops is None:
        print(f"# into {folder}; the number of parameters follows from its vocabulary or the model it starts from")
        return
    print(f"# {parameters:,} parameters, into {folder}")
    print(f"# about {bytes_text(memory)} in one process on a CPU, {flops:.3g} FLOP a token")


def _figures(outcome: Outcome) -> dict[str, object]:
    names = ("steps", "tokens", "seconds", "loss", "held_out_loss", "bits_per_byte", "skipped_steps", "stopped")
    return {name: getattr(outcome, name) for name in names}


def farewell(outcome: Outcome, next_command: str) -> int:
    """Say what to type next; the exit code is the shell's for a run that a signal ended."""
    from chatsmith.cli.console import say

    if outcome.stopped is not None:
        say(f"go on with: chatsmith train --resume {outcome.folder}")
        return 128 + signal.Signals[outcome.stopped]
    say(f"next: {next_command}")
    return 0
