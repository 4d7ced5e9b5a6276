"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "chatsmith"
MODULES = sorted(SOURCE.rglob("*.py"))

# Rooms and modules that are used where torch would cost seconds, or may be missing.
TORCH_FREE = ("errors", "paths", "specs", "settings", "machine", "text", "plan", "cli", "train.recipe")


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_no_module_outgrows_one_idea() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > 500} == {}


def test_torch_free_rooms_stay_so() -> None:
    code = (
        "import importlib, json, pkgutil, sys\n"
        f"names = {TORCH_FREE!r}\n"
        "for name in names:\n"
        "    module = importlib.import_module('chatsmith.' + name)\n"
        "    for found in pkgutil.walk_packages(getattr(module, '__path__', []), module.__name__ + '.'):\n"
        "        importlib.import_module(found.name)\n"
        "        assert 'torch' not in sys.modules, found.name\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_chatsmith_is_quick_and_loads_no_torch() -> None:
    code = "import sys, json, chatsmith; print(json.dumps([n in sys.modules for n in ('torch', 'rich', 'numpy')]))"
    assert json.loads(subprocess.check_output([sys.executable, "-c", code])) == [False, False, False]


def test_nothing_is_unpickled_or_executed() -> None:
    """No pickle, no eval, no exec, no torch.load: nothing that reads a file can run what is in it."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                if {"pickle", "marshal", "shelve", "dill"} & set(names):
                    found.append(f"{path.name}:{node.lineno} imports {names[0]}")
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in ("eval", "exec", "torch.load", "__import__") or called.endswith(".read_pickle"):
                    found.append(f"{path.name}:{node.lineno} calls {called}")
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    trees = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in MODULES}
    assert [name for name, tree in trees.items() if tree.body and ast.get_docstring(tree) is None] == []


def test_what_is_public_is_documented() -> None:
    """Classes and functions with a public name say what they do; a function of one statement may speak for itself."""
    silent = []
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            plain = isinstance(node, ast.FunctionDef) and len(node.body) == 1
            if ast.get_docstring(node) is None and not plain and not _is_overload(node):
                silent.append(f"{name_of(path)}.{node.name}")
    assert silent == []


def test_help_is_worth_reading() -> None:
    """Everything `import chatsmith` offers has a docstring, and so has every public method of what it gives back."""
    package = importlib.import_module("chatsmith")
    offered = {name: getattr(package, name) for name in package.__all__}
    classes = {name: item for name, item in offered.items() if inspect.isclass(item)}
    members = {
        f"{name}.{method}": member
        for name, item in classes.items()
        for method, member in vars(item).items()
        if not method.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    }
    documented = {name: item for name, item in offered.items() if callable(item) or inspect.ismodule(item)} | members
    assert [name for name, item in documented.items() if not inspect.getdoc(item)] == []


def _is_overload(node: ast.AST) -> bool:
    return any(ast.unparse(decorator).endswith("overload") for decorator in getattr(node, "decorator_list", []))


def test_every_module_can_be_imported() -> None:
    package = importlib.import_module("chatsmith")
    for found in pkgutil.walk_packages(package.__path__, "chatsmith."):
        if found.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as missing:
            # Triton comes with PyTorch for CUDA only; the kernels that need it are behind a door.
            if missing.name != "triton":
                raise


@pytest.mark.parametrize("page", ["commands.md", "recipe.md", "models.md", "sampling.md"])
def test_the_reference_is_what_the_code_says(page: str) -> None:
    """When this fails on purpose, write it again: `make reference`."""
    tool = runpy.run_path(str(ROOT / "tools" / "reference.py"))
    name = f"docs/reference/{page}"
    assert (ROOT / name).read_text(encoding="utf-8") == tool["PAGES"][name]()
