r"""How well counts, and the tables of other devices, predict the latency measured on this machine.

Cells of NAS-Bench-201 are drawn, and each one's network, in the benchmark's sizes, is measured as
for `search.max_latency_ms` (docs/search.md, "Latency"). Nothing else should run meanwhile.

Command:  python -m experiments.latency --cells=60 --batches=1,32 --table=nasbench201_hw.csv.gz
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import app, flags
from tqdm import tqdm

from epe_nas_jax import InputError
from epe_nas_jax.networks.latency import latency_ms
from epe_nas_jax.reports.text import Table, as_markdown, interval
from epe_nas_jax.runs import runtime
from epe_nas_jax.runs.workdir import device_name
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201
from epe_nas_jax.spaces.table import space_entry
from experiments.spaces import SIZES, texts_of

_SPACE = "nasbench201"
_IMAGE_SHAPE = (32, 32, 3)
# The end of the names of columns of latencies.
_LATENCY = "_latency"

Measure = Callable[[CellNetwork, np.ndarray, tuple[int, ...], int], float]


def main(_: list[str]) -> None:
    """Prints the tables as Markdown."""
    runtime.prepare()
    args = flags.FLAGS
    batch_sizes = [int(size) for size in args.batches]
    network = space_entry(_SPACE).make_network(*SIZES[_SPACE], jnp.dtype(jnp.float32))
    genotypes = np.asarray(NASBENCH201.sample(jax.random.key(0), args.cells))
    # Read first, because measuring takes long.
    devices = devices_of(args.table, genotypes) if args.table else None
    measured = measure(network, genotypes, batch_sizes)
    tables = [table_of("a count", counts_of(network, genotypes), measured)]
    if devices is not None:
        tables.append(table_of("another device", devices, measured))
    print("\n\n".join(map(as_markdown, tables)))


def measure(
    network: CellNetwork,
    genotypes: np.ndarray,
    batch_sizes: Sequence[int],
    measure_one: Measure = latency_ms,
) -> pd.DataFrame:
    """Measures the live forms of cells `[A, E]`: milliseconds, a column per size of mini-batch."""
    live = network.space.prune_dead(genotypes)
    found = {
        f"{size} image{'s' if size > 1 else ''}": [
            measure_one(network, genotype, _IMAGE_SHAPE, size)
            for genotype in tqdm(live, desc=f"batch {size}", unit="cell")
        ]
        for size in batch_sizes
    }
    return pd.DataFrame(found)


def counts_of(network: CellNetwork, genotypes: np.ndarray) -> pd.DataFrame:
    """What can be counted in cells `[A, E]`, a column per count; `none` counts as no operation."""
    side = _IMAGE_SHAPE[0]
    built, live = (network.cost(genotypes, side=side, live=live) for live in (False, True))
    num_operations = np.sum(network.space.prune_dead(genotypes) != 0, axis=1)
    return pd.DataFrame(
        {
            "parameters": built.params,
            "FLOPs": built.flops,
            "live parameters": live.params,
            "live FLOPs": live.flops,
            "live operations": num_operations,
        }
    )


def devices_of(path: str, genotypes: np.ndarray) -> pd.DataFrame:
    """Latencies of cells `[A, E]` on other devices, columns of a table; NaN where missing.

    Raises:
      InputError: the table lacks a cell, or has no column of latencies.
    """
    table = pd.read_csv(path)
    names = [str(name) for name in table if str(name).endswith(_LATENCY)]
    if not names:
        raise InputError(f"{path}: found no column NAME{_LATENCY}, expected some")
    table = table.set_index(pd.Index(texts_of(table, _SPACE)))
    archs = [NASBENCH201.format(genotype) for genotype in genotypes]
    for arch in archs:
        if arch not in table.index:
            raise InputError(f"{path}: found no cell {arch}, expected its latencies")
    return pd.DataFrame(
        {name.removesuffix(_LATENCY): table.loc[archs, name].to_numpy() for name in names}
    )


def table_of(what: str, predictors: pd.DataFrame, measured: pd.DataFrame) -> Table:
    """Spearman of each predictor with each measured column, with 95 % intervals over the cells."""
    # The agreement between measured columns says how good a predictor can be.
    first = str(next(iter(measured)))
    rows = [[f"measured, {first}", *_correlations(measured[first], measured)]]
    rows += [[str(name), *_correlations(predictors[name], measured)] for name in predictors]
    heads = [
        f"{name}, {measured[name].min():.3g} to {measured[name].max():.3g} ms" for name in measured
    ]
    title = (
        f"{len(measured)} cells of NAS-Bench-201: Spearman of {what} with the latency measured on "
        f"{device_name()}"
    )
    return Table(title, [what, *heads], rows)


def _correlations(values: pd.Series, measured: pd.DataFrame) -> list[str]:
    found = [
        ranking.spearman(values.to_numpy(np.float64), measured[name].to_numpy())
        for name in measured
    ]
    return [interval(correlation and correlation._asdict()) for correlation in found]


if __name__ == "__main__":
    flags.DEFINE_integer("cells", 60, "How many uniformly drawn cells.", lower_bound=3)
    flags.DEFINE_list("batches", ["1", "32"], "Images in the mini-batch, for each table column.")
    flags.DEFINE_string("table", None, "Latencies of other devices, such as HW-NAS-Bench's.")
    app.run(main)
