"""A trained network, from the work directory of its training to predictions."""

import dataclasses
import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from epe_nas_jax.arrays import as_array
from epe_nas_jax.data.labelled import check_brightness, colour_bytes
from epe_nas_jax.errors import InputError
from epe_nas_jax.runs.storage import local_path
from epe_nas_jax.runs.workdir import (
    CHECKPOINTS,
    CONFIG_FILE,
    SUMMARY_FILE,
    checkpoints_of,
    read_provenance,
)
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.table import trainable_entry
from epe_nas_jax.training.step import normalise

# Images of one call of the compiled program; zeros fill up the last call.
PREDICT_BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class TrainedNetwork:
    """A trained network, as `load_trained` returns it.

    Attributes:
      network: the network around the cell.
      genotype: the cell, E ints.
      arch: the cell as a text.
      seed: of its training.
      variables: the weights, `params`, and batch norm's running averages, `batch_stats`.
      class_names: the names of the classes 0..K-1.
      side: H of the images on which it was trained.
      mean: mean of each channel of pixels divided by 255.
      std: standard deviation of each channel of pixels divided by 255.

    Examples:
      >>> from epe_nas_jax import load_trained
      >>> trained = load_trained("runs/trained")
      >>> trained.side, trained.class_names[:3]
      (8, ('0', '1', '2'))
    """

    network: CellNetwork
    genotype: tuple[int, ...]
    arch: str
    seed: int
    variables: Mapping[str, Any] = dataclasses.field(repr=False)
    class_names: tuple[str, ...]
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def probabilities(self, pixels: jax.Array) -> jax.Array:
        """The probability of every class, by a pure function that JAX can transform and export.

        Args:
          pixels: uint8 `[N, H, H, 3]`.

        Returns:
          float32 `[N, K]`.
        """
        return _probabilities(
            self.variables,
            pixels,
            network=self.network,
            genotype=self.genotype,
            mean=self.mean,
            std=self.std,
        )

    def predict(self, images: Any) -> np.ndarray:
        """The probability of every class for every image.

        Args:
          images: raw pixels as a data set holds them, not normalised: whole numbers 0..255 of any
            dtype, `[N, H, H, 3]`, or grey ones; an array of any library.

        Returns:
          float32 `[N, K]`; the columns are the classes in the order of `class_names`.

        Raises:
          InputError: the images are something else, or have another side than H.

        Examples:
          >>> from epe_nas_jax import load_dataset, load_trained
          >>> trained = load_trained("runs/trained")
          >>> digits = load_dataset("digits", side=trained.side)
          >>> trained.predict(digits.images[:5]).argmax(axis=1).shape
          (5,)
        """
        pixels = self._check(np.asarray(as_array(images, "images")))
        found = []
        for start in range(0, len(pixels), PREDICT_BATCH):
            batch = pixels[start : start + PREDICT_BATCH]
            # One size needs only one compiled program.
            filled = np.zeros((PREDICT_BATCH, *batch.shape[1:]), np.uint8)
            filled[: len(batch)] = batch
            found.append(np.asarray(self.probabilities(jnp.asarray(filled)))[: len(batch)])
        return np.concatenate(found)

    def _check(self, images: np.ndarray) -> np.ndarray:
        pixels = colour_bytes(images, "images")
        # Bytes can be those of a dark image; in other dtypes 1 often stands for white.
        if images.dtype != np.uint8:
            check_brightness(pixels, "images")
        _, height, width, _ = pixels.shape
        if (height, width) != (self.side, self.side):
            raise InputError(
                f"images: found {width}x{height} pixels, "
                f"expected {self.side}x{self.side} as in training"
            )
        return pixels


