"""A finished ranking of networks as one self-contained HTML page."""

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from epe_nas_jax.reports import html, plots, text

# The sections of a config that a ranking reads.
_READ = ("seed", "data")
# The headings of the table's columns after the name and the rank.
_SHOWN = {
    "score": "score",
    **text.COST_NAMES,
    "peak_mb": "MB of memory",
}


def ranking_page(
    rows: Sequence[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    fronts: Mapping[str, np.ndarray],
    *,
    file: str,
    device: str,
) -> str:
    """Makes the page of a ranking.

    Args:
      rows: the networks, best first, as in `ranking.csv`; None stands for what is missing.
      provenance: the content of `config.json`.
      fronts: by name of a cost, `params` and `latency_ms`, the rows that no other one beats in both
        score and cost, cheapest first.
      file: where the networks are from, as the user named it.
      device: on which they were measured.

    Returns:
      The content of an HTML file.
    """
    config = provenance["config"]
    num_scored = sum(row["score"] is not None for row in rows)
    title = f"{len(rows)} networks ranked on {config['data']['name']}"
    best = f"<code>{escape(rows[0]['network'])}</code>" if num_scored else "no network has a score"
    facts = [
        ("with a score", str(num_scored)),
        ("could not be measured", str(sum(row["error"] is not None for row in rows))),
        ("ranked by", ", ".join(config["objective"])),
    ]
    return html.document(
        title,
        [
            html.header(title, f'<p class="best">The best one is<br>{best}</p>', facts),
            '<div class="plots">',
            *(_plot(rows, cost, front) for cost, front in fronts.items() if num_scored),
            "</div>",
            "<section><h2>All networks</h2>",
            _table(rows),
            "</section>",
            _origin(provenance, file, device),
        ],
    )


def _plot(rows: Sequence[Mapping[str, Any]], cost: str, front: np.ndarray) -> str:
    """Ranks against a cost."""
    what = _SHOWN[cost]
    known = [place for place, row in enumerate(rows) if row["rank"] and row[cost]]
    on_front = [known.index(place) for place in front if place in known]
    figure = plots.rank_against_cost(
        np.array([rows[place]["rank"] for place in known], np.int64),
        np.array([rows[place][cost] for place in known], np.float64),
        np.array(on_front, np.int64),
        [rows[place]["network"] for place in known],
        cost_name=what,
    )
    caption = (
        "The line is the Pareto front: no other network has a better rank at the same or a lower "
        "cost."
    )
    return html.figure(f"Rank and {what}", plots.to_svg(figure, cost), caption)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        numbers = (row["rank"], *(row[name] for name in _SHOWN))
        shown = ("" if value is None else text.number(value) for value in numbers)
        said = escape(row["error"] or row["note"])
        lines.append([f"<code>{escape(row['network'])}</code>", *shown, said])
    return html.table(["network", "rank", *_SHOWN.values(), "note"], lines)


def _origin(provenance: Mapping[str, Any], file: str, device: str) -> str:
    config = provenance["config"]
    objective = ",".join(config["objective"])
    flags = f"rank {shlex.quote(f'--networks={file}')} --objective={objective}"
    if config["smaller_batches"]:
        flags += " --smaller_batches"
    unread = [section for section in config if section not in _READ]
    return html.origin({"device": device}, provenance, html.command_of(flags, config, unread))
