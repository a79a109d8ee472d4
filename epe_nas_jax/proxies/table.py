"""The table of proxies: a new one is a function and an entry here (docs/extending.md).

A proxy is a score of an untrained cell; larger is better for each. Most are computed in the one
pass that EPE-NAS makes, forward and back to the images. The pass computes what the requested
proxies need, and nothing else.

A dead operation has no gradient and adds nothing, so that a cell and its live form have the same
score. A cell without a path from input to output has no gradient at all and no score: NaN.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.epe import epe_score
from epe_nas_jax.proxies.jacobian_proxies import (
    grad_decay_score,
    grad_entropy_score,
    jacob_cov_score,
)
from epe_nas_jax.proxies.nwot import nwot_score
from epe_nas_jax.proxies.weight_gradients import grad_norm_score, snip_score, synflow_score
from epe_nas_jax.spaces.base import CellNetwork
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, SIZE

Need = Literal["relus", "probes", "weight_gradient"]


class Pass(NamedTuple):
    """One pass of one cell on one mini-batch: its inputs and its results.

    Attributes:
      network: the network around the cell.
      variables: the network's weights.
      genotype: the cell, int32 `[E]`.
      images: the mini-batch, `[N, H, W, 3]`.
      labels: the images' classes, int `[N]`.
      jacobian: the input Jacobian, `[N, D]`, computed in every pass.
      agreement: in how many ReLUs two images agree, int32 `[N, N]`; for the need `relus`.
      probes: the measurements of `gradient_probes`, scalars by name; for the need `probes`.
      weight_gradient: gradient of the cross-entropy with respect to the weights, a pytree like
        these; for the need `weight_gradient`, which costs another pass.
    """

    network: CellNetwork
    variables: Any
    genotype: jax.Array
    images: jax.Array
    labels: jax.Array
    jacobian: jax.Array
    agreement: Any
    probes: Mapping[str, jax.Array]
    weight_gradient: Any


class Proxy(NamedTuple):
    """A proxy: its formula, where it is from, and what it needs of a pass.

    Attributes:
      name: name of the proxy's column in `scores.csv`.
      score: function from a pass to the score, a scalar; NaN for a cell without a score.
      source: the paper that defines the proxy.
      needs: what the pass must compute for it, besides the Jacobian.

    Examples:
      >>> from epe_nas_jax.proxies.table import PROXIES
      >>> PROXIES["snip"].source
      'Lee et al. 2019, section 4'
      >>> sorted(PROXIES["snip"].needs)
      ['weight_gradient']
    """

    name: str
    score: Callable[[Pass], jax.Array]
    source: str
    needs: frozenset[Need] = frozenset()


PROXIES = {
    proxy.name: proxy
    for proxy in (
        Proxy(
            "epe",
            lambda found: epe_score(found.jacobian, found.labels, found.network.num_classes),
            "Lopes et al. 2021, as released",
        ),
        Proxy(
            "epe_two_branch",
            lambda found: epe_score(
                found.jacobian, found.labels, found.network.num_classes, "two_branch"
            ),
            "Lopes et al. 2021, section 3: another formula for more than 100 classes",
        ),
        Proxy(
            "jacob_cov",
            lambda found: jacob_cov_score(found.jacobian),
            "Mellor et al. 2020, version 1",
        ),
        Proxy(
            "nwot",
            lambda found: nwot_score(found.agreement, found.images.dtype),
            "Mellor et al. 2021, section 3",
            frozenset({"relus"}),
        ),
        Proxy(
            "grad_entropy",
            lambda found: grad_entropy_score(found.probes[ENTROPY], found.jacobian),
            "after the expressivity of Lee & Ham 2024, of gradients",
            frozenset({"probes"}),
        ),
        Proxy(
            "grad_decay",
            lambda found: grad_decay_score(found.probes[SIZE], found.jacobian),
            "after the trainability of Lee & Ham 2024",
            frozenset({"probes"}),
        ),
        Proxy(
            "synflow",
            lambda found: synflow_score(
                found.variables, found.genotype, found.images[0], network=found.network
            ),
            "Tanaka et al. 2020, section 6; the logarithm, by a pass of its own over one image",
        ),
        Proxy(
            "grad_norm",
            lambda found: grad_norm_score(found.weight_gradient),
            "Abdelfattah et al. 2021, section 3.2",
            frozenset({"weight_gradient"}),
        ),
        Proxy(
            "snip",
            lambda found: snip_score(found.variables, found.weight_gradient),
            "Lee et al. 2019, section 4",
            frozenset({"weight_gradient"}),
        ),
    )
}
"""All proxies by name."""


def check_proxies(names: tuple[str, ...]) -> None:
    """Checks that names of proxies are known and different.

    Raises:
      InputError: there are none, one is unknown, or one is there twice.
    """
    if not names:
        raise InputError(f"proxies: found none, expected some of {', '.join(PROXIES)}")
    for name in names:
        if name not in PROXIES:
            raise InputError(f"proxy: found {name!r}, expected one of {', '.join(PROXIES)}")
        if names.count(name) > 1:
            raise InputError(f"proxies: found {name!r} twice, expected each once")
