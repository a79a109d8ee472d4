"""A finished training as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from typing import Any

from epe_nas_jax import page, plots


def training_page(
    summary: Mapping[str, Any], provenance: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Writes the page.

    Args:
      summary: the content of `summary.json`.
      provenance: the content of `config.json`.
      rows: the epochs, as in `metrics.csv`.

    Returns:
      The content of an HTML file.
    """
    config = provenance["config"]
    title = f"A cell trained on {config['data']['name']}"
    held_out, table = summary["held_out"], summary["table_accuracy"]
    facts = []
    if held_out:
        facts.append((f"{held_out} accuracy, mean", f"{summary['mean_accuracy']:.2f} %"))
        if summary["std_accuracy"] is not None:
            facts.append(("deviation between seeds", f"{summary['std_accuracy']:.2f}"))
    else:
        facts.append(("the data set has no test split", "no test accuracy"))
    if table is not None:
        facts.append(("in the table", f"{table:.2f} %"))
    facts += [("seeds", str(len(summary["seeds"]))), ("epochs", str(summary["epochs"]))]
    lead = f'<p class="best">The cell is<br>{page.arch_code(summary["arch"])}</p>'
    curves = plots.training_curves(rows, held_out or "test", table)
    caption = "A line a seed. Training accuracy is that of the augmented mini-batches."
    if table is not None:
        caption += " The dashed line is the table's accuracy, after its own training."
    origin = {
        "training images": f"{summary['num_train_images']:,}",
        "held-out images": f"{summary['num_held_out_images']:,}",
        "training": f"{summary['train_seconds']:.0f} s",
        "images a second": f"{summary['images_per_second']:.0f}",
        "device": summary["device"],
        "images, SHA-256": provenance["minibatch_sha256"],
        "versions": ", ".join(f"{name} {at}" for name, at in provenance["versions"].items()),
    }
    command = page.command_of(config, "train", ("compare", "score", "search"))
    return page.document(
        title,
        [
            page.header(title, lead, facts),
            '<div class="plots">',
            page.figure("Accuracy", plots.to_svg(curves, "curves"), caption),
            page.figure(
                "The cell",
                page.cell_drawing(summary["arch"]),
                "Operations none are not drawn; a dashed one is on no path from input to output.",
            ),
            "</div>",
            page.origin(origin, command, config),
        ],
    )
