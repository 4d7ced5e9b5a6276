"""Compile the kernels of generation while the package is built, for every instruction set that the compiler knows.

A failure never fails the build: what could not be compiled now is compiled on first use, or the torch backend serves.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelHook(BuildHookInterface[Any]):
    """Adds kernels/infer/built/*.so to the wheel, which then is for this kind of machine and any Python 3."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        sys.path.insert(0, str(Path(self.root) / "src"))
        from chatsmith.kernels.infer import build
        from chatsmith.kernels.loading import find_compiler

        compiler = find_compiler()
        if compiler is None:
            self.app.display_warning("no C compiler: the kernels of generation will be compiled on first use")
            return
        made: list[Path] = []
        for variant in build.variants():
            try:
                made.append(build.compile_variant(compiler, variant, Path(self.directory) / "kernels"))
            except (OSError, subprocess.SubprocessError) as error:
                text = (str(getattr(error, "stderr", None) or error).strip().splitlines() or [""])[0]
                self.app.display_warning(f"the kernels for {variant.name} were not compiled: {text}")
        build_data["force_include"] |= {str(path): f"chatsmith/kernels/infer/built/{path.name}" for path in made}
        if made:
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
