"""Keeps scores on disk: one line per finished step, so that a killed run can continue.

A search is determined by its key and by the scores it is given. A run that starts again therefore
replays it: cells in the log are not scored again, all others are. Every process of a run appends to
a file of its own; at the start process 0 sends the others the content of all files, and after every
step each process sends its part to all.

A line is a JSON object: `crc32` of what follows it in the line, the `genotypes` that were scored as
`CellScorer.distinct` gives them, their `proxies` (null for NaN), the `seconds` that the step took,
the `compile_seconds` spent before it and the `memory_bytes` in use after it.
"""

import json
import re
import time
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import psutil

from epe_nas_jax.errors import InputError
from epe_nas_jax.runs import hosts
from epe_nas_jax.runs.storage import Location, Log, log_at
from epe_nas_jax.runs.workdir import SEARCH_LOG, log_file, log_files
from epe_nas_jax.scoring.planning import Shard
from epe_nas_jax.scoring.scorer import CellScorer

_LINE = re.compile(rb'\{"crc32": "([0-9a-f]{8})", (.*)\n', re.DOTALL)


class Step(NamedTuple):
    """A finished step.

    Attributes:
      genotypes: int32 `[B, E]`.
      proxies: float `[B, P]`.
      seconds: the time that scoring took.
      compile_seconds: the time that compiling took, in a process's first step; 0 in others.
      memory_bytes: memory in use after the step.
    """

    genotypes: np.ndarray
    proxies: np.ndarray
    seconds: float
    compile_seconds: float
    memory_bytes: int


class ScoreLog:
    """The logs of a work directory: all are read, and this process's own is open for more steps.

    Attributes:
      steps: every finished step of all processes, by the name of the file it is in.
    """

    def __init__(
        self, directory: Location, num_proxies: int, process: int = 0, name: str = SEARCH_LOG
    ):
        """Reads all logs, and removes an incomplete last line from this process's own.

        Args:
          directory: the work directory, which this process has locked.
          num_proxies: P.
          process: index of this process.
          name: which of the logs, if a work directory has several.

        Raises:
          InputError: a line other than the last is damaged, or a log is no file.
          OSError: a log cannot be read or written.
        """
        self._directory = directory
        self._num_proxies = num_proxies
        self._name = name
        self._own = log_file(directory, process, name)
        logs = {path.name: log_at(path) for path in (*log_files(directory, name), self._own)}
        self.steps = {name: _read(log, num_proxies) for name, log in logs.items()}
        self._log = logs[self._own.name]
        self._log.open(len(self.steps[self._own.name]))
        self._agree()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._log.close()

    def append(self, step: Step) -> None:
        """Adds a step, which is on disk when this returns.

        Raises:
          InputError: another run added one.
          OSError: it cannot be written, for example because the disk is full.
        """
        self._log.append(_to_line(step))
        self.steps[self._own.name].append(step)

    def exchange(self, step: Step) -> list[Step]:
        """Sends a step, which may be empty, to the other processes and returns theirs."""
        if hosts.count() == 1:
            return []
        lines = hosts.exchange(_to_line(step) if len(step.genotypes) else b"")
        others = []
        for process, line in enumerate(lines):
            path = log_file(self._directory, process, self._name)
            if path != self._own and line:
                others.append(self._step(line))
                self.steps.setdefault(path.name, []).append(others[-1])
        return others

    def _agree(self) -> None:
        """Replaces what was read by what process 0 has read: another host may see older files."""
        if hosts.count() == 1:
            return
        lines = {
            name: [_to_line(step).decode() for step in steps] for name, steps in self.steps.items()
        }
        message = json.dumps(lines).encode() if hosts.index() == 0 else b""
        read = json.loads(hosts.exchange(message)[0])
        self.steps = {
            name: [self._step(line.encode()) for line in lines] for name, lines in read.items()
        }
        self.steps.setdefault(self._own.name, [])

    def _step(self, line: bytes) -> Step:
        """A step that another process sent."""
        step = _parse(line, self._num_proxies)
        if step is None:
            raise InputError(f"{self._own}: another process sent a step of another kind")
        return step


