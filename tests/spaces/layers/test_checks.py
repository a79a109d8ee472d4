import numpy as np
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.spaces.layers.checks import check_images, check_labels, check_minibatch


def test_what_fits_passes_and_the_number_of_classes_is_found(minibatch):
    images, labels = minibatch
    check_images(images)
    assert check_minibatch(images, labels, None) == 3
    assert check_minibatch(images, labels, 5) == 5
    # Labels go with images of any shape.
    assert check_labels(images.reshape(8, -1), labels, None) == 3


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8)), "found rank 3"),
        (np.zeros((2, 8, 4, 3)), "found 8x4 pixels"),
        (np.zeros((2, 6, 6, 3)), "divisible by 4"),
        (np.zeros((2, 0, 0, 3)), "found 0x0 pixels"),
        (np.zeros((2, 8, 8, 3), np.uint8), "found dtype uint8"),
        (np.zeros((2, 3, 8, 8)), r"channels first, \(2, 3, 8, 8\), expected them last: turn them"),
        (np.zeros((2, 1, 8, 8)), r"with images.transpose\(0, 2, 3, 1\)"),
    ],
)
def test_images_that_no_network_takes_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        check_minibatch(images, np.zeros(2, int), 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:1], y[:1]), "images: found 1, expected at least 2"),
        (lambda x, y: (np.where(x == x[1, 2, 3, 0], np.nan, x), y), "NaN or infinite pixels"),
        (lambda x, y: (np.where(x == x[1, 2, 3, 0], np.inf, x), y), "NaN or infinite pixels"),
        (lambda x, y: (x, y[:-1]), "labels: found 7, expected 8, one per image"),
        (lambda x, y: (x, y[:, None]), r"labels: found int32 of shape \(8, 1\)"),
        (lambda x, y: (x, y.astype(float)), "labels: found float64"),
        (lambda x, y: (x, y.astype("M8[s]")), "labels: found datetime64"),
        (lambda x, y: (x, y.astype("m8[s]")), "labels: found timedelta64"),
        (lambda x, y: (x, y.astype(np.uint64) + 2**31), r"found 2147483650, expected 0\.\.2"),
        (lambda x, y: (x, y.astype(np.uint64) + 2**63), r"found 9223372036854775810, expected"),
        (lambda x, y: (x, y + 1), r"labels: found 3, expected 0\.\.2"),
        (lambda x, y: (x, y - 1), r"labels: found -1, expected 0\.\.2"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(minibatch, change, message):
    for check in (check_minibatch, check_labels):
        with pytest.raises(InputError, match=message):
            check(*change(*minibatch), 3)


@pytest.mark.parametrize("largest", [100000, 2**31, 2**40, 2**63])
def test_label_ids_that_are_no_classes_are_refused_with_their_count(largest):
    labels = np.array([0, 5, largest, 5], np.uint64)
    with pytest.raises(
        InputError,
        match=rf"found 3 different ones from 0 to {largest}, expected classes 0\.\.K-1: number",
    ):
        check_labels(np.zeros((4, 2)), labels, None)
    assert check_labels(np.zeros((4, 2)), np.unique(labels, return_inverse=True)[1], None) == 3


@pytest.mark.parametrize(
    ("labels", "num_classes"), [([1, 2, 3, 1], 4), ([0, 2, 3, 0], 4), ([0, 1, 0, 3], 4)]
)
def test_a_class_without_an_image_is_said(labels, num_classes):
    images = np.zeros((4, 2))
    with pytest.warns(UserWarning, match=f"found 3 different ones from .* as {num_classes} class"):
        assert check_labels(images, np.array(labels), None) == num_classes
    # Who says how many there are is not told.
    assert check_labels(images, np.array(labels), num_classes) == num_classes
