"""A data set's images as a folder of files."""

import numpy as np

from epe_nas_jax import load_dataset
from experiments.as_folder import write_folder


def test_the_folder_is_read_as_the_data_set_that_it_was_written_from(tmp_path):
    assert write_folder("digits", "", 40, tmp_path / "images") == 40
    digits = load_dataset("digits")
    found = load_dataset("folder", str(tmp_path / "images"))
    order = np.argsort(digits.labels[:40], kind="stable")
    np.testing.assert_array_equal(found.images, digits.images[:40][order])
    np.testing.assert_array_equal(found.labels, digits.labels[:40][order])
