"""How cells are scored."""

import dataclasses

from epe_nas_jax.arrays import PRECISIONS
from epe_nas_jax.errors import InputError
from epe_nas_jax.proxies.table import check_proxies

INITS = ("shared", "independent")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoringConfig:
    """How cells are scored; equal ones and equal shapes share one compiled program.

    Attributes:
      init: `"shared"`: a layer, edge and operation has the same weights in every cell;
        `"independent"`: every cell has weights of its own, as in the released code.
      proxies: names from `proxies.table.PROXIES`; the first one is the score.
      precision: what GPUs and TPUs may round the factors of products to, convolutions included;
        CPUs always compute in full, and so do correlations everywhere. Where cells run by groups of
        fixed size (NAS-Bench-201 on GPUs and TPUs), outputs of convolutions wait for the backward
        pass in bfloat16 below `"float32"`; with `"bfloat16"` stem, cells and blocks put it out too.
      num_inits: how many times weights are drawn; the scores are averaged.
      fresh_batch: None: the images are the mini-batch of all cells; a number N: they are a data set
        from which every cell draws N, as in the released code.
      augment: crop and flip the fresh mini-batches.
      class_balanced: draw as many images of each class as possible into the fresh mini-batches.

    Raises:
      InputError: a field has an unknown value, or one that does not go with another.
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
