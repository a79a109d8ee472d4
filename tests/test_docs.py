"""The pages name what there is."""

import ast
import re
from pathlib import Path

import hooks
import pytest

from epe_nas_jax import __version__
from epe_nas_jax.configs import base
from epe_nas_jax.proxies.table import PROXIES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


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


def test_every_config_key_has_a_meaning_and_there_are_no_others():
    config = base.get_config()
    keys = {
        f"{section}.{key}" if hasattr(values, "keys") else section
        for section, values in config.items()
        for key in (values if hasattr(values, "keys") else [None])
    }
    found = {name: meaning for name, _, meaning in hooks.config_keys()}
    assert set(found) == keys
    assert [name for name, meaning in found.items() if not meaning.endswith(".")] == []


@pytest.mark.parametrize("name", hooks.TABLES)
def test_every_table_of_the_site_is_on_a_page(name):
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))
    assert f"<!-- table: {name} -->" in pages
    assert hooks.TABLES[name]().count("\n") > 1


def test_every_public_name_is_in_the_reference_with_an_example():
    reference = hooks.documented(ROOT / "docs" / "reference")
    assert hooks.faults(reference, hooks.public_names()) == []


def test_a_public_name_without_an_entry_or_an_example_is_found():
    reference = hooks.documented(ROOT / "docs" / "reference")
    used = hooks.public_names()
    assert hooks.faults(reference - {"epe_nas_jax.score_table"}, used) == [
        "epe_nas_jax.score_table: public, but no page of docs/reference has it"
    ]
    without = {"epe_nas_jax.arrays.in_float32", "epe_nas_jax.scoring.columns.LIMITS"}
    assert hooks.faults({*reference, *without}, used) == [
        "epe_nas_jax.arrays.in_float32: found no example in its docstring",
        "epe_nas_jax.scoring.columns.LIMITS: found no docstring under it",
    ]


def test_the_release_has_one_version():
    changes = (ROOT / "CHANGELOG.md").read_text()
    version, date = re.findall(r"^## (\S+) \((\S+)\)", changes, re.MULTILINE)[0]
    assert version == __version__
    assert f"version: {version}\ndate-released: {date}\n" in (ROOT / "CITATION.cff").read_text()
