# %% [markdown]
# # A GPU
#
# The same calls run on a GPU; nothing in them changes. This page says what to install, what to
# check, and which three settings matter there: how many cells run at once, what may be rounded,
# and how many GPUs share the work. It was built on a machine without a GPU, as its outputs show.
#
# ```
# pip install 'epe_nas_jax[cuda] @ git+URL-of-your-clone'
# ```

# %%
import time

import jax
import numpy as np

from epe_nas_jax import (
    NasBench201Network,
    ScoringConfig,
    compile_scorer,
    load_dataset,
)
from epe_nas_jax.search import ranking
from epe_nas_jax.spaces.nasbench201.genotype import sample

jax.devices()

# %% [markdown]
# Where this shows a `CpuDevice` beside a GPU, JAX has not found it: `JAX_PLATFORMS=cuda` then
# says why.
#
# ## Cells at once
#
# On a GPU the cells of a step run at once, each operation on a group of them; on a CPU each core
# scores one after the other. `cells_per_step="auto"` takes as many as the memory holds.
# `vectorise=True` makes a CPU run the program of a GPU, to see that it computes the same:

# %%
digits = load_dataset("digits")
rows = np.random.default_rng(0).choice(
    len(digits.images), 32, replace=False
)
images, labels = digits.normalised(rows), digits.labels[rows]
cells = np.asarray(sample(jax.random.key(0), 24))

# A small network, so that this page is built in a minute.
network = NasBench201Network(num_classes=10, channels=8, cells_per_stage=1)
scorer = compile_scorer(images, labels, seed=0, network=network)
at_once = compile_scorer(
    images,
    labels,
    seed=0,
    network=network,
    vectorise=True,
    cells_per_step=8,
)
scores = np.asarray(scorer(cells))
(
    np.nanmax(np.abs(np.asarray(at_once(cells)) / scores - 1)),
    "largest relative difference",
)

# %%
start = time.perf_counter()
scorer(cells)
f"{1e3 * (time.perf_counter() - start) / len(cells):.1f} ms a cell on {jax.devices()[0]}"

# %% [markdown]
# ## Precision
#
# A GPU is faster where it may round the factors of products: `score.precision=tensorfloat32` or
# `bfloat16` ([what that changes](../performance.md#precision)). A CPU never rounds, so here both
# give the same scores:

# %%
rounded = compile_scorer(
    images,
    labels,
    seed=0,
    network=network,
    config=ScoringConfig(precision="bfloat16"),
)
ranking.spearman(scores, np.asarray(rounded(cells)))

# %% [markdown]
# ## Several GPUs
#
# One process uses all GPUs of a machine; there is nothing to set. In a clone, `launch/local.py`
# starts one process for each GPU of a machine instead, and on several machines a cluster starts
# `epe-nas search --distributed` on each ([many hosts](../scaling.md#many-hosts)):
#
# ```
# python launch/local.py --gpus=0,1 -- --config=digits --workdir=runs/digits
# ```
#
# ## What to expect
#
# The program was compiled for GPU models without having one, and its operations were counted ([the
# account](../performance.md#the-program-of-a-gpu-without-a-gpu)): an estimate, not a measurement.
# On your GPU `python -m benchmarks.throughput` measures.
