"""What callers give: right values come through, wrong kinds and sizes are refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chatsmith import arguments
from chatsmith.errors import RequestError


def test_what_is_right_comes_through() -> None:
    assert arguments.whole("n", np.int32(3), 0, 3) == 3
    assert type(arguments.whole("n", np.int64(3), 0, 3)) is int
    assert arguments.number("x", np.float32(0.5), 0, 1) == 0.5
    assert arguments.path("out", "a/b") == Path("a/b")
    assert arguments.several("texts", (text for text in "ab"), "texts") == ("a", "b")


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: arguments.whole("n", 2.0, 0, 3), "n must be a whole number, not 2.0"),
        (lambda: arguments.whole("n", True, 0, 3), "n must be a whole number, not True"),
        (lambda: arguments.whole("n", -1, 0, 2**63 - 1), "n must be from 0 to 9223372036854775807, not -1"),
        (lambda: arguments.number("x", "5", 0, 1), "x must be a number, not '5'"),
        (lambda: arguments.number("x", float("nan"), 0, 1), "x must be a number, not nan"),
        (lambda: arguments.number("x", 0, 0, 1, above=True), "x must be above 0 and at most 1, not 0"),
        (lambda: arguments.number("x", 10**400, 0, 1), "x must be a number"),
        (lambda: arguments.text("text", b"x"), "text must be a text, not b'x'"),
        (lambda: arguments.path("out", None), "out must be a path, not None"),
        (lambda: arguments.path("out", b"x"), "out must be a path, not b'x'"),
        (lambda: arguments.several("texts", "abc", "texts"), "texts must be a list of texts, not 'abc'"),
        (lambda: arguments.several("texts", 5, "texts"), "texts must be a list of texts, not 5"),
    ],
)
def test_what_is_wrong_is_one_line(check: Callable[[], Any], said: str) -> None:
    with pytest.raises(RequestError) as error:
        check()
    assert error.value.message.startswith(said)


def test_what_is_long_is_shortened() -> None:
    assert len(arguments.short("x" * 1000)) == 60
