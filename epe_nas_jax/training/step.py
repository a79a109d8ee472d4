"""Training one cell's network by NAS-Bench-201's recipe (Dong & Yang 2020, section 2 and table 1).

SGD with Nesterov momentum 0.9 and weight decay 5e-4 on every parameter, a learning rate that falls
along a cosine from 0.1 to 0 and changes between epochs, mini-batches of 256 images cropped and
flipped, 200 epochs, cross-entropy.

The functions are pure. A mini-batch may be sharded over devices: batch norm's statistics and the
gradient are those of the whole mini-batch.
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

# The label of an entry that fills up a mini-batch and does not count.
NO_IMAGE = -1

# The side of the images by which weights are made, which do not depend on it.
_SMALLEST_SIDE = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained; by default as in NAS-Bench-201.

    Attributes:
      epochs: passes over the data set.
      batch_size: N; an epoch leaves out the images that do not fill a last mini-batch.
      learning_rate: at the start; it falls to 0 along half a cosine and is constant in an epoch.
      momentum: Nesterov momentum of SGD, at least 0 and below 1.
      weight_decay: this times a weight is added to its gradient, also for batch norm and biases.
      augment: random crop after padding (4 for 32 pixels) and horizontal flip.
      label_smoothing: the share of an image's target that is spread evenly over all classes, at
        least 0 and below 1 (Szegedy et al. 2016, section 7).
      precision: to what GPUs and TPUs may round the factors of products, one of `PRECISIONS`; sums
        and weights stay in float32.
      patience: a training ends after this many epochs without a better accuracy on the held-out
        images, and its network is that of the best epoch; 0: it never ends early.

    Examples:
      >>> from epe_nas_jax.training.step import Recipe
      >>> Recipe(epochs=12).learning_rate
      0.1
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
    """What is trained and how; equal trainings share a compiled program.

    Attributes:
      network: the network around the cell.
      genotype: the cell, E ints.
      recipe: how to train.
      num_images: M, the size of the data set.
      mean: mean of each channel of pixels divided by 255.
      std: standard deviation of each channel of pixels divided by 255.
      class_weights: K weights of the loss of an image by its class; empty: all count equally.

    Examples:
      >>> from epe_nas_jax.training.step import Recipe, Training
      >>> training = Training(
      ...     network=network,
      ...     genotype=(3, 1, 1, 1, 1, 1),
      ...     recipe=Recipe(epochs=2, batch_size=4),
      ...     num_images=8,
      ...     mean=(0.5, 0.5, 0.5),
      ...     std=(0.2, 0.2, 0.2),
      ... )
      >>> training.steps_per_epoch, training.num_steps
      (2, 4)
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
        """How many steps an epoch has."""
        return self.num_images // self.recipe.batch_size

    @property
    def num_steps(self) -> int:
        """How many steps the whole training has."""
        return self.recipe.epochs * self.steps_per_epoch


