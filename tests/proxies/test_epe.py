import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import torch

from epe_nas_jax import InputError, epe_score, input_jacobian
from epe_nas_jax.proxies.epe import class_scores, correlation_matrix


def random_case(num_classes, num_images, seed, num_inputs=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_images, num_inputs)), rng.integers(0, num_classes, num_images)


def test_correlation_matrix_is_numpys():
    jacobian, _ = random_case(3, 20, 0)
    assert np.allclose(correlation_matrix(jacobian), np.corrcoef(jacobian), atol=1e-14)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_correlation_matrix_survives_any_scale_in_float32(scale):
    jacobian = random_case(3, 20, 0)[0].astype(np.float32)
    got = correlation_matrix(jacobian * np.float32(scale))
    assert np.allclose(got, np.corrcoef(jacobian), atol=1e-6)


@pytest.mark.parametrize("variant", ["released", "two_branch"])
@pytest.mark.parametrize("num_classes", [1, 2, 10, 99, 100, 101, 120])
@pytest.mark.parametrize("num_images", [2, 40, 200])
def test_score_is_the_loop_over_classes(num_classes, num_images, variant):
    # With 40 images in 100 classes most are absent and many have one image.
    jacobian, labels = random_case(num_classes, num_images, num_classes + num_images)
    got = epe_score(jacobian, labels, num_classes, variant)
    expected = oracles.epe_score(jacobian, labels, num_classes, variant)
    assert np.allclose(got, expected, rtol=1e-10, equal_nan=True)


def test_class_scores_are_the_loop_over_pairs():
    jacobian, labels = random_case(6, 20, 2)
    labels = labels[labels != 4]
    jacobian = jacobian[: len(labels)]
    jacobian[0] = 0
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = np.corrcoef(jacobian)
    expected = [
        sum(np.log(abs(rho[i, j]) + 1e-5) for i in rows for j in rows)
        for rows in (np.flatnonzero(labels == label) for label in range(6))
    ]
    got = class_scores(jacobian, labels, 6)
    assert np.allclose(got, expected, rtol=1e-10, equal_nan=True)
    assert got[4] == 0
    assert np.isnan(got[labels[0]])
    assert np.isnan(got).sum() == 1


def test_single_image_adds_log_of_one_plus_k_or_is_dropped():
    jacobian, _ = random_case(1, 1, 0)
    labels = np.array([5])
    got = epe_score(jacobian, labels, 120)
    assert np.allclose(got, np.abs(np.log1p(1e-5)), rtol=1e-6)
    assert np.isnan(epe_score(jacobian, labels, 120, "two_branch"))


@pytest.mark.parametrize("variant", ["released", "two_branch"])
@pytest.mark.parametrize("num_classes", [3, 120])
@pytest.mark.parametrize("lonely", [False, True])
def test_zero_row_gives_no_score_unless_its_class_is_dropped(num_classes, variant, lonely):
    jacobian, labels = random_case(3, 30, 4)
    if lonely:
        labels = labels % 2
        labels[7] = 2
    jacobian[7] = 0
    got = epe_score(jacobian, labels, num_classes, variant)
    expected = oracles.epe_score(jacobian, labels, num_classes, variant)
    assert np.isnan(got) == np.isnan(expected)
    assert np.allclose(got, expected, equal_nan=True)
    assert np.isnan(got) == (not (lonely and variant == "two_branch" and num_classes == 120))


def test_score_does_not_depend_on_the_order_of_images():
    jacobian, labels = random_case(4, 30, 1)
    order = np.random.default_rng(0).permutation(30)
    got = epe_score(jacobian[order], labels[order], 4)
    assert np.allclose(got, epe_score(jacobian, labels, 4), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(4), np.zeros(4, int), 2), "jacobian: found float64 of shape"),
        ((np.zeros((4, 2), int), np.zeros(4, int), 2), "jacobian: found int64"),
        ((np.zeros((4, 2)), np.zeros(4), 2), "labels: found float64"),
        ((np.zeros((4, 2)), np.zeros(3, int), 2), "labels: found 3, expected 4"),
        ((np.zeros((4, 2)), np.zeros(4, int), 0), "number of classes: found 0"),
        ((np.zeros((4, 2)), np.full(4, 2), 2), r"labels: found 2, expected 0\.\.1"),
        ((np.zeros((4, 2)), np.full(4, -1), 2), r"labels: found -1, expected 0\.\.1"),
        ((np.zeros((4, 2)), np.zeros(4, int), 2, "other"), "score variant: found 'other'"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        epe_score(*arguments)


@pytest.mark.parametrize("form", [np.ndarray.tolist, torch.tensor, jnp.asarray])
def test_arrays_of_any_library_have_one_score(form):
    jacobian, labels = random_case(3, 20, 0)
    assert epe_score(form(jacobian), form(labels), 3) == epe_score(jacobian, labels, 3)
    images = np.arange(24.0).reshape(2, 12)
    found = input_jacobian(lambda w, x: jnp.sin(x @ w), np.eye(12, 3), form(images))
    assert np.allclose(found[:, :3], np.cos(images[:, :3]), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    jacobian, labels = random_case(3, 20, 0)
    jacobian = torch.tensor(jacobian, dtype=dtype)
    found = epe_score(jacobian, labels, 3)
    assert found.dtype == np.float32
    assert found == epe_score(jacobian.float().numpy(), labels, 3)


def test_labels_may_be_known_where_the_jacobian_is_traced():
    jacobian = np.random.default_rng(0).normal(size=(6, 5))
    labels = jnp.array([0, 1, 2, 0, 1, 2])
    traced = jax.jit(lambda jacobian: epe_score(jacobian, labels, 3))(jacobian)
    assert traced == pytest.approx(float(epe_score(jacobian, labels, 3)), rel=1e-12)
    with pytest.raises(InputError, match=r"labels: found 2, expected 0\.\.1"):
        jax.jit(lambda jacobian: epe_score(jacobian, labels, 2))(jacobian)
