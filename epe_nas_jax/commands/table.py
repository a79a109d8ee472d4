"""The table of commands: to add one is its module, with a `main`, and an entry here.

`epe-nas search ...` does what `python -m epe_nas_jax.main ...` does. A command is imported when it
starts: it can then answer to signals before it imports JAX, which takes seconds.
"""

import importlib
import sys
from typing import NamedTuple, NoReturn

from epe_nas_jax._version import __version__
from epe_nas_jax.runs.stopping import end_when_asked


class Command(NamedTuple):
    """One command.

    Attributes:
      module: where its `main` is.
      meaning: what it does, in a few words.
    """

    module: str
    meaning: str


COMMANDS = {
    "search": Command("epe_nas_jax.commands.search", "search for the best untrained cell"),
    "train": Command("epe_nas_jax.commands.train", "train a cell's network"),
    "predict": Command("epe_nas_jax.commands.predict", "predict the classes of a folder's images"),
    "export": Command("epe_nas_jax.commands.export", "write a trained network for other programs"),
    "rank": Command("epe_nas_jax.commands.rank", "rank networks of any framework"),
    "compare": Command("epe_nas_jax.commands.compare", "compare cells with PyTorch"),
    "tables": Command("epe_nas_jax.commands.tables", "make the paper's tables of scored cells"),
}


def start(name: str) -> None:
    """Runs a command of the table with the flags in `sys.argv`."""
    end_when_asked()
    try:
        module = importlib.import_module(COMMANDS[name].module)
    except ValueError as error:
        # JAX reads its environment variables when it is imported.
        _fail(str(error))
    module.main()


def main() -> None:
    """Runs the command that the first argument names: what `epe-nas` does."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        print(_usage())
    elif name == "--version":
        print(f"epe-nas {__version__}")
    elif name in COMMANDS:
        sys.argv = [f"epe-nas {name}", *sys.argv[2:]]
        start(name)
    else:
        known = ", ".join(COMMANDS)
        _fail(f"command {name!a}: unknown, expected one of {known}")


def _fail(message: str) -> NoReturn:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


def _usage() -> str:
    lines = [f"  {name:<10}{command.meaning}" for name, command in COMMANDS.items()]
    return "\n".join(["epe-nas COMMAND --help says more of each:", "", *lines])
