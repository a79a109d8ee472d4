"""Mini-batches, drawn on the device from a key and a data set."""

import jax
import jax.numpy as jnp
from jax import lax

# The side in units of the padding: the released code pads 32 pixels by 4, and 16 pixels by 2.
_SIDE_IN_PADDINGS = 8


def draw_minibatch(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
    *,
    augment: bool,
    black: jax.Array,
    balanced_classes: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Draws a mini-batch of different images from a data set.

    Args:
      key: random key, consumed.
      images: normalised images, `[M, H, H, C]`.
      labels: their classes, `[M]`.
      batch_size: N, at most M.
      augment: crop and flip the images as the released code does.
      black: a normalised black pixel, `[C]`, that fills the part of a crop outside the image.
      balanced_classes: K, to draw as `draw_balanced_rows` does; None: uniformly.

    Returns:
      The images `[N, H, H, C]` and labels `[N]` of a mini-batch.

    Examples:
      >>> from epe_nas_jax.data.minibatch import draw_minibatch
      >>> black = jnp.zeros(3)
      >>> key = jax.random.key(0)
      >>> few, classes = draw_minibatch(
      ...     key, jnp.asarray(images), jnp.asarray(labels), 4, augment=True, black=black
      ... )
      >>> few.shape, classes.shape
      ((4, 8, 8, 3), (4,))
    """
    rows, augment_key = draw_rows(key, labels, batch_size, balanced_classes=balanced_classes)
    images, labels = images[rows], labels[rows]
    if augment:
        images = augment_images(augment_key, images, black)
    return images, labels


def draw_rows(
    key: jax.Array, labels: jax.Array, batch_size: int, *, balanced_classes: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Draws which images of a data set make a mini-batch.

    Args:
      key: random key, consumed.
      labels: the classes of all images, `[M]`.
      batch_size: N, at most M.
      balanced_classes: K, to draw as `draw_balanced_rows` does; None: uniformly.

    Returns:
      N different rows, int `[N]`, and a new key, for `augment_images`.

    Examples:
      >>> from epe_nas_jax.data.minibatch import draw_rows
      >>> rows, augment_key = draw_rows(jax.random.key(0), jnp.asarray(labels), 4)
      >>> len(set(rows.tolist()))
      4
    """
    rows_key, augment_key = jax.random.split(key)
    if balanced_classes is None:
        rows = jax.random.choice(rows_key, labels.shape[0], (batch_size,), replace=False)
    else:
        rows = draw_balanced_rows(rows_key, labels, balanced_classes, batch_size)
    return rows, augment_key


def draw_balanced_rows(
    key: jax.Array, labels: jax.Array, num_classes: int, batch_size: int
) -> jax.Array:
    """Draws rows of a data set, as many of each class as possible, none of them twice.

    Numbers of images of any two classes differ by at most one, except where a class has no more
    images. If N is not a multiple of K, it is random which classes have one image more. If N < 2 K,
    only N // 2 random classes take part, so that each has two images, and one of them three if N is
    odd: a class with one image has no correlation to measure. A class that has only one image is
    drawn only where the images of all others do not fill the mini-batch.

    Args:
      key: random key, consumed.
      labels: classes 0..K-1, int `[M]`.
      num_classes: K.
      batch_size: N, at most M.

    Returns:
      Rows, int32 `[N]`.

    Examples:
      >>> from epe_nas_jax.data.minibatch import draw_balanced_rows
      >>> rows = draw_balanced_rows(jax.random.key(0), jnp.asarray(labels), 3, 6)
      >>> np.bincount(labels[rows])
      array([2, 2, 2])
    """
    order_key, class_key = jax.random.split(key)
    num_images = labels.shape[0]
    shuffled = jax.random.permutation(order_key, num_images)
    classes = labels[shuffled]
    counts = jnp.bincount(labels, length=num_classes)

    # How many images of its class come before an image.
    by_class = jnp.argsort(classes, stable=True)
    starts = jnp.cumsum(counts) - counts
    ranks = jnp.arange(num_images) - starts[classes[by_class]]
    ranks = jnp.zeros_like(ranks).at[by_class].set(ranks)

    draws = jax.random.uniform(class_key, (num_classes,))
    if batch_size % 2:
        # N is odd: one class gets three images, and takes its turn first.
        first = jnp.argmin(jnp.where(counts >= 3, draws, 1))
        draws = draws.at[first].set(jnp.where(counts[first] >= 3, -1, draws[first]))
    turns = jnp.argsort(jnp.argsort(jnp.where(counts >= 2, draws, 2)))
    num_taking_part = jnp.minimum(jnp.sum(counts >= 2), batch_size // 2)
    turns = turns[classes]
    order = jnp.lexsort((turns, ranks, turns >= num_taking_part))
    return shuffled[order[:batch_size]].astype(jnp.int32)


def augment_images(key: jax.Array, images: jax.Array, black: jax.Array) -> jax.Array:
    """Crops images at random after padding by an eighth of their side, and flips half of them.

    Args:
      key: random key, consumed.
      images: `[N, H, H, C]`.
      black: the pixel that fills the padding, `[C]`.

    Returns:
      Images of the same shape.
    """
    num_images, side, _, channels = images.shape
    padding = side // _SIDE_IN_PADDINGS
    crop_key, flip_key = jax.random.split(key)
    corners = jax.random.randint(crop_key, (num_images, 2), 0, 2 * padding + 1)
    flips = jax.random.bernoulli(flip_key, 0.5, (num_images,))
    black = black.reshape(1, 1, channels)

    def augment(image: jax.Array, corner: jax.Array, flip: jax.Array) -> jax.Array:
        widths = ((padding, padding), (padding, padding), (0, 0))
        padded = jnp.pad(image - black, widths) + black
        crop = lax.dynamic_slice(padded, (corner[0], corner[1], 0), (side, side, channels))
        return jnp.where(flip, crop[:, ::-1], crop)

    return jax.vmap(augment)(images, corners, flips)
