from ._version import __version__
from .batching import Protocol, score_cells
from .convert import from_state_dict, to_state_dict
from .darts import format_genotype, parse_genotype
from .darts_network import DartsNetwork
from .errors import InputError
from .genotype import format_arch, parse_arch
from .jacobian import input_jacobian
from .network import Network
from .networks import network_score, score_networks
from .score import epe_score, jacobian_score

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
