r"""Compares ways to compute the 3x3 convolutions of the network's stages with the one we use.

On one core, because scoring runs a cell on each core; the ways take turns, and the median of all
turns is printed. Each way is a function of images `[N, H, W, C]` and a kernel `[3, 3, C, O]`,
checked against float64.

Command:  python -m benchmarks.convolutions --batch=256
"""

import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from epe_nas_jax.spaces.layers.convolution import convolve

_SIDE = flags.DEFINE_integer("side", 32, "Pixels of the first stage, 16 times n.", lower_bound=16)
_BATCH = flags.DEFINE_integer("batch", 256, "Images in the mini-batch, 8 times n.", lower_bound=8)
_TURNS = flags.DEFINE_integer("turns", 5, "How often each way is run.", lower_bound=1)

_REPEATS = 5
_IMAGES_AT_ONCE = 8
Convolution = Callable[[jax.Array, jax.Array], jax.Array]


def main(argv: Sequence[str]) -> None:
    """Prints the table as Markdown."""
    del argv
    if _SIDE.value % 16 or _BATCH.value % _IMAGES_AT_ONCE:
        raise app.UsageError("expected a side that is a multiple of 16, and a batch, of 8")
    jax.config.update("jax_num_cpu_devices", 1)
    print("| stage | way | ms | GFLOP/s of 9 products a pixel | largest error |")
    print("| --- | --- | ---: | ---: | ---: |")
    for stage in range(3):
        side, channels = _SIDE.value // 2**stage, 16 * 2**stage
        keys = jax.random.split(jax.random.key(stage))
        x = jax.random.normal(keys[0], (_BATCH.value, side, side, channels))
        kernel = jax.random.normal(keys[1], (3, 3, channels, channels))
        flop = 2 * 9 * x.size * channels
        for name, (seconds, error) in measured(x, kernel).items():
            figures = f"{1e3 * seconds:.2f} | {flop / seconds / 1e9:.0f} | {error:.0e}"
            print(f"| {side}x{side}, {channels} channels | {name} | {figures} |")


def measured(x: jax.Array, kernel: jax.Array) -> dict[str, tuple[float, float]]:
    """Seconds of each way, and its largest error relative to the largest output."""
    with jax.enable_x64(True):
        exact = np.asarray(direct(x.astype(jnp.float64), kernel.astype(jnp.float64)))
    programs, errors = {}, {}
    for name, way in WAYS.items():
        errors[name] = float(np.abs(way(x, kernel) - exact).max() / np.abs(exact).max())
        programs[name] = jax.jit(functools.partial(repeated, way))
        programs[name](x, kernel).block_until_ready()
    turns: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(_TURNS.value):
        for name, program in programs.items():
            start = time.perf_counter()
            program(x, kernel).block_until_ready()
            turns[name].append((time.perf_counter() - start) / _REPEATS)
    return {name: (float(np.median(turns[name])), errors[name]) for name in WAYS}


def repeated(way: Convolution, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Runs a way several times, in a loop as in scoring."""
    return lax.fori_loop(0, _REPEATS, lambda _, x: way(x, kernel) / 100, x)


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The compiler's convolution."""
    layout = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)


def in_bfloat16(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The compiler's convolution of factors in bfloat16, which some processors support."""
    return direct(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)).astype(x.dtype)


def few_at_once(way: Convolution) -> Convolution:
    """Applies a way to a few images at a time, so that they stay in the caches."""

    def convolve_all(x: jax.Array, kernel: jax.Array) -> jax.Array:
        blocks = x.reshape(-1, _IMAGES_AT_ONCE, *x.shape[1:])
        return lax.map(lambda block: way(block, kernel), blocks).reshape(x.shape)

    return convolve_all


def by_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One product of all 3x3 patches (im2col)."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    taps = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


def by_taps(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Nine products, one for each tap of the kernel, added up."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    products = [
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    ]
    return sum(products[1:], start=products[0])


# Lavin & Gray 2016, F(2x2, 3x3) and F(4x4, 3x3): matrices for image tiles, kernels and outputs.
_TILES_OF_2 = (
    ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    ((1, 1, 1, 0), (0, 1, -1, -1)),
)
_TILES_OF_4 = (
    (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
    (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
    ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
)


def by_tiles(matrices: Sequence[Sequence[Sequence[float]]]) -> Convolution:
    """Products of tiles (Winograd): fewer multiplications, and more additions."""
    of_image, of_kernel, to_pixels = matrices
    size, step = len(of_image), len(to_pixels)

    def convolve_tiles(x: jax.Array, kernel: jax.Array) -> jax.Array:
        n, height, width, channels = x.shape
        weights = jnp.stack(
            two_ways(of_kernel, [[kernel[i, j] for j in range(3)] for i in range(3)])
        )
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        pixels = [
            [
                padded[:, i : i + height - step + 1 : step, j : j + width - step + 1 : step]
                for j in range(size)
            ]
            for i in range(size)
        ]
        tiles = jnp.stack(two_ways(of_image, pixels))
        shape = tiles.shape[1:-1]
        products = jnp.matmul(tiles.reshape(size**2, -1, channels), weights)
        products = products.reshape(size, size, *shape, -1)
        out = two_ways(to_pixels, [[products[i, j] for j in range(size)] for i in range(size)])
        rows = [jnp.stack(out[i * step : (i + 1) * step], axis=3) for i in range(step)]
        return jnp.stack(rows, axis=2).reshape(n, height, width, -1)

    return convolve_tiles


def two_ways(
    matrix: Sequence[Sequence[float]], grid: Sequence[Sequence[jax.Array]]
) -> list[jax.Array]:
    """A matrix applied to the columns and the rows of a grid of arrays, row by row."""
    columns = [times(matrix, column) for column in zip(*grid, strict=True)]
    return [value for row in zip(*columns, strict=True) for value in times(matrix, row)]


def times(matrix: Sequence[Sequence[float]], values: Sequence[jax.Array]) -> list[jax.Array]:
    """A matrix times a vector of arrays, without the zeros."""
    return [
        sum(
            (factor * value for factor, value in zip(row, values, strict=True) if factor),
            start=jnp.zeros_like(values[0]),
        )
        for row in matrix
    ]


WAYS: dict[str, Convolution] = {
    "ours": convolve,
    "the compiler's": direct,
    "the compiler's in bfloat16": in_bfloat16,
    "patches": few_at_once(by_patches),
    "nine products": few_at_once(by_taps),
    "tiles of 2x2": few_at_once(by_tiles(_TILES_OF_2)),
    "tiles of 4x4": few_at_once(by_tiles(_TILES_OF_4)),
}


if __name__ == "__main__":
    app.run(main)
