"""From a model and a layout to a team: the transformations, in their order."""

from __future__ import annotations

import torch

from chatsmith.models.decoder import Decoder
from chatsmith.train.objectives import Objective
from chatsmith.train.parallel.context import context_parallel
from chatsmith.train.parallel.layouts import check
from chatsmith.train.parallel.optimizer import DividedOptimizer
from chatsmith.train.parallel.pipeline import stages_of
from chatsmith.train.parallel.place import Place
from chatsmith.train.parallel.replicas import ReplicaOptimizer
from chatsmith.train.parallel.sharding import shard
from chatsmith.train.parallel.stage import Stage, cut
from chatsmith.train.parallel.teams import Divided, Replicas
from chatsmith.train.parallel.tensor import tensor_parallel
from chatsmith.train.recipe import Recipe
from chatsmith.train.recipe_tables import Parallel
from chatsmith.train.team import over_masters, transform


def only_replicas(parallel: Parallel) -> bool:
    """Whether every process holds the whole model."""
    return parallel.shard == parallel.tensor == parallel.pipeline == parallel.context == 1


def team(
    model: Decoder, objective: Objective, recipe: Recipe, device: torch.device
) -> tuple[Replicas | Divided, ReplicaOptimizer | DividedOptimizer]:
    """Who shares the steps of `recipe`, whose layout is filled, and the optimizer."""
    if not only_replicas(recipe.parallel):
        return divided(model, recipe, device)
    transform(model, recipe)
    optimizer = over_masters(model, recipe, ReplicaOptimizer)
    return Replicas(model, objective, recipe, optimizer), optimizer


def divided(model: Decoder, recipe: Recipe, device: torch.device) -> tuple[Divided, DividedOptimizer]:
    """The team and the optimizer of a model of float32 weights, divided as the recipe's filled layout says."""
    parallel, precision = recipe.parallel, recipe.precision
    context = recipe.context(model.spec)
    check(parallel, model.spec, context)
    place = Place.make(parallel, device.type)
    compute = torch.bfloat16 if precision.compute == "bfloat16" else model.dtype
    model.compute_dtype = compute
    numbers = stages_of(parallel, place.at("pipeline"))
    stages = parallel.pipeline * parallel.stages
    parts = cut(model, stages)
    for number, part in enumerate(parts):
        for name, module in part.named_children():
            if number not in numbers and name != "rotary":  # whose tables all parts share
                module.to("meta")  # the layers that others hold take no room here
    made = []
    for number in numbers:
        part = parts[number]
        if parallel.tensor > 1:
            tensor_parallel(part, place.mesh["tensor"], sequence=parallel.sequence)
        if parallel.context > 1:
            context_parallel(part, place.group("context"))
        stage = Stage(
            part,
            tokens=context // parallel.context,
            first=number == 0,
            last=number == stages - 1,
            tensor=place.group("tensor") if parallel.tensor > 1 else None,
            sequence=parallel.sequence and parallel.tensor > 1,
            divided_loss=parallel.loss,
        )
        transform(part, recipe)
        # A pipeline goes through its layers once per micro-batch: what is gathered stays until the last one is back.
        shard(stage, place.sharding, compute, reshard=parallel.reshard and parallel.pipeline == 1)
        made.append(stage)
    optimizer = DividedOptimizer(made, recipe.optimizer, place)
    return Divided(place, made, optimizer, recipe.batch.micro_batch, device), optimizer
