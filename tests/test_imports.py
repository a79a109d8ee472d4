"""The import directions of the design: a functional core, a thin shell, nothing sideways."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import epe_nas_jax

PACKAGE = Path(epe_nas_jax.__file__).parent

# What each room may import of the others; the modules beside the rooms are everybody's.
ROOMS = {
    "spaces": set(),
    "proxies": {"spaces"},
    "data": {"spaces"},
    "search": {"data", "spaces"},
    "scoring": {"data", "proxies", "search", "spaces"},
    "networks": {"proxies", "search", "spaces"},
    "runs": {"data", "scoring"},
    "training": {"data", "runs", "spaces"},
    "exports": {"pytorch", "spaces", "training"},
    "pytorch": {"data", "proxies", "scoring", "search", "spaces"},
    "reports": {"spaces"},
    "commands": {
        *("data", "exports", "networks", "proxies", "pytorch", "reports", "runs"),
        *("scoring", "search", "spaces", "training"),
    },
}
TOP = {
    "__init__",
    "_version",
    "arrays",
    "compare",
    "errors",
    "main",
    "memory",
    "seeds",
    "tables",
    "train",
}
# Within `spaces` every folder is a room of its own.
SPACES = {
    "base": set(),
    "paths": {"base"},
    "layers": set(),
    "nasbench201": {"base", "four_nodes", "layers", "product"},
    "darts": {"base", "layers"},
    "nasbench301": {"base", "darts"},
    "nasbench101": {"base", "layers"},
    "product": {"base"},
    "four_nodes": {"base"},
    "transnas_micro": {"base", "four_nodes", "layers", "product"},
    "nats_sss": {"base", "layers", "product"},
    "table": {
        "base",
        "darts",
        "nasbench101",
        "nasbench201",
        "nasbench301",
        "nats_sss",
        "transnas_micro",
    },
}
# Pure functions over arrays and keys, but for the modules named.
CORE = {
    "spaces": set(),
    "proxies": set(),
    "search": set(),
    "scoring": {"progress", "score_table"},
    "training": {"loop", "trained"},
}
SHELL_ONLY = {"absl", "ml_collections", "pathlib", "os", "time", "tqdm", "pandas", "logging"}


def modules_of(room):
    return sorted((PACKAGE / room).rglob("*.py"))


def imported(path):
    """Dotted names that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def own_parts(path, depth):
    """Of the package's own modules that a file imports, the part of the name at a depth."""
    parts = [name.split(".") for name in imported(path) if name.startswith("epe_nas_jax.")]
    return {name[depth] for name in parts if len(name) > depth}


def test_every_room_is_listed():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders - {"configs"} == set(ROOMS)
    assert {path.stem for path in PACKAGE.glob("*.py")} == TOP
    spaces = {path.stem for path in (PACKAGE / "spaces").iterdir()} - {"__init__", "__pycache__"}
    assert spaces == set(SPACES)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may(room):
    allowed = ROOMS[room] | {room, "arrays", "errors", "memory", "seeds", "_version"}
    for path in modules_of(room):
        assert own_parts(path, 1) <= allowed, path


@pytest.mark.parametrize("room", SPACES)
def test_a_space_imports_no_other_space(room):
    folder = PACKAGE / "spaces" / room
    paths = folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    for path in paths:
        parts = [name.split(".") for name in imported(path)]
        found = {name[2] for name in parts if name[:2] == ["epe_nas_jax", "spaces"] and name[2:]}
        assert found <= SPACES[room] | {room}, path


def test_no_command_knows_a_particular_space():
    for path in [*modules_of("commands"), *modules_of("reports"), *modules_of("runs")]:
        spaces = {name for name in imported(path) if name.startswith("epe_nas_jax.spaces.")}
        assert {name.split(".")[2] for name in spaces} <= {"base", "table"}, path


def test_no_command_imports_the_readers_of_another():
    shared = {"cli", "config", "latency", "refining", "settings", "summary", "table"}
    for path in modules_of("commands"):
        names = {name for name in imported(path) if name.startswith("epe_nas_jax.commands.")}
        assert {name.split(".")[2] for name in names} <= shared, path


@pytest.mark.parametrize("room", CORE)
def test_core_knows_no_files_flags_or_clocks(room):
    for path in modules_of(room):
        if path.stem not in CORE[room]:
            assert not {name.split(".")[0] for name in imported(path)} & SHELL_ONLY, path


def test_config_dict_ends_in_commands():
    for room in set(ROOMS) - {"commands"}:
        for path in modules_of(room):
            assert not any(name.startswith("ml_collections") for name in imported(path)), path


def test_every_shape_is_written_in_the_letters_of_the_legend():
    legend = set(re.findall(r"^\* ([A-Z])(?:, ([A-Z]))? ", epe_nas_jax.__doc__, re.MULTILINE))
    letters = {letter for found in legend for letter in found if letter}
    assert {"A", "E", "H", "N", "W"} <= letters
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        kinds = ast.Module | ast.ClassDef | ast.FunctionDef
        for node in ast.walk(tree):
            doc = ast.get_docstring(node) if isinstance(node, kinds) else None
            for shape in re.findall(r"\[([A-Z][^\]`]*)\]", doc or ""):
                used = set(re.findall(r"\b[A-Z]\b", shape))
                assert used <= letters, f"{path}: [{shape}]"


def test_what_is_public_is_imported_when_it_is_used():
    code = (
        "import sys, epe_nas_jax;"
        "assert 'jax' not in sys.modules;"
        "from epe_nas_jax import *;"
        "assert all(name in globals() for name in epe_nas_jax.__all__);"
        "assert score_cells is sys.modules['epe_nas_jax.scoring.scorer'].score_cells"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_hears_signals_before_it_imports_jax():
    code = "import sys, epe_nas_jax.commands.table; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pytorch_is_imported_only_when_it_is_needed():
    code = (
        "import sys, epe_nas_jax.pytorch.network, epe_nas_jax.pytorch.weights;"
        "assert not {'torch', 'xautodl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_framework_is_imported_only_for_a_network_of_it():
    code = (
        "import sys, epe_nas_jax; epe_nas_jax.rank_networks;"
        "assert not {'torch', 'equinox'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nats_bench_is_imported_only_when_it_is_needed():
    code = "import sys, epe_nas_jax.data.accuracies; assert 'nats_bench' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_does_no_work():
    code = (
        "import jax, jax._src.xla_bridge as bridge, pkgutil, importlib, epe_nas_jax;"
        "names = [m.name for m in pkgutil.walk_packages(epe_nas_jax.__path__, 'epe_nas_jax.')];"
        "assert len(names) > 50;"
        "[importlib.import_module(name) for name in names];"
        "assert not bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
