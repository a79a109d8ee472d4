"""What the site is made of beside its pages: the README, tables of the package, and two checks.

MkDocs calls the functions that begin with `on_`. A page has `<!-- table: NAME -->` in place of a
table of `TABLES`. What the checks find ends the build.
"""

import ast
import inspect
import itertools
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import epe_nas_jax
from epe_nas_jax.commands.table import COMMANDS
from epe_nas_jax.data.table import DATASETS
from epe_nas_jax.proxies.table import PROXIES
from epe_nas_jax.scoring.columns import COLUMNS
from epe_nas_jax.spaces.table import SPACES

ROOT = Path(__file__).parent.parent


def rows(*cells: tuple[str, ...]) -> str:
    """A table of Markdown; the first row is its head."""
    head, *body = cells
    lines = (head, ("---",) * len(head), *body)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def config_keys() -> Iterator[tuple[str, str, str]]:
    """Every key of `configs/base.py`: its name, its default, and the comment above it."""
    source = ROOT / "configs" / "base.py"
    with source.open("rb") as file:
        comments = {
            token.start[0]: token.string.lstrip("# ")
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
        }
    for node in ast.walk(ast.parse(source.read_text())):
        if not isinstance(node, ast.Assign) or isinstance(node.value, ast.Call):
            continue
        line, above = node.lineno - 1, []
        while line in comments:
            above.insert(0, comments[line])
            line -= 1
        name = ast.unparse(node.targets[0]).removeprefix("config.")
        yield name, ast.unparse(node.value), " ".join(above)


def config_table() -> str:
    """The tables of config keys, one for each section."""
    parts: dict[str, list[tuple[str, ...]]] = {}
    for name, default, meaning in config_keys():
        section = name.split(".")[0] if "." in name else "general"
        entry = (f"`{name}`", f"`{default}`", meaning.replace("|", "\\|"))
        parts.setdefault(section, [("key", "default", "meaning")]).append(entry)
    return "\n\n".join(f"## {section}\n\n{rows(*part)}" for section, part in parts.items())


def letters_table() -> str:
    """The letters of shapes, as the package's docstring lists them."""
    found = re.findall(r"^\* (\w(?:, \w)*) (.*(?:\n  .*)*)", str(epe_nas_jax.__doc__), re.MULTILINE)
    return rows(
        ("letter", "meaning"), *((f"`{name}`", " ".join(text.split())) for name, text in found)
    )


TABLES = {
    "letters": letters_table,
    "commands": lambda: rows(
        ("command", "what it does"),
        *((f"`epe-nas {name}`", command.meaning) for name, command in COMMANDS.items()),
    ),
    "columns": lambda: rows(
        ("column", "meaning"), *((f"`{c.name}`", c.meaning) for c in COLUMNS.values())
    ),
    "proxies": lambda: rows(
        ("proxy", "source"), *((f"`{proxy.name}`", proxy.source) for proxy in PROXIES.values())
    ),
    "data sets": lambda: rows(
        ("`data.name`", "classes", "can be downloaded"),
        *(
            (
                f"`{name}`",
                str(data.num_classes or "those of the data"),
                "yes" if data.archive else "",
            )
            for name, data in DATASETS.items()
        ),
    ),
    "spaces": lambda: rows(
        ("`space.name`", "length of a genotype", "can be trained"),
        *(
            (f"`{name}`", str(entry.space.num_edges), "yes" if entry.is_trainable else "")
            for name, entry in SPACES.items()
        ),
    ),
    "config keys": config_table,
}


def documented(pages: Path) -> set[str]:
    """The names that the reference has an entry for."""
    text = "\n".join(page.read_text() for page in sorted(pages.glob("*.md")))
    return set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


def public_names() -> set[str]:
    """The public names: `epe_nas_jax.__all__`, and what a page or an example imports."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    pages += [*ROOT.glob("docs/tutorials/*.py"), *ROOT.glob("examples/*.py")]
    names = {f"epe_nas_jax.{name}" for name in epe_nas_jax.__all__ if name != "__version__"}
    for page in pages:
        text = page.read_text()
        code = [text] if page.suffix == ".py" else re.findall(r"```python\n(.*?)```", text, re.S)
        for node in (node for block in code for node in ast.walk(ast.parse(block))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("epe_nas_jax"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def object_of(name: str) -> Any:
    """What a dotted name stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(__import__(module, fromlist=[attribute]), attribute)


def documented_constants() -> set[str]:
    """The names of the constants of the package that have a docstring under them."""
    found = set()
    for file in (ROOT / "epe_nas_jax").rglob("*.py"):
        for node, below in itertools.pairwise(ast.parse(file.read_text()).body):
            has_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            if has_text and isinstance(node, ast.Assign):
                found.add(ast.unparse(node.targets[0]))
            elif has_text and isinstance(node, ast.AnnAssign):
                found.add(ast.unparse(node.target))
    return found


def faults(reference: set[str], used: set[str]) -> list[str]:
    """Public names without an entry, and entries without an example or a docstring."""
    found = [
        f"{name}: public, but no page of docs/reference has it"
        for name in used - reference
        # A module has the entries of what is in it.
        if not any(entry.startswith(f"{name}.") for entry in reference)
    ]
    constants = documented_constants()
    for name in reference:
        value = object_of(name)
        if callable(value) and str(value.__module__).startswith("epe_nas_jax"):
            if ">>>" not in (inspect.getdoc(value) or ""):
                found.append(f"{name}: found no example in its docstring")
        elif name.rpartition(".")[2] not in constants:
            found.append(f"{name}: found no docstring under it")
    return sorted(found)


def linked_results() -> set[str]:
    """The files of `results` that pages link to."""
    pages = "".join(page.read_text() for page in sorted(ROOT.glob("docs/*.md")))
    return set(re.findall(r"\]\(\.\./(results/[\w/.-]+)", pages))


def on_config(config: Any) -> Any:
    """Ends the build where a public name is not documented."""
    wrong = faults(documented(ROOT / "docs" / "reference"), public_names())
    if wrong:
        raise SystemExit("\n".join(wrong))
    return config


def on_files(files: Any, config: Any) -> Any:
    """Takes pages from outside docs/, the README as the first one, and files that they link to."""
    from mkdocs.structure.files import File

    for name, page in (("README.md", "index.md"), ("CONTRIBUTING.md", "CONTRIBUTING.md")):
        text = (ROOT / name).read_text().replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    for link in {*linked_results(), "results/README.md", "CITATION.cff"}:
        files.append(File.generated(config, link, abs_src_path=str(ROOT / link)))
    return files


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Makes links of the pages that docstrings and comments name, such as docs/ranking.md."""
    if not page.url.startswith("reference/"):
        return html
    for name in set(re.findall(r"docs/([\w-]+)\.md", html)):
        if not (ROOT / "docs" / f"{name}.md").exists():
            raise SystemExit(f"{page.url}: names docs/{name}.md, which does not exist")
    return re.sub(r"docs/([\w-]+)\.md", r'<a href="../\1.html">\1</a>', html)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts tables in their places, and links to results where they are on the site."""
    markdown = re.sub(r"<!-- table: ([\w ]+) -->", lambda found: TABLES[found[1]](), markdown)
    return markdown.replace("](../results/", "](results/")
