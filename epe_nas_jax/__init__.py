"""EPE-NAS in JAX: score untrained cells by their input Jacobians, thousands in one program."""

from epe_nas_jax._version import __version__
from epe_nas_jax.batching import Protocol, score_cells
from epe_nas_jax.convert import from_state_dict, to_state_dict
from epe_nas_jax.darts import format_genotype, parse_genotype
from epe_nas_jax.darts_network import DartsNetwork
from epe_nas_jax.errors import InputError
from epe_nas_jax.genotype import format_arch, parse_arch
from epe_nas_jax.jacobian import input_jacobian
from epe_nas_jax.network import Network
from epe_nas_jax.networks import network_score, score_networks
from epe_nas_jax.score import epe_score, jacobian_score

__all__ = (
    "DartsNetwork",
    "InputError",
    "Network",
    "Protocol",
    "__version__",
    "epe_score",
    "format_arch",
    "format_genotype",
    "from_state_dict",
    "input_jacobian",
    "jacobian_score",
    "network_score",
    "parse_arch",
    "parse_genotype",
    "score_cells",
    "score_networks",
    "to_state_dict",
)
