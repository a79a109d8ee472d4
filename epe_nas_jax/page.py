"""A finished run as one self-contained HTML page.

Shape legend: A cells, T cells of the benchmark, K classes, E = 6 edges.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from epe_nas_jax import plots
from epe_nas_jax.genotype import EDGES, OPERATIONS, live_form, parse_arch

# Where the drawing of a cell has its nodes, and where the bent edge (0, 3) is pulled to.
_NODES = ((150, 34), (64, 158), (236, 214), (150, 338))
_RADIUS = 17
_BEND = (462, 186)
_STYLES = {
    "none": "none",
    "skip_connect": "skip",
    "nor_conv_1x1": "conv",
    "nor_conv_3x3": "conv",
    "avg_pool_3x3": "pool",
}


def run_page(
    *,
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    best: Sequence[Mapping[str, Any]],
    scores: np.ndarray,
    accuracies: np.ndarray | None,
    benchmark_accuracies: np.ndarray | None,
    class_scores: np.ndarray | None,
    class_sizes: np.ndarray | None,
) -> str:
    """Writes the page.

    Args:
      summary: the content of `summary.json`.
      provenance: the content of `config.json`.
      best: the best cells, best first: `arch`, `score` and, with a benchmark, `accuracy`.
      scores: `[A]` in the order of the search, NaN for a cell without one.
      accuracies: their accuracies `[A]`, NaN where unknown; None without a benchmark.
      benchmark_accuracies: all accuracies of the benchmark, `[T]`; None without one.
      class_scores: e_c of the best cell, `[K]`; None if no cell has a score.
      class_sizes: images of each class in the mini-batch, `[K]`; None where every cell has a
        mini-batch of its own.

    Returns:
      The content of an HTML file.
    """
    config = provenance["config"]
    title = f"EPE-NAS on {config['data']['name']}"
    sections = [
        _headline(title, summary, benchmark_accuracies),
        _best_cells(best) if best else "",
        '<div class="plots">',
        _scatter(scores, accuracies, summary) if accuracies is not None else "",
        _distribution(scores, summary),
        _progress(scores, accuracies),
        _classes(class_scores, class_sizes) if class_scores is not None else "",
        "</div>",
        _time_and_origin(summary, provenance),
    ]
    return document(title, sections)


def document(title: str, sections: Sequence[str]) -> str:
    """A page with a title and sections, which are HTML."""
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


def cell_drawing(arch: str) -> str:
    """A cell as an SVG element: nodes, and an operation on each edge.

    Operations none are left out; those on no path from input to output are dashed.
    """
    genotype = parse_arch(arch)
    is_live = live_form(genotype) != 0
    edges, labels = [], []
    for (source, target), op, live in zip(EDGES, genotype, is_live, strict=True):
        if op == 0:
            continue
        kind = _STYLES[OPERATIONS[op]] + ("" if live else " dead")
        path, (x, y) = _edge(source, target)
        name = OPERATIONS[op]
        width = 7.4 * len(name) + 12
        edges.append(f'<path class="edge {kind}" d="{path}" marker-end="url(#arrow)"/>')
        labels.append(
            f'<rect class="label {kind}" x="{x - width / 2:.1f}" y="{y - 11}" '
            f'width="{width:.1f}" height="22" rx="11"/>'
            f'<text class="label" x="{x}" y="{y + 4}">{escape(name)}</text>'
        )
    nodes = [
        f'<circle class="node" cx="{x}" cy="{y}" r="{_RADIUS}"/>'
        f'<text class="node" x="{x}" y="{y + 5}">{name}</text>'
        for (x, y), name in zip(_NODES, ("in", "1", "2", "out"), strict=True)
    ]
    return "".join(
        [
            '<svg class="cell" viewBox="0 0 372 372" role="img" '
            f'aria-label="The cell {escape(arch)} as a graph">',
            '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z"/></marker>',
            "</defs>",
            *edges,
            *labels,
            *nodes,
            "</svg>",
        ]
    )


def command_of(
    config: Mapping[str, Any], module: str = "main", unread: Sequence[str] = ("compare", "train")
) -> str:
    """The command that repeats a run; keys with nothing in them are left out.

    Args:
      config: the resolved config in JSON's types.
      module: of the command.
      unread: sections of the config that it does not read.
    """
    parts = [f"python -m epe_nas_jax.{module} --config=configs/base.py --workdir=DIR"]
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
                value = tuple(value) if isinstance(value, list) else value
                parts.append(shlex.quote(f"--config.{key}={value}"))
    return " \\\n    ".join(parts)


def _edge(source: int, target: int) -> tuple[str, tuple[float, float]]:
    """The path of an edge from rim to rim of its nodes, and the middle of it."""
    start, end = np.array(_NODES[source], float), np.array(_NODES[target], float)
    bend = np.array(_BEND) if (source, target) == (0, 3) else (start + end) / 2
    middle = start / 4 + bend / 2 + end / 4
    start += _RADIUS * (bend - start) / np.linalg.norm(bend - start)
    end += (_RADIUS + 3) * (bend - end) / np.linalg.norm(bend - end)
    points = [f"{x:.1f} {y:.1f}" for x, y in (start, bend, end)]
    return f"M{points[0]}Q{points[1]} {points[2]}", (round(middle[0]), round(middle[1]))


def _headline(
    title: str, summary: Mapping[str, Any], benchmark_accuracies: np.ndarray | None
) -> str:
    facts = [("score", _number(summary["best_score"], 1))]
    if benchmark_accuracies is not None:
        accuracy = summary["best_accuracy"]
        rank = "unknown"
        if accuracy is not None:
            rank = f"rank {1 + int(np.sum(benchmark_accuracies > accuracy)):,}"
        facts += [
            ("accuracy after training", "unknown" if accuracy is None else f"{accuracy:.2f} %"),
            (f"by accuracy, of {len(benchmark_accuracies):,}", rank),
            ("Spearman", _correlation(summary["rank_correlation"]["spearman"], interval=False)),
        ]
    facts += [
        ("cells scored", f"{summary['num_scored']:,}"),
        ("without a score", f"{summary['num_degenerate']:,}"),
    ]
    if summary["best_arch"] is None:
        best = "<p>No cell has a score.</p>"
    else:
        best = f'<p class="best">The best cell is<br>{arch_code(summary["best_arch"])}</p>'
    return header(title, best, facts)


def header(title: str, lead: str, facts: Sequence[tuple[str, str]]) -> str:
    """The head of a page: its title, a lead, which is HTML, and facts as (name, value)."""
    tiles = "".join(
        f"<div><dd>{escape(value)}</dd><dt>{escape(name)}</dt></div>" for name, value in facts
    )
    return f'<header><h1>{escape(title)}</h1>{lead}<dl class="facts">{tiles}</dl></header>'


def _best_cells(best: Sequence[Mapping[str, Any]]) -> str:
    has_accuracies = any("accuracy" in cell for cell in best)
    header = ["rank", "score", *(["accuracy, %"] if has_accuracies else []), "cell"]
    rows = []
    for rank, cell in enumerate(best, 1):
        row = [str(rank), _number(cell["score"], 1)]
        if has_accuracies:
            row.append(_number(cell.get("accuracy"), 2))
        rows.append(
            "".join(f"<td>{escape(value)}</td>" for value in row)
            + f"<td>{arch_code(cell['arch'])}</td>"
        )
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        '<section class="cells"><figure><h2>The best cell</h2>'
        f"{cell_drawing(best[0]['arch'])}"
        "<figcaption>Operations none are not drawn; a dashed one is on no path from input to "
        "output.</figcaption></figure>"
        '<div class="ranking"><h2>The best by score</h2><div class="scroll" tabindex="0">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></div></section>"
    )


def _scatter(scores: np.ndarray, accuracies: np.ndarray, summary: Mapping[str, Any]) -> str:
    chosen = None if np.isnan(scores).all() else int(np.nanargmax(scores))
    correlations = summary["rank_correlation"]
    plot = plots.accuracy_scatter(scores, accuracies, "accuracy after training", chosen)
    return figure(
        "Score against accuracy",
        plots.to_svg(plot, "accuracy"),
        f"{correlations['num_cells']:,} cells with both; the ring is the best cell. Spearman "
        f"{_correlation(correlations['spearman'])}, Kendall "
        f"{_correlation(correlations['kendall'])}.",
    )


def _distribution(scores: np.ndarray, summary: Mapping[str, Any]) -> str:
    return figure(
        "Scores",
        plots.to_svg(plots.score_histogram(scores), "scores"),
        f"{np.sum(~np.isnan(scores)):,} cells with a score; {summary['num_degenerate']:,} "
        "degenerate ones have none (no path from input to output).",
    )


def _progress(scores: np.ndarray, accuracies: np.ndarray | None) -> str:
    caption = "The best score among the cells scored so far"
    caption += "." if accuracies is None else ", and the accuracy of that cell."
    plot = plots.best_so_far(scores, accuracies)
    return figure("Best so far", plots.to_svg(plot, "progress"), caption)


def _classes(class_scores: np.ndarray, class_sizes: np.ndarray | None) -> str:
    plot = plots.class_bars(class_scores, class_sizes)
    return figure(
        "Classes of the best cell",
        plots.to_svg(plot, "classes"),
        "|e_c| by class, from which the score is made: a sum over all pairs of a class's images.",
    )


def _time_and_origin(summary: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    rows = {
        "scoring": f"{summary['seconds']:.1f} s",
        "compiling": f"{summary['compile_seconds']:.1f} s",
        "a cell": f"{summary['ms_per_cell']:.1f} ms",
        "different networks": f"{summary['num_networks']:,}",
        "device": summary["device"],
        "seed": str(provenance["config"]["seed"]),
        "images, SHA-256": provenance["minibatch_sha256"],
        "versions": ", ".join(f"{name} {at}" for name, at in provenance["versions"].items()),
    }
    return origin(rows, command_of(provenance["config"]), provenance["config"])


def origin(rows: Mapping[str, str], command: str, config: Mapping[str, Any]) -> str:
    """Where a page's results come from: facts, the command that repeats them, the config."""
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


def figure(heading: str, svg: str, caption: str) -> str:
    """A plot, SVG, with its heading and a caption."""
    return (
        f"<figure><h2>{escape(heading)}</h2>"
        f'<div role="img" aria-label="{escape(heading)}: {escape(caption)}">{svg}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def arch_code(arch: str) -> str:
    """An arch string that may break between operations."""
    return f"<code>{escape(arch).replace('|+|', '|+<wbr>|').replace('|', '|<wbr>')}</code>"


def _number(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:,.{digits}f}"


def _correlation(correlation: Mapping[str, float] | None, *, interval: bool = True) -> str:
    if correlation is None:
        return "undefined"
    text = f"{correlation['value']:.3f}"
    if interval:
        text += f" (95 % interval {correlation['low']:.3f} to {correlation['high']:.3f})"
    return text
