"""The options of scoring cells."""

import dataclasses

from epe_nas_jax.arrays import PRECISIONS
from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.table import check_proxies

# Whether cells share their weights (`ScoringConfig.init`).
INITS = ("shared", "independent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How cells are scored; equal configs, with equal shapes, share one compiled program.

    Attributes:
      init: `"shared"`: the same layer, edge and operation has the same weights in every cell;
        `"independent"`: every cell has weights of its own, as in the released code.
      proxies: names from `proxies.table.PROXIES`; the first one is the score.
      precision: format to which GPUs and TPUs may round the factors of products, convolutions
        included; CPUs never round, and correlations are never rounded. Where cells run by groups of
        fixed size (NAS-Bench-201 on GPUs and TPUs), any format below `"float32"` also keeps the
        outputs of convolutions in bfloat16 until the backward pass, and `"bfloat16"` makes it the
        dtype of the outputs of stem, cells and blocks.
      num_inits: how many times weights are drawn; the scores are averaged.
      fresh_batch: None: the images are the mini-batch of all cells; a number N: they are a data set
        from which every cell draws N images, as in the released code.
      augment: whether to crop and flip the fresh mini-batches.
      class_balanced: whether to draw equally many images of each class, as far as possible, into
        the fresh mini-batches.

    Raises:
      InputError: a field has an unknown value, or one that contradicts another field.

    Examples:
      >>> config = epe_nas_jax.ScoringConfig(proxies=("nwot", "jacob_cov"), num_inits=3)
      >>> config.all_shared
      True
      >>> epe_nas_jax.ScoringConfig(augment=True)
      Traceback (most recent call last):
      ...
      epe_nas_jax.errors.InputError: augment: needs fresh_batch; augment a mini-batch before ...
    """

    init: str = "shared"
    proxies: tuple[str, ...] = ("epe",)
    precision: str = "float32"
    num_inits: int = 1
    fresh_batch: int | None = None
    augment: bool = False
    class_balanced: bool = False

    def __post_init__(self) -> None:
        if self.init not in INITS:
            raise InputError(f"init: found {self.init!r}, expected one of {INITS}")
        check_proxies(self.proxies)
        if self.precision not in PRECISIONS:
            raise InputError(f"precision: found {self.precision!r}, expected one of {PRECISIONS}")
        if self.num_inits < 1:
            raise InputError(f"num_inits: found {self.num_inits}, expected at least 1")
        if self.fresh_batch is not None and self.fresh_batch < 2:
            raise InputError(f"fresh_batch: found {self.fresh_batch}, expected at least 2 images")
        if self.augment and self.fresh_batch is None:
            raise InputError(
                "augment: needs fresh_batch; augment a mini-batch before scoring on it"
            )
        if self.class_balanced and self.fresh_batch is None:
            raise InputError(
                "class_balanced: needs fresh_batch; balance a mini-batch before scoring on it"
            )

    @property
    def all_shared(self) -> bool:
        """Whether all cells have the same weights and the same mini-batch."""
        return self.init == "shared" and self.fresh_batch is None
