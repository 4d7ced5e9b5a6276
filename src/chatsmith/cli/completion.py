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
    _chatsmith in a folder of $fpath, or add the same with zsh to ~/.zshrc, after compinit. For fish, write it to
    ~/.config/fish/completions/chatsmith.fish.
    """
    from chatsmith.cli.app import build

    script = build().generate_completion(shell=shell)
    if shell == "zsh":
        script = script.replace("_cyclopts_chatsmith", "_chatsmith") + _ZSH_ENDING
    elif shell == "fish":
        script += _FISH_ENDING
    sys.stdout.write(script)


# The parser's script only defines a function. zsh runs the file when it first completes, under the name of the file,
# and the function must be called then; a shell that evaluates the script must be told what it is for.
_ZSH_ENDING = """
if [[ $funcstack[1] == _chatsmith ]]; then
  _chatsmith "$@"
else
  compdef _chatsmith chatsmith
fi
"""
_FISH_ENDING = "complete -c chatsmith -n __fish_use_subcommand -f\n"  # no file is a command