@functools.partial(jax.jit, static_argnames=("network", "genotype", "mean", "std"))
def _probabilities(
    variables: Mapping[str, Any],
    pixels: jax.Array,
    *,
    network: CellNetwork,
    genotype: tuple[int, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> jax.Array:
    # By default a GPU would round the factors of products.
    with jax.default_matmul_precision("highest"):
        x = normalise(pixels, mean, std, network.param_dtype)
        logits: Any = network.apply(variables, x, genotype, use_running_average=True)
        return jax.nn.softmax(logits)


class _Facts(NamedTuple):
    """What a work directory says of its training."""

    space: str
    channels: int
    cells_per_stage: int
    arch: str
    kept_epochs: list[int]
    seeds: list[int]
    class_names: tuple[str, ...]
    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_trained(workdir: str | os.PathLike[str], *, seed: int | None = None) -> TrainedNetwork:
    """Loads the network of a finished training from its work directory.

    The data set is not needed: its classes and statistics are in the work directory.

    Args:
      workdir: the work directory of the training.
      seed: one of the seeds that were trained; None: the first one.

    Raises:
      InputError: the directory holds no finished training, or none with that seed; or its weights
        cannot be read, or are those of another cell.

    Examples:
      >>> from epe_nas_jax import load_trained
      >>> trained = load_trained("runs/trained", seed=1)
      >>> trained.arch
      '|nor_conv_1x1~0|+|none~0|none~1|+|avg_pool_3x3~0|nor_conv_3x3~1|skip_connect~2|'
    """
    directory = local_path(workdir)
    _check_finished(directory)
    facts = _facts_of(directory)
    entry = trainable_entry(facts.space)
    genotype = tuple(entry.space.parse(facts.arch).tolist())
    seed = facts.seeds[0] if seed is None else seed
    if seed not in facts.seeds:
        known = ", ".join(map(str, facts.seeds))
        raise InputError(f"seed: found {seed}, expected one that was trained: {known}")
    network = entry.make_network(
        len(facts.class_names), facts.channels, facts.cells_per_stage, jnp.dtype("float32")
    )
    expected = jax.eval_shape(
        lambda: network.init(
            jax.random.key(0),
            jnp.zeros((1, facts.side, facts.side, 3), jnp.float32),
            genotype,
            use_running_average=True,
        )
    )
    place = checkpoints_of(directory, seed)
    epoch = dict(zip(facts.seeds, facts.kept_epochs, strict=True))[seed]
    variables = _read_weights(place, epoch, facts.arch)
    _check_weights(variables, expected, f"{place}, weights", facts.arch)
    return TrainedNetwork(
        network=network,
        genotype=genotype,
        arch=facts.arch,
        seed=seed,
        variables=jax.device_put(variables),
        class_names=facts.class_names,
        side=facts.side,
        mean=facts.mean,
        std=facts.std,
    )


def _check_finished(directory: Path) -> None:
    """Checks that a directory is that of a finished training, by what is in it."""
    expected = "expected the work directory of a finished training"
    if not directory.is_dir():
        found = "a file" if directory.exists() else "nothing"
        raise InputError(f"{directory}: found {found}, {expected}")
    for name in (CONFIG_FILE, CHECKPOINTS):
        if not (directory / name).exists():
            raise InputError(f"{directory}: found no {name}, {expected} (epe-nas train)")
    if not (directory / SUMMARY_FILE).exists():
        raise InputError(
            f"{directory}: found an unfinished training, expected a finished one "
            "(the same train command continues it)"
        )


def _facts_of(directory: Path) -> _Facts:
    config = read_provenance(directory)["config"]
    path = directory / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text())
        facts = _Facts(
            _one(config["space"]["name"], str),
            _one(config["network"]["channels"], int),
            _one(config["network"]["cells_per_stage"], int),
            _one(config["arch"], str),
            list(_several(summary["kept_epochs"], int)),
            list(_several(summary["seeds"], int)),
            _several(summary["class_names"], str),
            _one(summary["side"], int),
            _several(summary["mean"], float),
            _several(summary["std"], float),
        )
        trained_arch = _one(summary["arch"], str)
        if min(facts.channels, facts.cells_per_stage) < 1 or not (
            len(facts.mean) == len(facts.std) == 3 and len(facts.seeds) == len(facts.kept_epochs)
        ):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(
            f"{directory}: found {CONFIG_FILE} and {SUMMARY_FILE} of something else, "
            "expected those of a finished training"
        ) from None
    if facts.arch != trained_arch:
        raise InputError(
            f"{directory}, arch: found {facts.arch} in {CONFIG_FILE}, "
            f"expected {trained_arch} as in {SUMMARY_FILE}"
        )
    return facts


def _one(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _several(values: Any, kind: type) -> tuple[Any, ...]:
    if not _one(values, list):
        raise ValueError
    return tuple(_one(value, kind) for value in values)


def _read_weights(place: Path, epoch: int, arch: str) -> dict[str, Any]:
    """The weights and running averages of a cell after an epoch, as NumPy arrays."""
    wanted = f"expected the checkpoint of epoch {epoch}"
    if not (place / str(epoch)).is_dir():
        raise InputError(f"{place}: found none, {wanted}")
    options = ocp.CheckpointManagerOptions(create=False)
    handler = ocp.PyTreeCheckpointHandler()
    # Orbax and its libraries can raise any exception on a damaged checkpoint, also after a while.
    hook = sys.unraisablehook
    sys.unraisablehook = _silent_about_late_reads(hook)
    try:
        with ocp.CheckpointManager(
            place.absolute(), options=options, item_handlers=handler
        ) as manager:
            # As NumPy arrays, because the devices of the training may not exist here.
            on_host = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
                manager.item_metadata(epoch).tree,
            )
            state = manager.restore(epoch, args=ocp.args.PyTreeRestore(restore_args=on_host))
            trained_arch = (manager.metadata(epoch).custom_metadata or {}).get("arch")
        weights = {name: state[name] for name in ("params", "batch_stats")}
    except Exception as error:
        raise InputError(f"{place}: not readable ({error}), {wanted}") from None
    sys.unraisablehook = hook
    if trained_arch != arch:
        raise InputError(f"{place}, epoch {epoch}: found {trained_arch}, expected the cell {arch}")
    return weights


def _silent_about_late_reads(hook: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A hook without the errors of reads that end after Orbax has failed, which none can catch."""

    def silent(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return silent


def _check_weights(found: Any, expected: Any, where: str, arch: str) -> None:
    """Checks that weights are those of a cell.

    Raises:
      InputError: an array is missing, of another shape, or one too many.
    """
    shapes, wanted = _shapes(found), _shapes(expected)
    for path in dict.fromkeys([*wanted, *shapes]):
        if shapes.get(path) != wanted.get(path):
            has, wants = (
                f"shape {some[path]}" if path in some else "none" for some in (shapes, wanted)
            )
            raise InputError(
                f"{where}, array {path!r}: found {has}, expected {wants} for the cell {arch}"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves
    }
