import numpy as np

from epe_nas_jax.data.datasets import load_dataset


def test_digits_are_32_pixel_colour_images_of_every_class():
    digits = load_dataset("digits")
    assert digits.images.shape == (1797, 32, 32, 3)
    assert digits.images.dtype == np.uint8
    assert digits.images.max() == 255
    assert digits.num_classes == 10
    assert set(digits.labels.tolist()) == set(range(10))
    # One source pixel is a block of 4x4.
    blocks = digits.images.reshape(1797, 8, 4, 8, 4, 3)
    assert np.array_equal(blocks.min(axis=(2, 4)), blocks.max(axis=(2, 4)))
