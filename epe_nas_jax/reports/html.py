"""The parts that all pages are made of: strings of HTML, in which text from outside stays text."""

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from epe_nas_jax.reports.cell_drawing import cell_drawing
from epe_nas_jax.spaces.base import CellGraph


def document(title: str, sections: Sequence[str]) -> str:
    """A page with a title and sections, which are HTML: the content of an HTML file."""
    style = Path(__file__).with_name("page.css").read_text()
    # The page can fetch nothing, whatever a string in it tries.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            '<link rel="icon" href="data:,">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style></head>",
            "<body><main>",
            *sections,
            "</main></body></html>",
            "",
        ]
    )


def header(title: str, lead: str, facts: Sequence[tuple[str, str]]) -> str:
    """The head of a page: its title, a lead, which is HTML, and facts as (name, value)."""
    tiles = "".join(
        f"<div><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>" for name, value in facts
    )
    return f'<header><h1>{escape(title)}</h1>{lead}<dl class="facts">{tiles}</dl></header>'


def figure(heading: str, svg: str, caption: str) -> str:
    """A plot, which is SVG, with a heading and a caption."""
    return (
        f"<figure><h2>{escape(heading)}</h2>"
        f'<div role="img" aria-label="{escape(heading)}: {escape(caption)}">{svg}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def cell_figures(heading: str, graphs: Sequence[CellGraph], arch: str) -> str:
    """The drawings of a genotype's cells, one figure for each cell.

    Args:
      heading: of the figures, before the title of the cell where it has one.
      graphs: the cells.
      arch: the text of the genotype.
    """
    figures = []
    for graph in graphs:
        title = f"{heading}: {graph.title}" if graph.title else heading
        description = f"The {graph.title or 'cell'} {'of ' if graph.title else ''}{arch} as a graph"
        figures.append(
            f"<figure><h2>{escape(title)}</h2>{cell_drawing(graph, description)}"
            "<figcaption>Edges with the operation none are not drawn; a dashed edge is on no path "
            "from input to output.</figcaption></figure>"
        )
    return "".join(figures)


def arch_code(arch: str) -> str:
    """The text of a cell as HTML, in which a line may break between operations."""
    return f"<code>{escape(arch).replace('|+|', '|+<wbr>|').replace('|', '|<wbr>')}</code>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML, from a header of text and rows of HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def origin(facts: Mapping[str, str], provenance: Mapping[str, Any], command: str) -> str:
    """Where a page's results come from: facts, the command that repeats them, the config.

    Args:
      facts: value by name.
      provenance: the content of `config.json`, which adds to the facts.
      command: as from `command_of`.
    """
    config = provenance["config"]
    rows = {
        **facts,
        "seed": str(config["seed"]),
        "images, SHA-256": provenance["minibatch_sha256"],
        "versions": ", ".join(f"{name} {at}" for name, at in provenance["versions"].items()),
    }
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    text = json.dumps(config, indent=2)
    return (
        '<section><h2>Time and origin</h2><div class="scroll" tabindex="0">'
        f'<table class="origin">{body}</table></div>'
        f'<h3>To repeat it</h3><pre tabindex="0">{escape(command)}</pre>'
        f'<details><summary>All of the config</summary><pre tabindex="0">{escape(text)}</pre>'
        "</details></section>"
    )


def command_of(command: str, config: Mapping[str, Any], unread: Sequence[str]) -> str:
    """The command line that repeats a run, quoted for a shell; keys without a value are left out.

    Args:
      command: what comes after `epe-nas`.
      config: the resolved config in JSON's types.
      unread: keys and sections of the config that the command does not read.
    """
    parts = [f"epe-nas {command} --config=base --workdir=again"]
    for section, values in config.items():
        if section in unread:
            continue
        keys = (
            {f"{section}.{name}": value for name, value in values.items()}
            if isinstance(values, Mapping)
            else {section: values}
        )
        for key, value in keys.items():
            if value not in ("", [], ()):
                shown = _tuple(value) if isinstance(value, list) else value
                parts.append(shlex.quote(f"--config.{key}={shown}"))
    return " \\\n    ".join(parts)


def _tuple(values: Sequence[str]) -> str:
    """A tuple of strings in Python's syntax, with double quotes, which suit a shell's own."""
    return f"({''.join(f'{json.dumps(value, ensure_ascii=False)}, ' for value in values).strip()})"
