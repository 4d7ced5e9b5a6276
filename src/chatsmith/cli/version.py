"""`chatsmith version`"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter


def version(*, json: Annotated[bool, Parameter(help="Print JSON.")] = False) -> None:
    """Print the versions of chatsmith, Python and the libraries that a result depends on."""
    from chatsmith.cli.console import print_json
    from chatsmith.machine import versions

    found = versions()
    if json:
        print_json(found)
        return
    first = ("chatsmith", "python")
    for name in (*first, *(name for name in found if name not in first)):
        print(f"{name} {found.get(name, 'not installed as a package')}")
