import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax_runs import gradients_of_cells, run_of

from epe_nas_jax import (
    DartsNetwork,
    InputError,
    NasBench201Network,
    ScoringConfig,
    compile_scorer,
    parse_genotype,
    score_cells,
)
from epe_nas_jax.proxies.cell_proxies import cell_proxies
from epe_nas_jax.proxies.table import PROXIES
from epe_nas_jax.spaces.darts.published import DARTS_V2
from epe_nas_jax.spaces.layers import gradient_probes, relu_agreement
from epe_nas_jax.spaces.nasbench201 import genotype as space

NETWORK = NasBench201Network(num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)
CELLS = np.asarray(space.sample(jax.random.key(5), 12))
ALL = ScoringConfig(proxies=tuple(PROXIES))


@pytest.fixture(scope="module")
def scorer(minibatch):
    """All proxies of cells, one cell after the other."""
    return compile_scorer(*minibatch, seed=7, network=NETWORK, config=ALL)


@pytest.mark.parametrize("name", ["network", "darts"])
def test_gradients_are_measured_as_they_come_back(minibatch, name):
    images, labels = minibatch
    if name == "network":
        network, num_last = NETWORK.clone(cells_per_stage=2), 2
        genotype = tuple(CELLS[0].tolist())
    else:
        network = DartsNetwork(num_classes=3, channels=4, num_cells=3, param_dtype=jnp.float64)
        genotype, num_last = tuple(parse_genotype(DARTS_V2).tolist()), 1
    variables = network.init(jax.random.key(0), images, genotype)
    of_cells, of_images = gradients_of_cells(network, variables, genotype, images)
    (entropy, decay), _ = cell_proxies(
        variables,
        genotype,
        images,
        labels,
        network=network,
        proxies=("grad_entropy", "grad_decay"),
    )
    entropies = [oracles.channel_entropy(np.asarray(g)) for g in of_cells[:-num_last]]
    # Two ways to the same gradients in float64; a deep product is rounded in another order.
    assert np.allclose(entropy, sum(entropies), rtol=1e-8)
    assert np.allclose(decay, np.log(np.sum(of_cells[-1] ** 2) / np.sum(of_images**2)), rtol=1e-8)


def test_a_cell_without_a_path_has_no_proxies_of_gradients(scorer):
    found = dict(zip(PROXIES, scorer.proxies(np.zeros((1, 6), int))[0], strict=True))
    assert {name for name in PROXIES if not np.isnan(found[name])} == oracles.WITHOUT_JACOBIAN


def test_batched_proxies_are_those_of_each_cell_by_itself(minibatch, scorer):
    images, labels = minibatch
    got = scorer.proxies(CELLS)
    assert got.shape == (12, len(PROXIES))
    weights_key, _ = jax.random.split(jax.random.split(jax.random.key(7), 1)[0])
    live = space.prune_dead(CELLS)
    for index in (0, 1, 2, 3):
        cell = tuple(live[index].tolist())
        variables = NETWORK.init(weights_key, images, cell)
        run = run_of(NETWORK, variables, cell, images, labels, cells_of_last_stage=1)
        expected = oracles.proxies(run)
        # Eigenvalues near 0, of 8 images only, magnify rounding.
        for name, value in zip(PROXIES, got[index], strict=True):
            assert np.isclose(value, expected[name], rtol=1e-7, atol=0, equal_nan=True), name


def test_further_proxies_change_no_score_and_order_is_kept(minibatch):
    score = compile_scorer(*minibatch, seed=0, network=NETWORK)
    both = compile_scorer(
        *minibatch, seed=0, network=NETWORK, config=ScoringConfig(proxies=("nwot", "epe"))
    )
    assert np.allclose(both.proxies(CELLS)[:, 1], score(CELLS), rtol=1e-9, equal_nan=True)
    assert np.array_equal(both(CELLS), both.proxies(CELLS)[:, 0], equal_nan=True)
    assert np.array_equal(
        score(CELLS), score_cells(CELLS, *minibatch, seed=0, network=NETWORK), equal_nan=True
    )


