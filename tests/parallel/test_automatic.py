"""The layout that is chosen where the recipe leaves it to us: by the planner, or by what fits into memory."""

from __future__ import annotations

import pytest
import torch

from chatsmith.errors import RequestError
from chatsmith.settings import from_mapping
from chatsmith.specs import preset
from chatsmith.train.parallel.automatic import Hardware, accelerator, choose
from chatsmith.train.recipe import Recipe


def asked(name: str, rows: int = 64, **batch: int) -> Recipe:
    """A recipe for a preset that leaves the layout open."""
    mapping = {
        "data": {"sources": [{"path": "world"}], "held_out": 0.01},
        "model": {"preset": name},
        "batch": {"micro_batch": rows, **batch},
        "schedule": {"steps": 10},
        "parallel": {"layout": "auto"},
    }
    return from_mapping(Recipe, mapping, "made")


def chosen(name: str, hardware: Hardware, rows: int = 64, **batch: int) -> tuple[Recipe, str]:
    return choose(asked(name, rows, **batch), preset(name), hardware, torch.bfloat16)


def test_processors_hold_replicas_while_they_fit() -> None:
    recipe, said = chosen("gpt2-124m", Hardware(4, 4, 64e9), rows=2, accumulation=8)
    assert (recipe.parallel.layout, recipe.parallel.replicate, recipe.parallel.shard) == ("given", 4, 1)
    assert recipe.batch == asked("gpt2-124m", 2, accumulation=8).batch
    assert said.startswith("layout: replicate 4 (it takes about ")


def test_memory_makes_processors_divide_the_model() -> None:
    """With less and less memory: replicas, sharded, recomputed, and said where that may not be enough, either."""
    seen = []
    for gigabytes in (64.0, 1.35, 1.0, 0.5):
        recipe, said = chosen("gpt2-124m", Hardware(4, 4, gigabytes * 1e9), rows=4)
        seen.append((recipe.parallel.shard, recipe.precision.activation_checkpointing, "may not be enough" in said))
    assert seen == [(1, False, False), (4, False, False), (4, True, False), (4, True, True)]


@pytest.mark.parametrize("rows", [64, 512])
def test_the_planner_divides_over_accelerators_that_it_knows(rows: int) -> None:
    small, said = chosen("gpt2-124m", Hardware(8, 8, 80e9, "NVIDIA H100 80GB HBM3"), rows)
    assert small.batch.rows == rows
    assert small.parallel.replicate * small.parallel.shard == 8
    assert "the planner's for 8 × H100" in said
    large, _ = chosen("gpt3-13b", Hardware(8, 8, 80e9, "NVIDIA H100 80GB HBM3"), rows)
    parallel = large.parallel
    assert parallel.shard * parallel.tensor * parallel.pipeline * parallel.context > 1
    assert large.batch.rows == rows
    with pytest.raises(RequestError, match="do not fit"):
        chosen("gpt3-175b", Hardware(8, 8, 80e9, "NVIDIA H100 80GB HBM3"), rows)


def test_an_accelerator_that_nobody_knows_is_divided_by_memory() -> None:
    whole, _ = chosen("gpt2-124m", Hardware(8, 8, 80e9, "Acme 9000"), rows=8)
    assert (whole.parallel.replicate, whole.parallel.shard) == (8, 1)
    divided, _ = chosen("gpt3-6.7b", Hardware(8, 8, 24e9, "Acme 9000"), rows=1)
    assert divided.parallel.shard == 8


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("Tesla V100-SXM2-16GB", "V100-SXM2-16GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Acme 9000", None),
    ],
)
def test_drivers_names_are_found_in_the_catalogue(driver: str, name: str | None) -> None:
    found = accelerator(driver)
    assert (found is None) if name is None else (found is not None and found.name.startswith(name))


def test_numbers_beside_auto_are_refused() -> None:
    with pytest.raises(RequestError, match=r"parallel\.layout is auto, and parallel\.shard is 2"):
        from_mapping(
            Recipe,
            {
                "data": {"sources": [{"path": "world"}]},
                "schedule": {"steps": 1},
                "parallel": {"layout": "auto", "shard": 2},
            },
            "made",
        )
