"""TOML from outside: what is wrong with it is said in one line, however it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatsmith.errors import RequestError
from chatsmith.settings import apply_overrides, from_mapping, load_toml
from chatsmith.specs import RopeScaling
from chatsmith.store.hf import config_to_spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = ", "is not valid TOML"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = " + "[" * 5000 + "]" * 5000, "is not valid TOML"),
        ("a" + ".a" * 5000 + " = 1", "more than 64 deep"),
        ("a = " + "[" * 80 + "]" * 80, "more than 64 deep"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RequestError, match=said):
        load_toml(path)


def test_as_deep_as_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("a = " + "[" * 60 + "]" * 60)
    assert load_toml(path)["a"]


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000 + "]" * 5000])
def test_an_override_that_is_no_toml_is_a_text(value: str) -> None:
    assert apply_overrides({}, [f"name={value}"]) == {"name": value}


def test_a_number_beyond_all_floats_is_refused() -> None:
    with pytest.raises(RequestError, match="factor must be a finite number"):
        from_mapping(RopeScaling, {"kind": "linear", "factor": 10**400}, "here")
    with pytest.raises(RequestError, match="layer_norm_epsilon must be a number"):
        config_to_spec({"model_type": "gpt2", "layer_norm_epsilon": 10**400})
