"""The tables that the commands print at the end of a run, as text and as Markdown."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Names of the costs of a network, by column.
COST_NAMES = {
    "params": "parameters",
    "mflops": "millions of FLOPs",
    "latency_ms": "ms a forward pass",
}


# Of a score, where fewer do not hide a difference.
_SCORE_DIGITS = 6


class Table(NamedTuple):
    """A table of text; the first column is words, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def as_text(table: Table) -> str:
    """A table as aligned lines of text."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    aligned = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, "", *aligned])


def as_markdown(table: Table) -> str:
    """A table as Markdown."""
    rule = ["---"] + ["---:"] * (len(table.header) - 1)
    lines = [
        "| " + " | ".join(_escaped(cell) for cell in line) + " |"
        for line in (table.header, rule, *table.rows)
    ]
    return "\n".join([f"**{table.title}**", "", *lines])


def _escaped(cell: str) -> str:
    return html.escape(cell, quote=False).replace("|", "\\|")


def number(value: float) -> str:
    """A number of any size as a person reads it: `2,000,000`, `12.5` or `0.0003215`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def scores_apart(scores: Sequence[float], separator: str = "") -> list[str]:
    """Scores with the same number of digits: six, or as many as show that different ones differ.

    Of some objectives scores are thousands, of others neighbours differ in the last digits.

    Args:
      scores: those that are read beside each other; none is NaN.
      separator: of thousands, `""` or `","`.

    Examples:
      >>> from epe_nas_jax.reports.text import scores_apart
      >>> scores_apart([26228.14, 26104.98])
      ['26228.1', '26105.0']
      >>> scores_apart([-1.2034561, -1.2034562])
      ['-1.2034561', '-1.2034562']
    """
    # Seventeen digits tell all numbers of 64 bits apart.
    for digits in range(_SCORE_DIGITS, 18):
        shown = [f"{score:#{separator}.{digits}g}".removesuffix(".") for score in scores]
        if len(set(shown)) >= len(set(scores)):
            break
    return shown


def score_or_none(score: float | None, separator: str = "") -> str:
    """A score as `scores_apart` writes it alone; "none" for a cell without one."""
    return "none" if score is None else scores_apart([score], separator)[0]


