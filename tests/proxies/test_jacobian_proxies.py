import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from epe_nas_jax.proxies.epe import correlation_matrix
from epe_nas_jax.proxies.jacobian_proxies import (
    grad_decay_score,
    grad_entropy_score,
    jacob_cov_score,
)


def test_jacob_cov_is_numpys():
    jacobian = np.random.default_rng(0).normal(size=(20, 50))
    assert np.allclose(jacob_cov_score(jacobian), oracles.jacob_cov(jacobian), rtol=1e-9)


def test_jacob_cov_of_equal_jacobians_is_low_and_of_a_zero_one_undefined():
    jacobian = np.random.default_rng(0).normal(size=(20, 50))
    twins = jacobian.copy()
    twins[1] = twins[0]
    # Of an eigenvalue of 0 rounding leaves up to 1e-14, beside the offset of 1e-5.
    assert np.allclose(jacob_cov_score(twins), oracles.jacob_cov(twins), rtol=1e-6)
    assert jacob_cov_score(twins) < -1e5
    jacobian[3] = 0
    assert np.isnan(jacob_cov_score(jacobian))


def test_jacob_cov_in_float32_is_near_that_in_float64():
    jacobian = np.random.default_rng(0).normal(size=(64, 192)).astype(np.float32)
    # Eigenvalues above 0.1: their rounding errors of 1e-6 move a term by 1e-4 at most.
    assert np.allclose(jacob_cov_score(jacobian), oracles.jacob_cov(jacobian), rtol=1e-4)


def test_jacob_cov_in_float32_survives_eigenvalues_that_rounding_makes_negative():
    # All Jacobians along one direction: 255 eigenvalues are 0 but for roundings.
    rng = np.random.default_rng(0)
    jacobian = jnp.asarray(rng.normal(size=(256, 1)) @ rng.normal(size=(1, 60)), jnp.float32)
    assert jnp.linalg.eigvalsh(correlation_matrix(jacobian)).min() < -1e-5
    # Each adds -1e5 where it is 0 or below, and less where rounding leaves it positive.
    assert -256e5 < jacob_cov_score(jacobian) < -1e6


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_grad_decay_of_tiny_and_huge_jacobians_is_not_lost(scale):
    jacobian = np.random.default_rng(0).normal(size=(5, 20))
    expected = np.log(3 / np.sum(jacobian**2)) - 2 * np.log(scale)
    got = grad_decay_score(jnp.float32(3), jnp.asarray(scale * jacobian, jnp.float32))
    assert got.dtype == jnp.float32
    # Of logarithms up to 140, each rounded by 6e-8.
    assert np.allclose(got, expected, rtol=1e-6)
    assert np.isnan(grad_decay_score(jnp.float32(3), jnp.zeros((5, 20), jnp.float32)))
    assert np.isnan(grad_decay_score(jnp.float32(0), jnp.asarray(jacobian, jnp.float32)))


def test_grad_entropy_is_what_was_measured_unless_the_jacobian_is_zero():
    jacobian = np.random.default_rng(0).normal(size=(5, 20))
    assert grad_entropy_score(jnp.float64(1.5), jacobian) == 1.5
    assert np.isnan(grad_entropy_score(jnp.float64(1.5), np.zeros((5, 20))))
