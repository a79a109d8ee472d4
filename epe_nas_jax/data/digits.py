"""scikit-learn's handwritten digits: real images that need no file."""

import numpy as np

_SIDE = 32
_MAX_PIXEL = 16


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads the 1,797 digits, 8x8 pixels of 0..16, as colour images of 32x32.

    Returns:
      Images, uint8 `[M, 32, 32, 3]`, and labels, int `[M]`, classes 0..9.
    """
    # scikit-learn takes a second to import, and no other data set needs it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    scale = _SIDE // digits.images.shape[1]
    pixels = np.kron(digits.images, np.ones((1, scale, scale)))
    images = np.round(pixels * (255 / _MAX_PIXEL)).astype(np.uint8)
    return np.repeat(images[..., None], 3, axis=-1), digits.target
