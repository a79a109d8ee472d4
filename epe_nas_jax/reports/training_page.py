"""A finished training as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from epe_nas_jax.reports import html, plots
from epe_nas_jax.reports.mistakes import Mistakes, mistakes_section
from epe_nas_jax.spaces.base import CellGraph

# The resolved config names the cell itself, also where the command was given a finished search.
_UNREAD = ("from_run", "compare", "score", "search", "refine")


def training_page(
    summary: Mapping[str, Any],
    provenance: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    graphs: Sequence[CellGraph],
    mistakes: Mistakes | None = None,
) -> str:
    """Makes the page of a training.

    Args:
      summary: the content of `summary.json`.
      provenance: the content of `config.json`.
      rows: the epochs, as in `metrics.csv`.
      graphs: how the cell is drawn.
      mistakes: of the first seed's network; None without held-out images.

    Returns:
      The content of an HTML file.
    """
    config, arch = provenance["config"], summary["arch"]
    title = f"A cell trained on {config['data']['name']}"
    lead = f'<p class="best">The cell is<br>{html.arch_code(arch)}</p>'
    return html.document(
        title,
        [
            html.header(title, lead, _facts(summary)),
            '<div class="plots">',
            _curves(summary, rows),
            html.cell_figures("The cell", graphs, arch),
            "</div>",
            mistakes_section(mistakes, summary["held_out"], summary["seeds"][0])
            if mistakes
            else "",
            _time_and_origin(summary, provenance),
        ],
    )


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    held_out = summary["held_out"]
    facts = []
    if held_out:
        facts.append((f"{held_out} accuracy, mean", f"{summary['mean_accuracy']:.2f} %"))
        if summary["std_accuracy"] is not None:
            facts.append(("deviation between seeds", f"{summary['std_accuracy']:.2f}"))
    else:
        facts.append(("the data set has no test split", "no test accuracy"))
    if summary["table_accuracy"] is not None:
        facts.append(("in the table", f"{summary['table_accuracy']:.2f} %"))
    return [*facts, ("seeds", str(len(summary["seeds"]))), ("epochs", str(summary["epochs"]))]


def _curves(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    table = summary["table_accuracy"]
    caption = "One line for each seed. Training accuracy is that of the augmented mini-batches."
    if table is not None:
        caption += " The dashed line is the table's accuracy, after its own training."
    curves = plots.training_curves(rows, summary["held_out"] or "test", table)
    return html.figure("Accuracy", plots.to_svg(curves, "curves"), caption)


def _time_and_origin(summary: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    facts = {
        "training images": f"{summary['num_train_images']:,}",
        "held-out images": f"{summary['num_held_out_images']:,}",
        "training": f"{summary['train_seconds']:.0f} s",
        "images a second": f"{summary['images_per_second']:.0f}",
        "device": summary["device"],
    }
    return html.origin(facts, provenance, html.command_of("train", provenance["config"], _UNREAD))
