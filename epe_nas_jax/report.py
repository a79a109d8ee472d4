"""What a person reads of a finished run."""

from collections.abc import Mapping
from typing import Any


def result_table(summary: Mapping[str, Any], best: list[dict[str, Any]]) -> str:
    """A finished run as a small table.

    Args:
      summary: the content of `summary.json`.
      best: the best cells, best first: `arch`, `score` and, with a benchmark, `accuracy`.

    Returns:
      Lines of text.
    """
    has_accuracies = any("accuracy" in cell for cell in best)
    head = f"{'rank':>4}  {'score':>10}  " + ("accuracy  " if has_accuracies else "") + "cell"
    lines = [head]
    for rank, cell in enumerate(best, 1):
        accuracy = _percent(cell.get("accuracy")) if has_accuracies else ""
        lines.append(f"{rank:>4}  {cell['score']:>10.1f}  {accuracy}{cell['arch']}")
    if not best:
        lines.append("no cell has a score")
    lines += [
        "",
        f"scored      {summary['num_scored']} cells, {summary['num_networks']} different networks; "
        f"{summary['num_degenerate']} cells degenerate (no path from input to output, no score)",
        f"time        {summary['compile_seconds']:.1f} s compiling, {summary['seconds']:.1f} s "
        f"scoring, {summary['ms_per_cell']:.1f} ms a cell",
        f"device      {summary['device']}",
    ]
    if has_accuracies:
        lines += [
            f"accuracy    {_value(summary['best_accuracy'])} % for the chosen cell, "
            f"{_value(summary['sample_best_accuracy'])} % for the best in the sample",
        ]
        correlations = summary["rank_correlation"]
        for name in ("spearman", "kendall"):
            value = correlations[name]
            text = "undefined on this sample"
            if value is not None:
                text = (
                    f"{value['value']:.3f}, 95 % interval {value['low']:.3f} to {value['high']:.3f}"
                )
            lines.append(f"{name:<11} {text} ({correlations['num_cells']} cells)")
    return "\n".join(lines)


def _percent(accuracy: float | None) -> str:
    return f"{_value(accuracy):>8}  "


def _value(accuracy: float | None) -> str:
    return "unknown" if accuracy is None else f"{accuracy:.2f}"


def training_table(summary: Mapping[str, Any]) -> str:
    """A finished training as a small table.

    Args:
      summary: the content of `summary.json`.

    Returns:
      Lines of text.
    """
    lines = ["seed    train accuracy" + (f"{'accuracy':>14}" if summary["held_out"] else "")]
    held_out = summary.get("accuracy", [None] * len(summary["seeds"]))
    for seed, train, accuracy in zip(
        summary["seeds"], summary["train_accuracy"], held_out, strict=True
    ):
        lines.append(
            f"{seed:>4}{train:>18.2f}" + ("" if accuracy is None else f"{accuracy:>14.2f}")
        )
    lines += ["", f"cell        {summary['arch']}"]
    lines.append(
        f"trained     {summary['epochs']} epochs on {summary['num_train_images']} images, "
        f"{summary['images_per_second']:.0f} images a second, {summary['train_seconds']:.0f} s"
    )
    if summary["held_out"]:
        spread = summary["std_accuracy"]
        lines.append(
            f"accuracy    {summary['mean_accuracy']:.2f} % on {summary['num_held_out_images']} "
            f"{summary['held_out']} images"
            + ("" if spread is None else f", standard deviation {spread:.2f} between seeds")
        )
    else:
        lines.append("accuracy    no test accuracy: the data set has no test split")
    if summary["table_accuracy"] is not None:
        lines.append(f"table       {summary['table_accuracy']:.2f} %")
    return "\n".join([*lines, f"device      {summary['device']}"])


def comparison_table(summary: Mapping[str, Any], rows: list[dict[str, Any]]) -> str:
    """A finished comparison with PyTorch as a table, one line a cell.

    Args:
      summary: as in `compare.json`.
      rows: its cells.

    Returns:
      Lines of text.
    """
    head = ("ours", "PyTorch", "logits", "Jacobian", "score", "ours", "released", "best")
    lines = [
        f"{'score by':^17} | {'relative error of':^26} | {'seconds of':^24} |",
        "{:>8} {:>8} | {:>8} {:>8} {:>8} | {:>7} {:>8} {:>7} | cell".format(*head),
    ]
    for row in rows:
        lines.append(
            f"{_score(row['score']):>8} {_score(row['pytorch_score']):>8} | "
            f"{_error(row['logits_error']):>8} {_error(row['jacobian_error']):>8} "
            f"{_error(row['score_error']):>8} | {row['seconds']:>7.3f} "
            f"{row['pytorch_seconds']:>8.3f} {row['pytorch_best_seconds']:>7.3f} | {row['arch']}"
        )
    lines += ["", f"{'error':<12}{'logits':>10}{'Jacobian':>10}{'score':>10}"]
    for which in ("worst", "median"):
        errors = (summary[f"{name}_error"][which] for name in ("logits", "jacobian", "score"))
        lines.append(f"{which:<12}" + "".join(f"{_error(error):>10}" for error in errors))
    seconds, ratios = summary["seconds_per_cell"], summary["times_ours"]
    spearman = summary["spearman"]
    lines += [
        "",
        f"cells       {summary['num_cells']} in {summary['dtype']} on {summary['batch_size']} "
        f"images, of which {summary['num_degenerate']} without a score on both sides "
        f"and {summary['num_scored_on_one_side_only']} on one side only",
        "Spearman    " + ("undefined" if spearman is None else f"{spearman:.6f}"),
        f"best cell   {'the same' if summary['same_best'] else 'not the same'}: "
        f"{summary['best_arch']}"
        + ("" if summary["same_best"] else f", by PyTorch {summary['pytorch_best_arch']}"),
        f"ours        {seconds['ours']:.3f} s a cell from genotype to score, after "
        f"{summary['compile_seconds']:.1f} s compiling",
        f"PyTorch     {seconds['pytorch_as_released']:.3f} s a cell as released (all gradients), "
        f"{ratios['pytorch_as_released']:.2f} x ours",
        f"            {seconds['pytorch_at_its_best']:.3f} s a cell at its best (input gradient "
        f"only, channels last), {ratios['pytorch_at_its_best']:.2f} x ours",
        f"            forward and backward pass alone, {summary['pytorch_threads']} threads, "
        f"network of {summary['pytorch_network']}",
        f"device      {summary['device']}",
    ]
    return "\n".join(lines)


def _score(score: float | None) -> str:
    return "none" if score is None else f"{score:.1f}"


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.1e}"
