import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epe_nas_jax.data.minibatch import augment_images, draw_balanced_rows, draw_minibatch


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


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=40),
    st.integers(2, 40),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_balanced_rows_share_the_minibatch_among_the_classes(labels, batch_size, seed):
    num_classes = 7
    labels = np.array(labels)
    batch_size = min(batch_size, len(labels))
    rows = np.asarray(
        draw_balanced_rows(jax.random.key(seed), jnp.asarray(labels), num_classes, batch_size)
    )
    assert len(set(rows.tolist())) == batch_size
    available = np.bincount(labels, minlength=num_classes)
    drawn = np.bincount(labels[rows], minlength=num_classes)

    # As few single images as any choice of the numbers of images leaves.
    assert np.sum(drawn == 1) == fewest_singles(available, batch_size)
    # As equal as possible among those that take part: a class has fewer than another, by more than
    # one, only where it has no more images.
    taking_part = drawn >= 2
    if taking_part.any():
        most = drawn.max()
        assert (drawn[taking_part] >= np.minimum(available[taking_part], most - 1)).all()
    # Classes are left out only where two images of each do not fit.
    left_out = (drawn == 0) & (available >= 2)
    if left_out.any():
        assert drawn.sum() < 2 * np.sum(available >= 2)
        assert np.sum(taking_part) == batch_size // 2


def fewest_singles(available, batch_size):
    """The fewest classes of one image in a mini-batch, by trying out every sum there is."""
    best = {0: 0}
    for count in available:
        options = {}
        for total, singles in best.items():
            for taken in range(min(count, batch_size - total) + 1):
                value = singles + (taken == 1)
                options[total + taken] = min(value, options.get(total + taken, value))
        best = options
    return best[batch_size]


def test_which_class_has_one_more_is_random():
    labels = jnp.repeat(jnp.arange(3), 10)
    draws = [
        np.bincount(labels[draw_balanced_rows(jax.random.key(seed), labels, 3, 7)]).tolist()
        for seed in range(30)
    ]
    assert all(sorted(counts) == [2, 2, 3] for counts in draws)
    assert {counts.index(3) for counts in draws} == {0, 1, 2}


def test_every_image_of_a_class_can_be_drawn():
    labels = jnp.repeat(jnp.arange(2), 5)
    drawn = {
        int(row)
        for seed in range(30)
        for row in draw_balanced_rows(jax.random.key(seed), labels, 2, 4)
    }
    # An image is left out of 30 draws of 2 of 5 with probability 0.6^30 = 2e-7.
    assert drawn == set(range(10))


def test_balanced_minibatches_are_drawn_under_jit_and_vmap():
    labels = jnp.arange(40) % 4 * jnp.asarray(jnp.arange(40) < 20)
    images = jnp.broadcast_to(jnp.arange(40.0).reshape(40, 1, 1, 1), (40, 4, 4, 3))
    draw = functools.partial(
        draw_minibatch,
        images=images,
        labels=labels,
        batch_size=16,
        augment=False,
        black=jnp.zeros(3),
        balanced_classes=4,
    )
    keys = jax.random.split(jax.random.key(0), 5)
    drawn, classes = jax.jit(jax.vmap(draw))(keys)
    for key, batch, its_classes in zip(keys, drawn, classes, strict=True):
        assert np.bincount(its_classes).tolist() == [4] * 4
        assert np.array_equal(its_classes, labels[batch[:, 0, 0, 0].astype(int)])
        assert np.array_equal(batch, draw(key)[0])
    assert len({tuple(row) for row in drawn[:, :, 0, 0, 0].tolist()}) == 5
