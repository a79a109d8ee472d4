"""The import directions of the design: a functional core, a thin shell, nothing sideways."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "epe_nas_jax"

# What each module may import of the package. The shell stands below the line.
ALLOWED = {
    "_version": set(),
    "errors": set(),
    "genotype": {"errors"},
    "convolution": set(),
    "ops": {"convolution"},
    "probes": set(),
    "network": {"convolution", "errors", "genotype", "ops", "probes"},
    "convert": {"errors", "genotype"},
    "counts": {"genotype"},
    "darts": {"errors", "genotype"},
    "darts_ops": {"convolution", "ops"},
    "darts_network": {"convolution", "darts", "darts_ops", "errors", "network", "ops", "probes"},
    "jacobian": set(),
    "score": {"errors", "jacobian"},
    "proxies": {"errors", "jacobian", "probes", "score"},
    "minibatch": {"errors", "network"},
    "networks": {"errors", "jacobian", "minibatch", "score"},
    "ranking": set(),
    "search": {"errors", "genotype", "ranking"},
    "simulation": set(),
    "space": {"score"},
    "planning": {"errors", "space"},
    "training": {"errors", "minibatch", "network"},
    "batching": {"errors", "minibatch", "network", "planning", "progress", "proxies", "space"},
    # ---
    "archives": {"errors"},
    "folders": {"errors"},
    "download": {"errors"},
    "data": {"archives", "download", "errors", "folders", "minibatch"},
    "benchmark": {"errors", "genotype"},
    "pytorch": {"convert", "errors", "genotype"},
    "comparison": {"convert", "genotype", "jacobian", "network", "pytorch", "ranking"},
    "scored": {"errors", "genotype"},
    "evaluation": {"ranking", "scored", "simulation"},
    "plots": set(),
    "report": set(),
    "page": {"genotype", "plots"},
    "storage": {"errors"},
    "workdir": {"_version", "errors", "storage"},
    "score_log": {"batching", "errors", "hosts", "planning", "storage", "workdir"},
    "stopping": set(),
    "hosts": {"errors", "stopping"},
    "progress": set(),
    "run": {
        "batching",
        "benchmark",
        "counts",
        "data",
        "errors",
        "genotype",
        "hosts",
        "network",
        "page",
        "progress",
        "proxies",
        "ranking",
        "report",
        "score_log",
        "search",
        "stopping",
        "storage",
        "workdir",
    },
    "side_by_side": {
        "batching",
        "comparison",
        "convert",
        "data",
        "errors",
        "genotype",
        "network",
        "plots",
        "pytorch",
        "report",
        "run",
        "score",
        "stopping",
        "storage",
        "workdir",
    },
    "training_page": {"page", "plots"},
    "training_run": {
        "benchmark",
        "data",
        "errors",
        "genotype",
        "report",
        "run",
        "stopping",
        "storage",
        "training",
        "training_page",
        "workdir",
    },
    "runtime": set(),
    "cli": {"errors", "hosts", "runtime", "stopping"},
    "main": {"cli", "run", "stopping"},
    "compare": {"cli", "side_by_side", "stopping"},
    "train": {"cli", "stopping", "training_run"},
    "tables": {
        "benchmark",
        "cli",
        "errors",
        "evaluation",
        "plots",
        "report",
        "scored",
        "storage",
    },
}
CORE = (
    "genotype",
    "ops",
    "network",
    "convert",
    "counts",
    "darts",
    "darts_ops",
    "darts_network",
    "jacobian",
    "score",
    "proxies",
    "minibatch",
    "networks",
    "ranking",
    "search",
    "training",
    "simulation",
    "space",
)
SHELL_ONLY = {"absl", "ml_collections", "pathlib", "os", "time", "tqdm", "pandas", "logging"}


def imported(module):
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module
            names |= {f"{base}.{alias.name}" for alias in node.names} | {base}
    return names


def test_every_module_is_listed():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(ALLOWED)


@pytest.mark.parametrize("module", ALLOWED)
def test_module_imports_what_it_may(module):
    own = {
        name.split(".")[1]
        for name in imported(module)
        if name.startswith("epe_nas_jax.") and (PACKAGE / f"{name.split('.')[1]}.py").exists()
    }
    assert own <= ALLOWED[module]


@pytest.mark.parametrize("module", CORE)
def test_core_knows_no_files_flags_or_clocks(module):
    assert not {name.split(".")[0] for name in imported(module)} & SHELL_ONLY


def test_config_dict_ends_at_the_edge():
    for module in set(ALLOWED) - {"run", "side_by_side", "training_run", "cli"}:
        assert not any(name.startswith("ml_collections") for name in imported(module)), module


def test_what_is_public_is_imported_when_it_is_used():
    code = (
        "import sys, epe_nas_jax;"
        "assert 'jax' not in sys.modules;"
        "from epe_nas_jax import *;"
        "assert all(name in globals() for name in epe_nas_jax.__all__);"
        "assert score_cells is sys.modules['epe_nas_jax.batching'].score_cells"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pytorch_is_imported_only_when_it_is_needed():
    code = (
        "import sys, epe_nas_jax.pytorch, epe_nas_jax.convert;"
        "assert not {'torch', 'xautodl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nats_bench_is_imported_only_when_it_is_needed():
    code = "import sys, epe_nas_jax.benchmark; assert 'nats_bench' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_does_no_work():
    code = (
        "import jax, epe_nas_jax, jax._src.xla_bridge as bridge;"
        "assert not bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
