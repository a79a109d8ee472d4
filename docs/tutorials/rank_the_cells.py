# %% [markdown]
# # Rank the cells
#
# A hundred untrained cells of NAS-Bench-201 are ranked on handwritten digits, in about a minute
# on two CPU cores. Then the ranking is questioned: by other weights, and by what parameters alone
# would say.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

from epe_nas_jax import BEST_RANKING, load_dataset, score_table
from epe_nas_jax.search import algorithms, ranking
from epe_nas_jax.spaces.nasbench201.genotype import sample
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

digits = load_dataset("digits")
rows = np.random.default_rng(0).choice(
    len(digits.images), 32, replace=False
)
images, labels = digits.normalised(rows), digits.labels[rows]
images.shape, np.bincount(labels)

# %% [markdown]
# ## One call
#
# `score_table` compiles one program for all cells, and runs it. The score adds up the logarithms of
# five ranks among these cells; larger is better. A cell without a path from input to output has no
# score.

# %%
cells = np.asarray(sample(jax.random.key(0), 100))
table = score_table(cells, images, labels)
table.sort_values("rank")[["rank", "score", "arch", *BEST_RANKING]].head(8)

# %%
table["score"].isna().sum(), "cells without a score"

# %% [markdown]
# ## Why is this cell the first?
#
# The rank of the best cells by each of the five signals alone:

# %%
signals = table[list(BEST_RANKING)].rank(ascending=False)
signals.assign(arch=table["arch"], rank=table["rank"]).sort_values(
    "rank"
).head(8)

# %% [markdown]
# ## What it looks like

# %%
from IPython.display import HTML

from epe_nas_jax.reports.cell_drawing import cell_drawing

STYLE = """<style>
svg.cell { max-width: 22em } svg.cell text { text-anchor: middle; font-size: 12px; fill: black }
.edge { fill: none; stroke-width: 2 } rect.label, circle.node { fill: white; stroke: grey }
.edge.conv { stroke: #0072b2 } .edge.pool { stroke: #d55e00 } .edge.skip { stroke: #009e73 }
</style>"""
best = cells[ranking.best_index(table["score"].to_numpy())]
HTML(STYLE + cell_drawing(NASBENCH201.graphs(best)[0], "the best cell"))

# %% [markdown]
# ## How much of it is chance?
#
# The same cells with other weights:

# %%
again = score_table(cells, images, labels, seed=1)
ranking.spearman(table["score"].to_numpy(), again["score"].to_numpy())

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
axes[0].scatter(table["score"], again["score"], s=12)
axes[0].set(xlabel="score, seed 0", ylabel="score, seed 1")
axes[1].scatter(table["params"] / 1e6, table["score"], s=12)
_ = axes[1].set(xlabel="millions of parameters", ylabel="score")
# %% [markdown]
# ## Search
#
# An algorithm asks for cells and receives their scores. Here evolution looks at 100 of the 15,625
# cells, 20 at a time; the score of a step's cells is their EPE-NAS score, which is a number of
# its own and not a rank.

# %%
from epe_nas_jax import compile_scorer

scorer = compile_scorer(images, labels, seed=0)
algorithm = algorithms.evolution(
    population=20, tournament=5, candidates_per_step=20, space=NASBENCH201
)
result = algorithms.run(algorithm, jax.random.key(0), scorer, 100)

random_100 = scorer(cells)
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
axes.plot(np.fmax.accumulate(np.asarray(result.scores)), label="evolution")
axes.plot(np.fmax.accumulate(np.asarray(random_100)), label="random")
axes.set(xlabel="cells scored", ylabel="best score so far")
_ = axes.legend(frameon=False)

# %% [markdown]
# As a command, with a report and a log from which a killed run goes on:
#
# ```
# epe-nas search --config=fast --workdir=runs/fast --config.search.algorithm=evolution
# ```
#
# Next: [your own images](your_own_images.py), or [how well this ranks](../ranking.md).