def interval(correlation: Mapping[str, float] | None, digits: int = 3) -> str:
    """A rank correlation with its interval; `value`, `low` and `high`, or None if undefined."""
    if correlation is None:
        return "-"
    value, low, high = (correlation[name] for name in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def result_table(summary: Mapping[str, Any], best: Sequence[Mapping[str, Any]]) -> str:
    """Formats a finished search as a small table.

    Args:
      summary: the content of `summary.json`.
      best: the best cells, best first: `arch`, `score` and, with a benchmark, `accuracy`.

    Returns:
      Lines of text.
    """
    has_accuracies = any("accuracy" in cell for cell in best)
    scores = scores_apart([cell["score"] for cell in best])
    width = max(10, *map(len, scores), 0)
    head = f"{'rank':>4}  {'score':>{width}}  " + ("accuracy  " if has_accuracies else "") + "cell"
    lines = [head]
    for rank, (score, cell) in enumerate(zip(scores, best, strict=True), 1):
        accuracy = _percent(cell.get("accuracy")) if has_accuracies else ""
        lines.append(f"{rank:>4}  {score:>{width}}  {accuracy}{cell['arch']}")
    if not best:
        lines.append("no cell has a score")
    lines += [
        "",
        f"scored      {summary['num_scored']} cells, {summary['num_networks']} different networks; "
        f"{summary['num_degenerate']} cells without a score "
        "(most have no path from input to output)",
        *([f"refined     {refined_in_words(summary)}"] if "stages" in summary else []),
        f"time        {summary['compile_seconds']:.1f} s compiling, {summary['seconds']:.1f} s "
        f"scoring, {summary['ms_per_cell']:.1f} ms a cell",
        f"device      {summary['device']}",
    ]
    return "\n".join([*lines, *(_beside_accuracies(summary) if has_accuracies else [])])


def refined_in_words(summary: Mapping[str, Any]) -> str:
    """Says which cells of a search were scored again, and how long each stage took.

    Args:
      summary: the content of `summary.json`, of a search whose best cells were scored again.
    """
    search, again = (summary["stages"][stage] for stage in ("search", "refine"))
    return (
        f"{again['num_cells']} cells, {again['num_networks']} different networks, scored again at "
        f"the full setting and put first; {search['seconds']:.1f} s searching, "
        f"{again['seconds']:.1f} s scoring again"
    )


def _beside_accuracies(summary: Mapping[str, Any]) -> list[str]:
    """Lines about how well the search chose and ranked."""
    lines = [
        f"accuracy    {_value(summary['best_accuracy'])} % for the chosen cell, "
        f"{_value(summary['sample_best_accuracy'])} % for the best in the sample",
    ]
    correlations = summary["rank_correlation"]
    for name in ("spearman", "kendall"):
        value = correlations[name]
        text = "undefined on this sample"
        if value is not None:
            text = f"{value['value']:.3f}, 95 % interval {value['low']:.3f} to {value['high']:.3f}"
        lines.append(f"{name:<11} {text} ({correlations['num_cells']} cells)")
    return lines


def _percent(accuracy: float | None) -> str:
    return f"{_value(accuracy):>8}  "


def _value(accuracy: float | None) -> str:
    return "unknown" if accuracy is None else f"{accuracy:.2f}"


def training_table(summary: Mapping[str, Any]) -> str:
    """Formats a finished training as a small table.

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


def comparison_table(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats a finished comparison with PyTorch as a table, one line for each cell.

    Args:
      summary: the summary in `compare.json`.
      rows: its cells.

    Returns:
      Lines of text.
    """
    head = ("ours", "PyTorch", "logits", "Jacobian", "score", "ours", "released", "best")
    lines = [
        f"{'score by':^17} | {'relative error of':^26} | {'seconds of':^24} |",
        "{:>8} {:>8} | {:>8} {:>8} {:>8} | {:>7} {:>8} {:>7} | cell".format(*head),
        *map(_compared_cell, rows),
        "",
        *_errors(summary),
        "",
        *_agreement(summary),
        *_times(summary),
        f"device      {summary['device']}",
    ]
    return "\n".join(lines)


def _compared_cell(row: Mapping[str, Any]) -> str:
    """A cell of a comparison as a line."""
    return (
        f"{score_or_none(row['score']):>8} {score_or_none(row['pytorch_score']):>8} | "
        f"{relative_error(row['logits_error']):>8} {relative_error(row['jacobian_error']):>8} "
        f"{relative_error(row['score_error']):>8} | {row['seconds']:>7.3f} "
        f"{row['pytorch_seconds']:>8.3f} {row['pytorch_best_seconds']:>7.3f} | {row['arch']}"
    )


def _errors(summary: Mapping[str, Any]) -> list[str]:
    """Lines about the relative errors of a comparison."""
    lines = [f"{'error':<12}{'logits':>10}{'Jacobian':>10}{'score':>10}"]
    for which in ("worst", "median"):
        errors = (summary[f"{name}_error"][which] for name in ("logits", "jacobian", "score"))
        lines.append(f"{which:<12}" + "".join(f"{relative_error(error):>10}" for error in errors))
    return lines


def _agreement(summary: Mapping[str, Any]) -> list[str]:
    """Lines about what was compared and how the two sides rank it."""
    spearman, is_same = summary["spearman"], summary["same_best"]
    return [
        f"cells       {summary['num_cells']} in {summary['dtype']} on {summary['batch_size']} "
        f"images, of which {summary['num_degenerate']} without a score on both sides "
        f"and {summary['num_scored_on_one_side_only']} on one side only",
        "Spearman    " + ("undefined" if spearman is None else f"{spearman:.6f}"),
        f"best cell   {'the same' if is_same else 'not the same'}: {summary['best_arch']}"
        + ("" if is_same else f", by PyTorch {summary['pytorch_best_arch']}"),
    ]


def _times(summary: Mapping[str, Any]) -> list[str]:
    """Lines about the times of the two sides."""
    seconds, ratios = summary["seconds_per_cell"], summary["times_ours"]
    return [
        f"ours        {seconds['ours']:.3f} s a cell from genotype to score, after "
        f"{summary['compile_seconds']:.1f} s compiling",
        f"PyTorch     {seconds['pytorch_as_released']:.3f} s a cell as released (all gradients), "
        f"{ratios['pytorch_as_released']:.2f} x ours",
        f"            {seconds['pytorch_at_its_best']:.3f} s a cell at its best (input gradient "
        f"only, channels last), {ratios['pytorch_at_its_best']:.2f} x ours",
        f"            forward and backward pass alone, {summary['pytorch_threads']} threads, "
        f"network of {summary['pytorch_network']}",
    ]


def relative_error(error: float | None) -> str:
    """A relative error with two digits, or `-` where there is none."""
    return "-" if error is None else f"{error:.1e}"


def search_table(rows: Sequence[Mapping[str, Any]], num_searches: int) -> Table:
    """Simulated searches on all data sets, in the form of the paper's table.

    Args:
      rows: as from `paper_tables.search_rows`, of one data set after the other.
      num_searches: how many searches a mean is of.
    """
    columns = [
        (dataset, what)
        for dataset in dict.fromkeys(row["dataset"] for row in rows)
        for what in ("validation", "test")
        if any(row["dataset"] == dataset and f"{what}_mean" in row for row in rows)
    ]
    lines: dict[tuple[str, int | None], dict[Any, str]] = {}
    for row in rows:
        line = lines.setdefault((row["method"], row["samples"]), {})
        if "seconds" in row:
            line["seconds"] = f"{row['seconds']:.2f}"
        for what in ("validation", "test"):
            if f"{what}_mean" in row:
                line[row["dataset"], what] = _spread(row, what)
    has_seconds = any("seconds" in line for line in lines.values())
    keys = ["seconds", *columns] if has_seconds else columns
    header = ["chosen by", "N", *(key if isinstance(key, str) else " ".join(key) for key in keys)]
    return Table(
        f"Accuracy in %: mean ± standard deviation of {num_searches} random searches of N cells",
        header,
        [
            [method, "" if samples is None else str(samples)] + [line.get(key, "-") for key in keys]
            for (method, samples), line in sorted(lines.items(), key=_by_samples)
        ],
    )


def same_cells_table(
    published: Sequence[Mapping[str, Any]], ours: Sequence[Mapping[str, Any]]
) -> Table:
    """Published scores of EPE-NAS beside ours, on the same cells.

    Args:
      published: rows as from `paper_tables.correlation_row`, one a data set.
      ours: rows of our scores, of the data sets in that order.
    """
    return Table(
        "Spearman of EPE-NAS with test accuracy, 95 % interval, on the same cells",
        ["EPE-NAS", *(f"{row['dataset']}, {row['num_cells']} cells" for row in ours)],
        [
            [who, *(interval(row["spearman"]["all"]) for row in rows)]
            for who, rows in (("published", published), ("ours", ours))
        ],
    )


def correlation_tables(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Spearman, Kendall and regret of every proxy on one data set, best Spearman first.

    Args:
      rows: as from `paper_tables.correlation_row`, with `cells`, which cells these are, in words.
    """
    which = [row["cells"] for row in rows]
    rows = sorted(rows, key=lambda row: (which.index(row["cells"]), -_spearman(row)))
    proxies = [[row["proxy"], f"{row['num_cells']} {row['cells']}"] for row in rows]
    dataset, parts, sizes = rows[0]["dataset"], list(rows[0]["spearman"]), list(rows[0]["regret"])
    tables = []
    for name in ("Spearman", "Kendall"):
        values = [[interval(row[name.lower()][part]) for part in parts] for row in rows]
        tables.append(
            Table(
                f"{dataset}: {name} with test accuracy, 95 % interval",
                ["proxy", "cells", *parts],
                [[*proxy, *value] for proxy, value in zip(proxies, values, strict=True)],
            )
        )
    lost = [[_points(row["regret"].get(size)) for size in sizes] for row in rows]
    regret = Table(
        f"{dataset}: test accuracy lost to the best of the N cells drawn, points",
        ["proxy", "cells", *(f"N = {size}" for size in sizes)],
        [[*proxy, *points] for proxy, points in zip(proxies, lost, strict=True)],
    )
    return [*tables, regret]


def _by_samples(line: tuple[tuple[str, int | None], Any]) -> tuple[bool, int]:
    """A sort key: random choice first, then searches by length, then the best possible cell."""
    (method, samples), _ = line
    return samples is None and method.startswith("best"), samples or 0


def _spread(row: Mapping[str, Any], what: str) -> str:
    deviation = row.get(f"{what}_deviation")
    text = _points(row[f"{what}_mean"])
    return text if deviation is None or text == "-" else f"{text} ± {deviation:.2f}"


def _spearman(row: Mapping[str, Any]) -> float:
    correlation = row["spearman"]["all"]
    return -2 if correlation is None else correlation["value"]


def _points(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"
