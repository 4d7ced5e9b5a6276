"""`import chatsmith` is light, and says what there is."""

from __future__ import annotations

import pydoc
import subprocess
import sys

import pytest

import chatsmith
from patience import PATIENCE


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy() -> None:
    heavy = ["torch", "numpy", "rich", "jinja2", "transformers", "tokenizers", "tiktoken", "cyclopts"]
    code = f"import sys, chatsmith; chatsmith.ModelSpec; print([name for name in {heavy} if name in sys.modules])"
    assert run(code) == "[]\n"


def test_sampling_and_specs_need_no_torch() -> None:
    code = "import sys, chatsmith as c; c.Sampling(), c.preset('gpt2-124m'); print('torch' in sys.modules)"
    assert run(code) == "False\n"


def test_every_public_name_is_there() -> None:
    for name in chatsmith.__all__:
        assert getattr(chatsmith, name) is not None
    assert sorted(dir(chatsmith)) == sorted(chatsmith.__all__)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = chatsmith.lod


def test_new_is_the_function() -> None:
    assert run("import chatsmith; print(chatsmith.new.__name__, chatsmith.new.__module__)") == "new chatsmith.create\n"


def test_plan_is_the_function_and_the_room() -> None:
    """Whichever is used first, and whatever loads the room before."""
    called = "chatsmith.plan('gpt2-124m').parameters"
    for before in ("", "from chatsmith.plan import budget;", "import chatsmith.plan.budget;", "chatsmith.create;"):
        loaded = "import importlib; importlib.import_module('chatsmith.create');" if "create" in before else before
        shown = run(f"import chatsmith; {loaded} print({called}); import chatsmith.plan.prices as p; print(p.__name__)")
        assert shown == "124439808\nchatsmith.plan.prices\n"
    assert run(f"import sys, chatsmith; {called}; print('torch' in sys.modules)") == "False\n"
    assert "chatsmith.plan(" in pydoc.render_doc(chatsmith.plan, renderer=pydoc.plaintext)


def test_waiting_threads_sleep_soon_unless_told_otherwise() -> None:
    shown = "import os, chatsmith; print(os.environ.get('GOMP_SPINCOUNT'))"
    assert run(shown) == "1000\n"
    assert run(f"import os; os.environ['GOMP_SPINCOUNT'] = '7'; {shown}") == "7\n"


def test_help_shows_how_to_begin() -> None:
    text = pydoc.render_doc(chatsmith, renderer=pydoc.plaintext)
    assert 'model = chatsmith.load("my-model")' in text
    assert "class LanguageModel" in text
