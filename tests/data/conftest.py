import numpy as np
import pytest


@pytest.fixture
def write_npz(tmp_path):
    def write(images=None, labels=None, **others):
        images = np.zeros((4, 8, 8, 3), np.uint8) if images is None else images
        labels = np.arange(4) if labels is None else labels
        path = tmp_path / "images.npz"
        np.savez(path, x_train=images, y_train=labels, **others)
        return str(path)

    return write