def test_vectorised_proxies_equal_those_one_by_one(minibatch, scorer):
    cells = np.append(CELLS, np.zeros((1, 6), int), axis=0)
    together = compile_scorer(
        *minibatch, seed=7, network=NETWORK, config=ALL, vectorise=True, cells_per_step=6
    )
    one_by_one, vectorised = scorer.proxies(cells), together.proxies(cells)
    others = [name not in oracles.WITHOUT_JACOBIAN for name in PROXIES]
    assert np.isnan(one_by_one[-1][others]).all()
    assert np.allclose(vectorised, one_by_one, rtol=1e-7, equal_nan=True)


def test_dead_operations_add_nothing_to_proxies_of_weights(minibatch):
    config = ScoringConfig(proxies=("synflow", "grad_norm", "snip"))
    scorer = compile_scorer(*minibatch, seed=0, network=NETWORK, config=config, prune_dead=False)
    live = space.prune_dead(CELLS)
    assert np.any(live != CELLS)
    got = scorer.proxies(CELLS)
    assert np.allclose(got, scorer.proxies(live), rtol=1e-9, equal_nan=True)
    assert np.array_equal(scorer(CELLS), got[:, 0], equal_nan=True)


class Spied:
    """NETWORK, noting what each of its calls is asked for."""

    num_classes, batch_norm = NETWORK.num_classes, True

    def __init__(self):
        self.asked = []

    def apply(self, variables, images, genotype, *, mutable=()):
        has_probes = bool(variables.get(gradient_probes.COLLECTION))
        self.asked.append((has_probes, *sorted(mutable)))
        return NETWORK.apply(variables, images, genotype, mutable=mutable or False)

    def clone(self, **changes):
        self.asked.append(tuple(changes))
        return NETWORK.clone(**changes)


def trace(network, proxies, minibatch):
    """Traces a score of the proxies; nothing is computed."""
    images, labels = minibatch
    cell = tuple(CELLS[0].tolist())

    def score(key):
        variables = NETWORK.init(key, images, cell)
        return cell_proxies(variables, cell, images, labels, network=network, proxies=proxies)

    return jax.eval_shape(score, jax.random.key(0))


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
def test_the_pass_computes_what_a_proxy_needs_and_nothing_else(minibatch, proxy):
    network = Spied()
    trace(network, (proxy.name,), minibatch)
    first, *others = network.asked
    collections = {"relus": relu_agreement.COLLECTION, "probes": gradient_probes.PRESENT}
    assert first == (
        "probes" in proxy.needs,
        *sorted(collections[need] for need in proxy.needs & set(collections)),
    )
    expected = [(False,)] if "weight_gradient" in proxy.needs else []
    assert others == (expected if proxy.name != "synflow" else [("batch_norm",)])


def test_proxies_share_one_pass_and_one_gradient_of_the_weights(minibatch):
    network = Spied()
    trace(network, tuple(name for name in PROXIES if name != "synflow"), minibatch)
    collections = relu_agreement.COLLECTION, gradient_probes.PRESENT
    assert network.asked == [(True, *sorted(collections)), (False,)]


class Bare:
    """A network with logits and nothing else."""

    num_classes = 3

    def apply(self, variables, images, genotype, *, mutable=None):
        del variables, genotype
        logits = jnp.tanh(images.reshape(len(images), -1)[:, :3])
        return logits if mutable is None else (logits, {})


@pytest.mark.parametrize("proxy", PROXIES.values(), ids=PROXIES)
def test_a_network_that_lacks_what_a_proxy_needs_is_refused_by_its_name(minibatch, proxy):
    if proxy.needs <= {"weight_gradient"} and proxy.name != "synflow":
        trace(Bare(), (proxy.name,), minibatch)
        return
    with pytest.raises(InputError, match=f"proxy {proxy.name}: found a network without"):
        trace(Bare(), ("epe", proxy.name), minibatch)
