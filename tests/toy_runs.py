"""What tests of runs share: a scorer that costs nothing, what is in its log, and a full disk."""

import contextlib
import json
import resource
from types import SimpleNamespace

import numpy as np

from epe_nas_jax.runs.score_log import LoggedScorer, ScoreLog

CELLS = np.random.default_rng(0).integers(0, 12, (20, 6))


class Scorer:
    """What LoggedScorer asks of a CellScorer; a cell's first entry is all that counts."""

    config = SimpleNamespace(proxies=("first", "second"))
    devices = ("a device",)
    dtype = np.dtype(np.float32)

    def __init__(self, cells_per_step=3):
        self.cells_per_step = cells_per_step
        self.scored = []

    def distinct(self, genotypes):
        codes, first, back = np.unique(genotypes[:, 0], return_index=True, return_inverse=True)
        return codes[:, None].astype(np.int32), genotypes[first], back

    def steps(self, kinds, _networks, _num_done, _shard):
        for start in range(0, len(kinds), self.cells_per_step):
            step = kinds[start : start + self.cells_per_step]
            self.scored += step[:, 0].tolist()
            yield step, proxies_of(step[:, 0])


def proxies_of(codes):
    """Numbers whose decimal forms are long, and some NaN."""
    first = np.where(codes % 5 == 4, np.nan, np.sin(codes))
    return np.stack([first, codes / 3], axis=-1).astype(np.float32)


def score(directory, scorer, cells=CELLS, check_stop=lambda: None, process=0):
    with ScoreLog(directory, len(scorer.config.proxies), process) as log:
        return LoggedScorer(scorer, log, check_stop).proxies(cells)


def records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def codes_in(records):
    """The first entries of the genotypes in the records of a log."""
    return [genotype[0] for record in records for genotype in record["genotypes"]]


@contextlib.contextmanager
def no_file_longer_than(num_bytes):
    """A disk that is full, as a write sees it: a part is written, then an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
