# %% [markdown]
# # Your own network
#
# Networks of any framework in one ranking: two of Flax NNX, one of PyTorch, and a plain function.
# None is trained.

# %%
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from epe_nas_jax import NETWORK_RANKING, load_dataset, rank_networks

digits = load_dataset("digits")
rows = np.random.default_rng(0).choice(
    len(digits.images), 64, replace=False
)
images, labels = digits.normalised(rows), digits.labels[rows]


# %% [markdown]
# ## The candidates
#
# A module of Flax NNX is given as it is:


# %%
class Convolutional(nnx.Module):
    def __init__(self, width: int, depth: int, rngs: nnx.Rngs):
        sizes = [3] + [width] * depth
        self.layers = nnx.List(
            [
                nnx.Conv(channels_in, channels_out, (3, 3), rngs=rngs)
                for channels_in, channels_out in itertools.pairwise(sizes)
            ]
        )
        self.head = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, images):
        x = images
        for layer in self.layers:
            x = nnx.relu(layer(x))
        return self.head(x.mean(axis=(1, 2)))


# %% [markdown]
# So is a module of PyTorch. It gets its images with channels first, as PyTorch's modules expect
# them.

# %%
torch.manual_seed(0)
in_pytorch = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3, padding=1),
    torch.nn.BatchNorm2d(32),
    torch.nn.ReLU(),
    torch.nn.Conv2d(32, 32, 3, padding=1),
    torch.nn.BatchNorm2d(32),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(32, 10),
)

# %% [markdown]
# A function of weights and images is given with its weights:


# %%
def perceptron(weights, images):
    hidden = jax.nn.relu(images.reshape(len(images), -1) @ weights["in"])
    return hidden @ weights["out"]


key_in, key_out = jax.random.split(jax.random.key(0))
weights = {
    "in": jax.random.normal(key_in, (3072, 64)) / jnp.sqrt(3072 / 2),
    "out": jax.random.normal(key_out, (64, 10)) / jnp.sqrt(64),
}

# %% [markdown]
# ## The ranking

# %%
table = rank_networks(
    {
        "nnx, 16 wide, 2 deep": Convolutional(16, 2, nnx.Rngs(0)),
        "nnx, 64 wide, 4 deep": Convolutional(64, 4, nnx.Rngs(0)),
        "pytorch, batch norm": in_pytorch,
        "perceptron": (perceptron, weights),
    },
    images,
    labels,
    num_classes=10,
)
table

# %% [markdown]
# The score is the column of `NETWORK_RANKING`:

# %%
NETWORK_RANKING

# %%
_ = table.plot.barh(
    x="network",
    y=list(NETWORK_RANKING),
    figsize=(6, 2.4),
    legend=False,
    xlabel="nwot",
)

# %% [markdown]
# It is a coarse guide: over 78 networks of torchvision its rank correlation with the accuracy
# after training is 0.65 ([how well this ranks](../any-network.md#how-well-this-ranks)). Within a
# family of networks, the larger one is usually the better one. As a command, for candidates in a file:
# `epe-nas rank --networks=candidates.py`.