class TrainState(NamedTuple):
    """The state of a training, which every step changes.

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
    """Sums over images, from which loss and accuracy are computed.

    Attributes:
      loss: the sum of the cross-entropies.
      num_correct: how many images have their class as their largest logit.
      num_images: how many images there are.
    """

    loss: jax.Array
    num_correct: jax.Array
    num_images: jax.Array


def balanced_weights(labels: np.ndarray, num_classes: int) -> tuple[float, ...]:
    """Weights by which all classes count equally: M / (J M_k) for class k.

    M_k images have class k, and J classes have images. The mean weight over all images is 1.

    Args:
      labels: the classes of the training images, int `[M]`.
      num_classes: K.

    Returns:
      K weights; 0 for a class without an image.

    Examples:
      >>> from epe_nas_jax.training.step import balanced_weights
      >>> balanced_weights(np.array([0, 0, 0, 1]), 2)
      (0.666..., 2.0)
    """
    counts = np.bincount(labels, minlength=num_classes)
    shares = np.count_nonzero(counts) * np.maximum(counts, 1)
    weights = np.where(counts, len(labels) / shares, 0.0)
    return tuple(weights.tolist())


def learning_rate(recipe: Recipe, epoch: int | jax.Array) -> jax.Array:
    """The learning rate of an epoch, counted from 0: lr/2 (1 + cos(pi epoch / epochs)).

    Examples:
      >>> from epe_nas_jax.training.step import Recipe, learning_rate
      >>> [round(float(learning_rate(Recipe(epochs=4), epoch)), 3) for epoch in range(4)]
      [0.1, 0.085, 0.05, 0.015]
    """
    return optax.cosine_decay_schedule(recipe.learning_rate, recipe.epochs)(jnp.asarray(epoch))


@functools.partial(jax.jit, static_argnames="training")
def init_state(key: jax.Array, *, training: Training) -> TrainState:
    """The state before the first step, with weights drawn as for scoring.

    Batch norm's running means are 0 and its running variances 1.

    Args:
      key: random key, consumed.
      training: what is trained.

    Examples:
      >>> from epe_nas_jax.training.step import Recipe, Training, init_state
      >>> facts = {"num_images": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3}
      >>> recipe = Recipe(batch_size=8)
      >>> training = Training(network=network, genotype=(3,) + (1,) * 5, recipe=recipe, **facts)
      >>> int(init_state(jax.random.key(0), training=training).step)
      0
    """
    images = jnp.zeros((1, _SMALLEST_SIDE, _SMALLEST_SIDE, 3), training.network.param_dtype)
    variables = training.network.init(key, images, training.genotype, use_running_average=True)
    params = variables["params"]
    opt_state = _optimizer(training).init(params)
    return TrainState(jnp.int32(0), params, variables["batch_stats"], opt_state)


def epoch_rows(key: jax.Array, epoch: int, training: Training) -> np.ndarray:
    """The images of an epoch as shuffled rows of the data set, int `[steps, N]`.

    Args:
      key: random key, not consumed: the order depends on the key and the epoch only.
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
    """Trains on one mini-batch, by one step of SGD.

    Args:
      state: before the step; it cannot be used afterwards, because its memory is used again.
      key: random key of the augmentation, not consumed: the draw depends on the key and the step.
      images: a mini-batch, uint8 `[N, H, H, 3]`.
      labels: its classes, int `[N]`.
      training: what is trained.

    Returns:
      The state after the step, and the sums over the mini-batch by the weights before the step.

    Examples:
      >>> from epe_nas_jax.training.step import Recipe, Training, init_state, train_step
      >>> recipe = Recipe(batch_size=8, augment=False)
      >>> facts = {"num_images": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3}
      >>> training = Training(network=network, genotype=(3,) + (1,) * 5, recipe=recipe, **facts)
      >>> state = init_state(jax.random.key(0), training=training)
      >>> pixels = np.zeros((8, 8, 8, 3), np.uint8)
      >>> state, sums = train_step(state, jax.random.key(1), pixels, labels, training=training)
      >>> int(state.step), int(sums.num_images)
      (1, 8)
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
    """Sums loss and correct predictions over a mini-batch, by the running averages.

    Args:
      state: as trained.
      images: uint8 `[N, H, H, 3]`, not augmented.
      labels: classes, int `[N]`; `NO_IMAGE` for an entry that fills up a mini-batch.
      training: what was trained.

    Examples:
      >>> from epe_nas_jax.training.step import Recipe, Training, evaluate, init_state
      >>> facts = {"num_images": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3}
      >>> recipe = Recipe(batch_size=8)
      >>> training = Training(network=network, genotype=(3,) + (1,) * 5, recipe=recipe, **facts)
      >>> state = init_state(jax.random.key(0), training=training)
      >>> pixels = np.zeros((8, 8, 8, 3), np.uint8)
      >>> int(evaluate(state, pixels, labels, training=training).num_images)
      8
    """
    return _sums(_logits(state, images, training), labels)


@functools.partial(jax.jit, static_argnames="training")
def probabilities(state: TrainState, images: jax.Array, *, training: Training) -> jax.Array:
    """The probability of every class for every image, by the running averages.

    Args:
      state: as trained.
      images: uint8 `[N, H, H, 3]`.
      training: what was trained.

    Returns:
      Probabilities, `[N, K]`.

    Examples:
      >>> from epe_nas_jax.training.step import Recipe, Training, init_state, probabilities
      >>> facts = {"num_images": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3}
      >>> recipe = Recipe(batch_size=8)
      >>> training = Training(network=network, genotype=(3,) + (1,) * 5, recipe=recipe, **facts)
      >>> state = init_state(jax.random.key(0), training=training)
      >>> probabilities(state, np.zeros((8, 8, 8, 3), np.uint8), training=training).shape
      (8, 3)
    """
    return jax.nn.softmax(_logits(state, images, training))


def normalise(
    pixels: jax.Array, mean: tuple[float, ...], std: tuple[float, ...], dtype: jnp.dtype
) -> jax.Array:
    """Normalises pixels to images as a network takes them.

    Args:
      pixels: uint8 `[N, H, H, 3]`.
      mean: mean of each channel of pixels divided by 255.
      std: standard deviation of each channel of pixels divided by 255.
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
