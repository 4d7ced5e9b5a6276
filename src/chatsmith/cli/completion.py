"""`chatsmith completion`"""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="The shell to complete in.")], /
) -> None:
    """Print the completion script of your shell.

    For bash, add `eval "$(chatsmith completion bash)"` to ~/.bashrc. For zsh, write the script to a file called
    _chatsmith in a folder of $fpath. For fish, write it to ~/.config/fish/completions/chatsmith.fish.
    """
    from chatsmith.cli.app import build

    sys.stdout.write(build().generate_completion(shell=shell))
