"""Every `epe-nas` command on a page names a config, keys and flags that there are.

They are not run: they need data that only their readers have. `test_readme.py`,
`test_your_own_images.py` and the tests of the commands run them at a smaller size.
"""

import ast
import functools
import importlib
import operator
import re
import shlex
from pathlib import Path

import pytest
from command_line import epe_nas

from epe_nas_jax.commands.config import check_config
from epe_nas_jax.commands.table import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "docs").rglob("*.py"),
    *(ROOT / "configs").glob("*.py"),
]


def commands():
    """The arguments of each command of each page, with a name for it."""
    found = []
    for page in sorted(PAGES):
        text = page.read_text()
        if page.suffix == ".py":
            text = re.sub(r"^(# ?|Command: +)", "", text, flags=re.MULTILINE)
        text = text.replace("\\\n", " ")
        lines = [line for line in text.splitlines() if re.match(r"epe-nas [a-z]+ -", line)]
        # A form such as --config=... is no command.
        lines = [line for line in lines if "..." not in line]
        found += [
            pytest.param(shlex.split(line)[1:], id=f"{page.stem}-{number}")
            for number, line in enumerate(lines)
        ]
    return found


@functools.cache
def flags_of(name):
    """The names of the flags that a command takes."""
    listed = epe_nas(name, "--help").stdout
    return set(re.findall(r"^ +--(?:\[no\])?(\w+):", listed, re.MULTILINE))


@pytest.mark.parametrize("arguments", commands())
def test_the_command_can_be_used(arguments):
    name, *given = arguments
    assert name in COMMANDS
    names = {argument.split("=")[0].removeprefix("--") for argument in given}
    assert {flag for flag in names if not flag.startswith("config.")} <= flags_of(name)
    of_config = [argument for argument in given if argument.startswith("--config")]
    if of_config:
        config = check_config(config_of(of_config))
        assert config.data.name
        assert bool(config.benchmark.column) or not config.benchmark.path


def config_of(arguments):
    """The config that these flags make."""
    (name,) = [flag.partition("=")[2] for flag in arguments if flag.startswith("--config=")]
    config = importlib.import_module(f"epe_nas_jax.configs.{name}").get_config()
    for flag in arguments:
        if flag.startswith("--config."):
            key, _, value = flag.removeprefix("--config.").partition("=")
            operator.attrgetter(key)(config)
            config.update_from_flattened_dict({key: value_of(value)})
    return config


def value_of(text):
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def test_a_wrong_name_is_found():
    with pytest.raises(AttributeError, match="samples"):
        config_of(["--config=fast", "--config.search.samples=3"])
    with pytest.raises(TypeError, match="num_samples"):
        config_of(["--config=fast", "--config.search.num_samples=many"])
    assert "workdir" in flags_of("search")
    assert "from_run" not in flags_of("search")
    assert len(commands()) > 20