class LoggedScorer:
    """Scores the cells that a log does not hold, and adds every finished step to the log.

    Attributes:
      names: names of the proxies.
      rows: the proxies `[P]` of every genotype that has been scored, in this run or before, by the
        bytes of its int32 row.
      num_scored: how many of them this run has scored, in this process or another one.
    """

    def __init__(
        self,
        scorer: CellScorer,
        log: ScoreLog,
        check_stop: Callable[[], None],
        compile_seconds: float = 0.0,
    ):
        """Takes over what the log holds.

        Args:
          scorer: scores what the log does not hold.
          log: the log.
          check_stop: called before scoring and after every step, when it is on disk; raises an
            exception to stop the search.
          compile_seconds: the time that compiling the scorer took.
        """
        self._scorer = scorer
        self.names = scorer.config.proxies
        self._log = log
        self._check_stop = check_stop
        self._compile_seconds = compile_seconds
        self.rows: dict[bytes, np.ndarray] = {}
        for steps in log.steps.values():
            for step in steps:
                self._remember(step)
        self.num_scored = 0
        self._shard: Shard | None = None

    def proxies(self, genotypes: np.ndarray) -> np.ndarray:
        """The proxies `[A, P]` of genotypes `[A, E]`, NaN where a cell has none."""
        kinds, networks, back = self._scorer.distinct(genotypes)
        keys = [kind.tobytes() for kind in kinds]
        is_new = np.array([key not in self.rows for key in keys], bool)
        if is_new.any():
            self._score(kinds[is_new], networks[is_new], num_done=int((~is_new).sum()))
        rows = [self.rows[key] for key in keys]
        return np.reshape(rows, (len(keys), len(self.names)))[back]

    def by_name(self, genotypes: np.ndarray) -> dict[str, np.ndarray]:
        """The proxies of genotypes `[A, E]` by their names, `[A]` each."""
        return dict(zip(self.names, self.proxies(genotypes).T, strict=True))

    def _score(self, kinds: np.ndarray, networks: np.ndarray, num_done: int) -> None:
        if self._shard is None:
            self._check_stop()
            self._shard = _shard_of(self._scorer)
        start = time.perf_counter()
        for genotypes, rows in self._scorer.steps(kinds, networks, num_done, self._shard):
            seconds = time.perf_counter() - start
            step = Step(genotypes, rows, seconds, self._compile_seconds, memory_in_use())
            if len(genotypes):
                self._log.append(step)
                self._compile_seconds = 0.0
            self._check_stop()
            for part in (step, *self._log.exchange(step)):
                self._remember(part)
                self.num_scored += len(part.genotypes)
            start = time.perf_counter()

    def _remember(self, step: Step) -> None:
        rows = step.proxies.astype(self._scorer.dtype)
        for genotype, row in zip(step.genotypes, rows, strict=True):
            self.rows[genotype.tobytes()] = row


def _shard_of(scorer: CellScorer) -> Shard:
    """The part of a step for this process; all get as much work as the weakest of them can do."""
    own = json.dumps([len(scorer.devices), scorer.cells_per_step]).encode()
    of_processes = [json.loads(message) for message in hosts.exchange(own)]
    num_devices, cells_per_step = (min(numbers) for numbers in zip(*of_processes, strict=True))
    return Shard(hosts.index(), hosts.count(), num_devices, cells_per_step)


def memory_in_use() -> int:
    """Bytes in use: of the devices at their peak, or of this process where they are CPU cores."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        return sum(stat["peak_bytes_in_use"] for stat in stats if stat)
    return int(psutil.Process().memory_info().rss)


def _to_line(step: Step) -> bytes:
    record = {
        "genotypes": step.genotypes.tolist(),
        # The shortest decimal form of a float reads back as that float.
        "proxies": [
            [None if np.isnan(value) else float(value) for value in row] for row in step.proxies
        ],
        "seconds": step.seconds,
        "compile_seconds": step.compile_seconds,
        "memory_bytes": step.memory_bytes,
    }
    body = json.dumps(record).encode()[1:]
    return b'{"crc32": "%08x", %s\n' % (zlib.crc32(body), body)


def _read(log: Log, num_proxies: int) -> list[Step]:
    """The steps of a log."""
    steps: list[Step] = []
    for number, line in enumerate(log.lines, 1):
        step = _parse(line, num_proxies)
        if step is None:
            if number == len(log.lines):
                # A kill or a full disk left it incomplete; its cells are scored again.
                break
            raise InputError(
                f"{log.where(number)}: damaged, its checksum does not fit; "
                "delete the line to have its cells scored again"
            )
        steps.append(step)
    return steps


def _parse(line: bytes, num_proxies: int) -> Step | None:
    match = _LINE.fullmatch(line)
    if match is None or zlib.crc32(match[2]) != int(match[1], 16):
        return None
    try:
        record: dict[str, Any] = json.loads(b"{" + match[2])
        genotypes = np.array(record["genotypes"], np.int32)
        proxies = np.array(record["proxies"], float)
        step = Step(
            genotypes,
            proxies,
            float(record["seconds"]),
            float(record["compile_seconds"]),
            int(record["memory_bytes"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return step if genotypes.ndim == 2 and proxies.shape == (len(genotypes), num_proxies) else None
