from ._version import __version__
from .data.datasets import load_dataset
from .errors import InputError
from .networks.columns import NETWORK_RANKING
from .networks.rank import rank_networks
from .proxies.any_network import network_score, score_networks
from .proxies.epe import epe_score, jacobian_score
from .proxies.jacobian import input_jacobian
from .pytorch.weights import from_state_dict, to_state_dict
from .scoring.columns import BEST_RANKING, COMMON_RANKING
from .scoring.config import ScoringConfig
from .scoring.score_table import score_table
from .scoring.scorer import CellScorer, compile_scorer, score_cells
from .spaces.darts.genotype import format_genotype, parse_genotype
from .spaces.darts.network import DartsNetwork
from .spaces.nasbench101.network import NasBench101Network
from .spaces.nasbench201.genotype import format_arch, parse_arch
from .spaces.nasbench201.network import NasBench201Network
from .spaces.nasbench301.network import NasBench301Network
from .spaces.nats_sss.network import NatsSssNetwork
from .spaces.transnas_micro.network import TransNasMicroNetwork
from .training.trained import TrainedNetwork, load_trained

__all__ = (
    "BEST_RANKING",
    "COMMON_RANKING",
    "NETWORK_RANKING",
    "CellScorer",
    "DartsNetwork",
    "InputError",
    "NasBench101Network",
    "NasBench201Network",
    "NasBench301Network",
    "NatsSssNetwork",
    "ScoringConfig",
    "TrainedNetwork",
    "TransNasMicroNetwork",
    "__version__",
    "compile_scorer",
    "epe_score",
    "format_arch",
    "format_genotype",
    "from_state_dict",
    "input_jacobian",
    "jacobian_score",
    "load_dataset",
    "load_trained",
    "network_score",
    "parse_arch",
    "parse_genotype",
    "rank_networks",
    "score_cells",
    "score_networks",
    "score_table",
    "to_state_dict",
)
