"""Draw the picture of the README from what commands print: `python tools/pictures.py LOG OUT.svg`.

LOG is text as the terminal showed it; lines that begin with "$ " are set as commands.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main() -> None:
    """Read the log, write the SVG."""
    log, out = Path(sys.argv[1]), Path(sys.argv[2])
    console = Console(record=True, width=104, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in log.read_text(encoding="utf-8").splitlines():
        style = "bold cyan" if line.startswith("$ ") else "bold" if line.startswith("> ") else ""
        console.print(Text(line, style=style), soft_wrap=False)
    out.write_text(console.export_svg(title="chatsmith"), encoding="utf-8")


if __name__ == "__main__":
    main()
