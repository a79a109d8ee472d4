"""Networks of frameworks and collections that may be installed or not."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epe_nas_jax import rank_networks
from epe_nas_jax.networks.columns import NETWORK_COLUMNS
from epe_nas_jax.networks.heads import NEW_HEAD
from epe_nas_jax.proxies.table import PROXIES

SIGNALS = [name for name in NETWORK_COLUMNS if name in PROXIES]


def row_of(network, minibatch, num_classes=3):
    row = rank_networks({"n": network}, *minibatch, num_classes).iloc[0]
    assert row["error"] is None, row["error"]
    return row


def imported(name):
    """A package, or a skipped test: also one that is there and does not go with this PyTorch."""
    try:
        with warnings.catch_warnings():
            # torchvision misses the part of it that reads images.
            warnings.filterwarnings("ignore", "Failed to load image", UserWarning)
            return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{name}: {error}")


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(6, 6, (3, 3), rngs=rngs, param_dtype=jnp.float64)
        self.norm = nnx.BatchNorm(6, rngs=rngs, param_dtype=jnp.float64)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return x + self.drop(self.norm(self.conv(nnx.relu(x))))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), rngs=rngs, param_dtype=jnp.float64)
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(2)])
        self.classify = nnx.Linear(6, 3, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, images):
        first, second = self.blocks
        x = first(self.stem(images))
        x = second(nnx.avg_pool(x, (2, 2), (2, 2)))
        return self.classify(jnp.tanh(x).mean((1, 2)))


def plain(weights, images):
    """The same network as a function."""

    def conv(x, kernel, bias):
        numbers = ("NHWC", "HWIO", "NHWC")
        return bias + jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )

    def block(x, kernel, bias, scale, offset):
        y = conv(jax.nn.relu(x), kernel, bias.reshape(1, 1, 1, -1))
        y = (y - y.mean((0, 1, 2), keepdims=True)) / jnp.sqrt(
            y.var((0, 1, 2), keepdims=True) + 1e-5
        )
        return x + y * scale.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1)

    stem, first, second, (kernel, bias) = weights
    x = conv(images, stem[0], stem[1].reshape(1, 1, 1, -1))
    x = block(x, *first)
    x = block(x.reshape(len(x), 4, 2, 4, 2, 6).mean((2, 4)), *second)
    return jnp.tanh(x).mean((1, 2)) @ kernel + bias.reshape(1, -1)


def weights_of(module):
    def pair(layer):
        return [layer.kernel[...], layer.bias[...]]

    blocks = [
        [*pair(block.conv), block.norm.scale[...], block.norm.bias[...]] for block in module.blocks
    ]
    return [pair(module.stem), *blocks, pair(module.classify)]


def test_nnx_module_is_as_its_function_and_stays_as_it_was(minibatch):
    module = NnxNet(nnx.Rngs(0))
    module.eval()
    # NNX makes these in float32 whatever it is asked for.
    averages = nnx.state(module, nnx.BatchStat)
    nnx.update(module, jax.tree.map(lambda array: array.astype(jnp.float64), averages))
    before = jax.tree.map(np.array, nnx.state(module, nnx.Param, nnx.BatchStat))
    row = row_of(module, minibatch)
    expected = row_of((plain, weights_of(module)), minibatch)
    # Another order of the sums in batch norm, in float64, magnified by logarithms.
    np.testing.assert_allclose(
        row[SIGNALS].to_numpy(float), expected[SIGNALS].to_numpy(float), rtol=1e-7
    )
    assert row["params"] == expected["params"]
    after = nnx.state(module, nnx.Param, nnx.BatchStat)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    assert module.blocks[0].drop.deterministic
    assert module.blocks[0].norm.use_running_average


def test_equinox_module_is_as_its_function(minibatch):
    eqx = imported("equinox")

    class Net(eqx.Module):
        stem: eqx.nn.Conv2d
        block: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        drop: eqx.nn.Dropout
        classify: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            self.stem = eqx.nn.Conv2d(3, 6, 3, padding=1, key=keys[0])
            self.block = eqx.nn.Conv2d(6, 6, 3, padding=1, key=keys[1])
            self.norm = eqx.nn.BatchNorm(6, "batch", mode="batch")
            self.drop = eqx.nn.Dropout(0.5)
            self.classify = eqx.nn.Linear(6, 3, key=keys[2])

        def __call__(self, image, state, *, key):
            def block(x, state):
                y, state = self.norm(self.block(jax.nn.relu(x)), state)
                return x + self.drop(y, key=key), state

            x, state = block(self.stem(image), state)
            x, state = block(x.reshape(6, 4, 2, 4, 2).mean((2, 4)), state)
            return self.classify(jnp.tanh(x).mean((1, 2))), state

    module, state = eqx.nn.make_with_state(Net)(jax.random.key(0))
    row = row_of((module, state), minibatch)

    def turned(kernel):
        return kernel.transpose(2, 3, 1, 0)

    block = [turned(module.block.weight), module.block.bias.ravel()]
    block += [module.norm.weight, module.norm.bias]
    weights = [
        [turned(module.stem.weight), module.stem.bias.ravel()],
        block,
        block,
        [module.classify.weight.T, module.classify.bias],
    ]
    expected = row_of((plain, weights), minibatch)
    # The function has the block's weights twice, so that their gradients are another number.
    names = ["epe", "jacob_cov", "nwot", "grad_entropy", "grad_decay"]
    np.testing.assert_allclose(
        row[names].to_numpy(float), expected[names].to_numpy(float), rtol=1e-6
    )


def test_a_framework_in_another_form_is_said(minibatch):
    table = rank_networks({"n": (NnxNet(nnx.Rngs(0)), {})}, *minibatch, 3)
    assert table["error"][0] == "network 'n': found a NnxNet, expected Flax NNX module"


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 64, 64, 3)).astype(np.float32), np.arange(8) % 4


def test_torchvision_networks_have_every_signal(pictures):
    models = imported("torchvision").models
    networks = {
        name: models.get_model(name, num_classes=4) for name in ("resnet18", "mobilenet_v3_small")
    }
    # As torchvision makes it, the last layer is zeros.
    vit = models.VisionTransformer(64, 8, 3, 2, 32, 64, num_classes=4, dropout=0.1)
    table = rank_networks({**networks, "vit": vit}, *pictures, 4)
    assert table["error"].isna().all()
    assert np.isfinite(table[list(NETWORK_COLUMNS)].to_numpy(float)).all()
    assert list(table["note"]) == ["", "off: Dropout", f"off: Dropout; {NEW_HEAD}"]
    assert not vit.heads.head.weight.any()
    assert set(table["rank"]) == {1, 2, 3}


def test_timm_networks_have_every_signal(pictures):
    imported("torchvision")
    timm = imported("timm")
    sizes = {"img_size": 64, "depth": 3, "drop_path_rate": 0.1}
    networks = {
        "resnet18": timm.create_model("resnet18", num_classes=4),
        "mobilenet": timm.create_model("mobilenetv3_small_050", num_classes=4),
        "vit": timm.create_model("vit_tiny_patch16_224", num_classes=4, **sizes),
    }
    table = rank_networks(networks, *pictures, 4)
    assert table["error"].isna().all()
    assert np.isfinite(table[list(NETWORK_COLUMNS)].to_numpy(float)).all()
    assert "DropPath" in table["note"][2]
