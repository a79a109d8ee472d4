"""Mini-batches drawn on the device: pure functions of a key and a data set.

Shape legend: M images in the data set, N in the mini-batch, H height and width, C channels.
"""

import jax
import jax.numpy as jnp
from jax import lax

# The released code pads images of 32 pixels by 4 and images of 16 by 2.
_PADDING_SHARE = 8


def draw_minibatch(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
    *,
    augment: bool,
    black: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Draws different images from a data set.

    Args:
      key: random key, consumed.
      images: normalised images, `[M, H, H, C]`.
      labels: their classes, `[M]`.
      batch_size: N, at most M.
      augment: crop and flip the images as the released code does.
      black: a normalised black pixel, `[C]`, that fills what a crop takes from outside.

    Returns:
      A mini-batch: images `[N, H, H, C]` and labels `[N]`.
    """
    order_key, augment_key = jax.random.split(key)
    rows = jax.random.choice(order_key, images.shape[0], (batch_size,), replace=False)
    images, labels = images[rows], labels[rows]
    if augment:
        images = augment_images(augment_key, images, black)
    return images, labels


def augment_images(key: jax.Array, images: jax.Array, black: jax.Array) -> jax.Array:
    """Random crop after padding by an eighth of the side, and horizontal flip half of the time.

    Args:
      key: random key, consumed.
      images: `[N, H, H, C]`.
      black: the pixel of the padding, `[C]`.

    Returns:
      Images of the same shape.
    """
    num_images, side, _, channels = images.shape
    padding = side // _PADDING_SHARE
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
