"""The pages name what there is."""

import ast
import re
from pathlib import Path

import pytest

from epe_nas_jax.configs import base
from epe_nas_jax.data.table import DATASETS
from epe_nas_jax.proxies.table import PROXIES
from epe_nas_jax.scoring.columns import COLUMNS
from epe_nas_jax.spaces.table import SPACES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_and_test_that_a_page_names_exists(page):
    text = re.sub(r"```diff.*?```", "", page.read_text(), flags=re.DOTALL)
    for path in re.findall(r"\b(?:tests|results|configs|launch|examples)/[\w/]+\.[\w.]*\w", text):
        assert (ROOT / path).exists(), path
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        body = ast.parse((ROOT / path).read_text()).body
        assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}, name
    for folder, name in re.findall(r"python -m (benchmarks|experiments)\.(\w+)", text):
        assert name == "NAME" or (ROOT / folder / f"{name}.py").exists(), name


def test_every_proxy_is_explained():
    page = (ROOT / "docs" / "ranking.md").read_text()
    rows = "\n".join(line for line in page.splitlines() if line.startswith("| `"))
    for name in PROXIES:
        assert f"`{name}`" in rows, name


def test_every_column_data_set_and_space_is_in_the_readme():
    for name in (*COLUMNS, *DATASETS, *SPACES):
        assert f"`{name}`" in README, name


def test_every_config_key_is_in_the_readme_and_no_other():
    table = README.split("## Config keys")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {key for row in rows for key in re.findall(r"`([\w.*]+)`", row)}
    config = base.get_config()
    keys = {
        f"{section}.{key}" if hasattr(values, "keys") else section
        for section, values in config.items()
        for key in (values if hasattr(values, "keys") else [None])
    }
    assert {key for key in named if not key.endswith("*")} <= keys
    sections = {key.removesuffix("*") for key in named if key.endswith("*")}
    missing = {key for key in keys - named if not key.startswith(tuple(sections))}
    assert not missing
