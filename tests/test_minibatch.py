import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax.minibatch import augment_images, draw_minibatch


def test_draw_takes_different_images_with_their_labels():
    labels = jnp.arange(20)
    images = jnp.broadcast_to(labels.reshape(20, 1, 1, 1), (20, 4, 4, 3)).astype(jnp.float32)
    key = jax.random.key(0)
    drawn, classes = draw_minibatch(key, images, labels, 15, augment=False, black=jnp.zeros(3))
    assert len(set(classes.tolist())) == 15
    assert np.array_equal(drawn[:, 0, 0, 0], classes)


@pytest.mark.parametrize(("side", "padding"), [(32, 4), (16, 2)])
def test_augmentation_crops_the_padded_image_and_flips_half_of_the_time(side, padding):
    num_images = 400
    rng = np.random.default_rng(0)
    images = rng.normal(size=(num_images, side, side, 3))
    black = np.array([-1.0, -2.0, -3.0])
    out = np.asarray(augment_images(jax.random.key(0), jnp.asarray(images), jnp.asarray(black)))
    flips, corners = [], set()
    for image, result in zip(images, out, strict=True):
        padded = np.broadcast_to(black, (side + 2 * padding, side + 2 * padding, 3)).copy()
        padded[padding:-padding, padding:-padding] = image
        found = [
            (i, j, flipped)
            for i in range(2 * padding + 1)
            for j in range(2 * padding + 1)
            for flipped in (False, True)
            if np.allclose(padded[i : i + side, j : j + side][:, :: -1 if flipped else 1], result)
        ]
        assert len(found) == 1
        corners.add(found[0][:2])
        flips.append(found[0][2])
    # 400 draws of 81 corners leave fewer than one out; flips within 4 standard deviations of half.
    assert len(corners) > 0.85 * (2 * padding + 1) ** 2
    assert abs(np.mean(flips) - 0.5) < 4 * 0.5 / np.sqrt(num_images)
