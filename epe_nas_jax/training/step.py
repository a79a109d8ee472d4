"""Training one cell's network by NAS-Bench-201's recipe (Dong & Yang 2020, section 2 and table 1).

SGD with Nesterov momentum 0.9 and weight decay 5e-4 on every parameter, a cosine from 0.1 to 0 that
moves between epochs, mini-batches of 256 images cropped and flipped, 200 epochs, cross-entropy.

The functions are pure. A mini-batch that is sharded over devices is trained on as one: batch norm's
statistics and the gradient are those of the whole mini-batch.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from epe_nas_jax.arrays import PRECISIONS
from epe_nas_jax.data.minibatch import augment_images
from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import CellNetwork

NO_IMAGE = -1

# Weights do not depend on the side of the images.
_SMALLEST_SIDE = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; by default as NAS-Bench-201 did.

    Attributes:
      epochs: passes over the data set.
      batch_size: N; images that do not fill a mini-batch wait for the next epoch's shuffle.
      learning_rate: at the start; it falls to 0 along half a cosine and is constant in an epoch.
      momentum: of SGD, by Nesterov.
      weight_decay: added to the gradient of every parameter, batch norm's and biases included.
      augment: random crop after padding (4 for 32 pixels) and horizontal flip.
      label_smoothing: the share of an image's target that all classes have alike, from 0 and below
        1 (Szegedy et al. 2016, section 7).
      precision: what GPUs and TPUs may round the factors of products to, as in
        `PRECISIONS`; sums and weights stay in float32.
      patience: a training ends after so many epochs without a better accuracy of the held-out
        images, and its network is that of the best epoch; 0: it never ends early.
    """

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augment: bool = True
    label_smoothing: float = 0.0
    precision: str = "float32"
    patience: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("patience", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: found {getattr(self, name)}, expected at least {least}")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: found {self.learning_rate}, expected more than 0")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum: found {self.momentum}, expected 0 <= momentum < 1")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay: found {self.weight_decay}, expected at least 0")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(
                f"label_smoothing: found {self.label_smoothing}, expected 0 <= label_smoothing < 1"
            )
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise InputError(f"precision: found {self.precision!r}, expected one of {known}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained and how; equal ones share a compiled program.

    Attributes:
      network: the network around the cell.
      genotype: the cell, E ints.
      recipe: how to train.
      num_images: M.
      mean: of each channel of pixels divided by 255.
      std: standard deviation of each channel of these.
      class_weights: by how much the loss of an image of each class counts; empty: all alike.
    """

    network: CellNetwork
    genotype: tuple[int, ...]
    recipe: Recipe
    num_images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.recipe.batch_size > self.num_images:
            raise InputError(
                f"batch_size: found {self.recipe.batch_size}, "
                f"expected at most {self.num_images}, the size of the data set"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.num_images // self.recipe.batch_size

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.epochs * self.steps_per_epoch


class TrainState(NamedTuple):
    """What a step changes.

    Attributes:
      step: steps done, an int32 scalar.
      params: the weights.
      batch_stats: batch norm's running averages.
      opt_state: Optax's state: the momentum of every weight, and counters.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any


class Sums(NamedTuple):
    """Sums over images.

    Attributes:
      loss: of the cross-entropy.
      num_correct: images whose largest logit is that of their class.
      num_images: how many images.
    """

    loss: jax.Array
    num_correct: jax.Array
    num_images: jax.Array


def balanced_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
    """Weights of classes by which all of them count alike: M / (J M_k).

    M_k images have class k, and J classes have images. The mean over all images is 1.

    Args:
      labels: the classes of the training images, int `[M]`.
      num_classes: K.

    Returns:
      K of them; 0 for a class without an image.
    """
    counts = np.bincount(labels, minlength=num_classes)
    shares = np.count_nonzero(counts) * np.maximum(counts, 1)
    weights = np.where(counts, len(labels) / shares, 0.0)
    return tuple(weights.tolist())


def learning_rate(recipe: Recipe, epoch: int | jax.Array) -> jax.Array:
    """The learning rate of an epoch, counted from 0: lr/2 (1 + cos(pi epoch / epochs))."""
    return optax.cosine_decay_schedule(recipe.learning_rate, recipe.epochs)(jnp.asarray(epoch))


@functools.partial(jax.jit, static_argnames="training")
def init_state(key: jax.Array, *, training: Training) -> TrainState:
    """The state before the first step: weights drawn as for scoring, averages 0 and 1.

    Args:
      key: random key, consumed.
      training: what is trained.
    """
    images = jnp.zeros((1, _SMALLEST_SIDE, _SMALLEST_SIDE, 3), training.network.param_dtype)
    variables = training.network.init(key, images, training.genotype, use_running_average=True)
    params = variables["params"]
    opt_state = _optimizer(training).init(params)
    return TrainState(jnp.int32(0), params, variables["batch_stats"], opt_state)


def epoch_rows(key: jax.Array, epoch: int, training: Training) -> np.ndarray:
    """The images of an epoch, shuffled: int `[steps, N]`; a key and an epoch have one order.

    Args:
      key: random key, not consumed.
      epoch: counted from 0.
      training: what is trained.
    """
    order = jax.random.permutation(jax.random.fold_in(key, epoch), training.num_images)
    shape = (training.steps_per_epoch, training.recipe.batch_size)
    return np.asarray(order)[: shape[0] * shape[1]].reshape(shape)


@functools.partial(jax.jit, static_argnames="training", donate_argnames="state")
def train_step(
    state: TrainState, key: jax.Array, images: jax.Array, labels: jax.Array, *, training: Training
) -> tuple[TrainState, Sums]:
    """One step of SGD.

    Args:
      state: before the step; its memory is used again.
      key: random key of the training's augmentation, not consumed: a key and a step have one draw.
      images: a mini-batch, uint8 `[N, H, H, 3]`.
      labels: its classes, int `[N]`.
      training: what is trained.

    Returns:
      The state after the step, and the sums over the mini-batch before it.
    """
    recipe = training.recipe
    x = _normalised(images, training)
    if recipe.augment:
        black = _normalised(jnp.zeros((1, 1, 1, 3), images.dtype), training).reshape(3)
        x = augment_images(jax.random.fold_in(key, state.step), x, black)

    def mean_loss(params: Any) -> tuple[jax.Array, tuple[Sums, Any]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = training.network.apply(
            variables, x, training.genotype, mutable=["batch_stats"]
        )
        sums = _sums(logits, labels)
        if recipe.label_smoothing or training.class_weights:
            return _weighted_loss(logits, labels, training), (sums, updated["batch_stats"])
        return sums.loss / len(x), (sums, updated["batch_stats"])

    with jax.default_matmul_precision(recipe.precision):
        gradient, (sums, batch_stats) = jax.grad(mean_loss, has_aux=True)(state.params)
    updates, opt_state = _optimizer(training).update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state), sums


@functools.partial(jax.jit, static_argnames="training")
def evaluate(
    state: TrainState, images: jax.Array, labels: jax.Array, *, training: Training
) -> Sums:
    """Sums over a mini-batch, normalised by the running averages and not augmented.

    Args:
      state: as trained.
      images: uint8 `[N, H, H, 3]`.
      labels: classes, int `[N]`; `NO_IMAGE` for what fills up a mini-batch and does not count.
      training: what was trained.
    """
    return _sums(_logits(state, images, training), labels)


@functools.partial(jax.jit, static_argnames="training")
def probabilities(state: TrainState, images: jax.Array, *, training: Training) -> jax.Array:
    """The probability of every class for every image, `[N, K]`; the arguments as of `evaluate`."""
    return jax.nn.softmax(_logits(state, images, training))


def normalise(
    pixels: jax.Array, mean: tuple[float, ...], std: tuple[float, ...], dtype: jnp.dtype
) -> jax.Array:
    """Images as a network takes them.

    Args:
      pixels: uint8 `[N, H, H, 3]`.
      mean: of each channel of pixels divided by 255.
      std: standard deviation of each channel of these.
      dtype: of the result.

    Returns:
      `[N, H, H, 3]`.
    """
    mean_, std_ = (jnp.array(v, dtype).reshape(1, 1, 1, 3) for v in (mean, std))
    return (pixels.astype(dtype) / 255 - mean_) / std_


def _logits(state: TrainState, images: jax.Array, training: Training) -> jax.Array:
    """Logits by the running averages."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    x = _normalised(images, training)
    with jax.default_matmul_precision("float32"):
        logits: Any = training.network.apply(
            variables, x, training.genotype, use_running_average=True
        )
    return logits


def _normalised(images: jax.Array, training: Training) -> jax.Array:
    return normalise(images, training.mean, training.std, training.network.param_dtype)


def _optimizer(training: Training) -> optax.GradientTransformation:
    recipe = training.recipe

    def schedule(step: jax.Array) -> jax.Array:
        return learning_rate(recipe, step // training.steps_per_epoch)

    # Decay before momentum, as PyTorch does it.
    return optax.chain(
        optax.add_decayed_weights(recipe.weight_decay),
        optax.sgd(schedule, recipe.momentum, nesterov=True),
    )


def _weighted_loss(logits: jax.Array, labels: jax.Array, training: Training) -> jax.Array:
    """The mean of the cross-entropy to smoothed targets, by the weight of each image's class."""
    num_classes = logits.shape[-1]
    targets = optax.smooth_labels(
        jax.nn.one_hot(labels, num_classes, dtype=logits.dtype), training.recipe.label_smoothing
    )
    weights = jnp.array(training.class_weights or [1.0] * num_classes, logits.dtype)[labels]
    return jnp.mean(weights * optax.softmax_cross_entropy(logits, targets))


def _sums(logits: jax.Array, labels: jax.Array) -> Sums:
    counts = labels != NO_IMAGE
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    correct = counts & (jnp.argmax(logits, axis=-1) == labels)
    return Sums(jnp.sum(jnp.where(counts, losses, 0)), jnp.sum(correct), jnp.sum(counts))
