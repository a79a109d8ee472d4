"""The table of commands, and `epe-nas`, which starts one."""

import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest

from epe_nas_jax import __version__
from epe_nas_jax.commands import table

EPE_NAS = "from epe_nas_jax.commands.table import main; main()"


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["epe-nas", *arguments])
    table.main()


@pytest.mark.parametrize("name", table.COMMANDS)
def test_every_command_is_a_module_with_a_main(name):
    command = table.COMMANDS[name]
    assert callable(importlib.import_module(command.module).main)
    assert command.meaning


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_without_a_command_all_are_listed(monkeypatch, capsys, arguments):
    run_main(monkeypatch, *arguments)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    for name, command in table.COMMANDS.items():
        assert f"  {name:<10}{command.meaning}" in lines
    assert len(lines) == 2 + len(table.COMMANDS)
    assert printed.err == ""


def test_the_version_is_that_of_the_package(monkeypatch, capsys):
    run_main(monkeypatch, "--version")
    assert capsys.readouterr().out == f"epe-nas {__version__}\n"


@pytest.mark.parametrize("name", ["sarch", "--config=best", "\x1b]0;owned\x07", "two\nlines"])
def test_an_unknown_command_is_one_line_and_exits_with_2(monkeypatch, capsys, name):
    with pytest.raises(SystemExit) as exit_:
        run_main(monkeypatch, name, "--workdir=w")
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"error: command {name!a}: unknown, expected one of search, train, predict, export, "
        "rank, compare, tables\n"
    )
    assert printed.err[:-1].isprintable()


def test_a_command_gets_the_flags_behind_its_name(monkeypatch):
    seen = []
    module = SimpleNamespace(main=lambda: seen.append(list(sys.argv)))
    monkeypatch.setattr(table, "end_when_asked", lambda: seen.append("signals"))
    monkeypatch.setattr(
        table.importlib, "import_module", {table.COMMANDS["train"].module: module}.get
    )
    run_main(monkeypatch, "train", "--config=best", "--workdir=w")
    # It answers to signals before it imports anything.
    assert seen == ["signals", ["epe-nas train", "--config=best", "--workdir=w"]]


def test_no_command_is_imported_before_it_starts():
    script = f"import sys; sys.argv[1:] = ['--help']; {EPE_NAS}; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
