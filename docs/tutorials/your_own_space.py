# %% [markdown]
# # Your own space
#
# A search space is a record of functions on genotypes, and a network that is called with images
# and a genotype. Here is a whole one: four layers in a row, each of which is skipped, a 1x1
# convolution or a 3x3 convolution. All its 81 cells are scored in one compiled program.

# %%
import flax.linen as nn
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from epe_nas_jax import InputError, load_dataset, score_table
from epe_nas_jax.spaces.base import Cost, SearchSpace
from epe_nas_jax.spaces.product import Product

# %% [markdown]
# ## The cells
#
# A genotype is a row of four numbers, each 0, 1 or 2. `Product` has what every such space needs:
# sampling, mutation, neighbours, checks. The names are ours.

# %%
LAYERS = ("skip", "conv1", "conv3")
CELLS = Product(num_entries=4, num_choices=len(LAYERS))


def parse(text):
    names = text.split("-")
    if len(names) != CELLS.num_entries or not set(names) <= set(LAYERS):
        raise InputError(
            f"cell {text!r}: expected four of {', '.join(LAYERS)}, joined by -"
        )
    return np.array([LAYERS.index(name) for name in names], np.int32)


def format_cell(genotype):
    return "-".join(
        LAYERS[layer]
        for layer in CELLS.check(np.asarray(genotype)[None])[0]
    )


ROW = SearchSpace(
    name="row",
    num_edges=CELLS.num_entries,
    parse=parse,
    format=format_cell,
    check=CELLS.check,
    identity=CELLS.identity,
    sample=CELLS.sample,
    sample_with_replacement=lambda key, num: CELLS.sample(
        key, num, replace=True
    ),
    mutate=CELLS.mutate,
    neighbours=CELLS.neighbours,
    every=CELLS.every,
    # Every layer counts, and every cell has a path.
    prune_dead=np.asarray,
    has_path=lambda genotypes: np.ones(len(genotypes), bool),
    relative_work=lambda genotypes: 1.0 + np.sum(genotypes, axis=1),
    graphs=lambda genotype: (),
    canonical_form=None,
)
[format_cell(cell) for cell in ROW.every()[:5]]

# %% [markdown]
# ## The network
#
# It must take a traced genotype: the program is compiled once, for all cells. So both
# convolutions are computed, and one is chosen; for a space of many operations
# `spaces.layers.grouped_switch` computes only those that are needed.
#
# The random numbers of a layer must not depend on the genotype, so that a cell has the same
# weights alone and among others.


# %%
class RowNetwork(nn.Module):
    num_classes: int
    channels: int = 16
    param_dtype: jnp.dtype = jnp.float32

    @property
    def space(self):
        return ROW

    @property
    def group_work(self):
        return None

    def activation_count(self, batch_shape):
        return (
            10
            * CELLS.num_entries
            * float(np.prod(batch_shape[:3]))
            * self.channels
        )

    def cost(self, genotypes, *, side, image_channels=3, live=False):
        per_layer = np.array([0, self.channels**2, 9 * self.channels**2])
        params = per_layer[CELLS.check(genotypes)].sum(axis=1)
        ends = self.channels * (image_channels * 9 + self.num_classes)
        return Cost(params + ends, (params + ends) * side**2)

    @nn.compact
    def __call__(self, images, genotype):
        x = self.conv(images, 3, "stem")
        for layer in range(CELLS.num_entries):
            conv1 = self.conv(nn.relu(x), 1, f"conv1_{layer}")
            conv3 = self.conv(nn.relu(x), 3, f"conv3_{layer}")
            x = jnp.stack([x, conv1, conv3])[jnp.asarray(genotype)[layer]]
        head = nn.Dense(self.num_classes, use_bias=False)
        return head(nn.relu(x).mean((1, 2)))

    def conv(self, x, size, name):
        layer = nn.Conv(
            self.channels, (size, size), use_bias=False, name=name
        )
        x = layer(x)
        mean, deviation = (
            x.mean((0, 1, 2), keepdims=True),
            x.std((0, 1, 2), keepdims=True),
        )
        return (x - mean) / (deviation + 1e-3)


# %% [markdown]
# ## Score every cell
#
# The five signals of the best ranking need gradients at the ends of cells, which this network
# does not report ([what a space may leave out](../spaces.md#what-a-space-may-leave-out)).
# `jacob_cov` and EPE-NAS need the input Jacobian only.

# %%
digits = load_dataset("digits")
rows = np.random.default_rng(0).choice(
    len(digits.images), 64, replace=False
)
images, labels = digits.normalised(rows), digits.labels[rows]

table = score_table(
    ROW.every(),
    images,
    labels,
    network=RowNetwork(num_classes=10),
    objective=("epe",),
    columns=("jacob_cov",),
)
table.sort_values("rank")[
    ["rank", "arch", "score", "jacob_cov", "params"]
].head()

# %%
depth = [
    sum(layer != "skip" for layer in arch.split("-"))
    for arch in table["arch"]
]
figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
axes.scatter(depth, table["score"], s=12)
_ = axes.set(
    xlabel="layers that are not skipped",
    ylabel="EPE-NAS score",
    xticks=range(5),
)

# %% [markdown]
# [Extending the package](../extending.md#a-space) puts a space into the package, so that every
# command takes `--config.space.name`; [search](../search.md) works on this one as it is.
