"""Scores on disk as they come: one line a finished step, so that a killed run goes on.

A search is determined by its key and by the scores it is given. A run that starts again therefore
replays it: what the log holds is not scored again, the rest is. Every process of a run appends to a
file of its own; process 0 tells the others what all files hold at the start, and after every step
each tells all of its part.

A line is a JSON object: `crc32` of what follows it in the line, `codes` as `CellScorer.distinct`
gives them, their `proxies` (null for NaN), the `seconds` that the step took, the `compile_seconds`
spent before it and the `memory_bytes` in use after it.

Shape legend: A cells, B different ones, E = 6 edges, P proxies.
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

from epe_nas_jax import hosts
from epe_nas_jax.batching import CellScorer
from epe_nas_jax.errors import InputError
from epe_nas_jax.planning import Share
from epe_nas_jax.storage import Location, Log, log_at
from epe_nas_jax.workdir import log_file, log_files

_LINE = re.compile(rb'\{"crc32": "([0-9a-f]{8})", (.*)\n', re.DOTALL)


class Step(NamedTuple):
    """A finished step.

    Attributes:
      codes: int `[b]`.
      proxies: float `[b, P]`.
      seconds: what scoring took.
      compile_seconds: what compiling took, in a process's first step.
      memory_bytes: memory in use after it.
    """

    codes: np.ndarray
    proxies: np.ndarray
    seconds: float
    compile_seconds: float
    memory_bytes: int


class ScoreLog:
    """The logs of a work directory, read, and this process's one open for more.

    Attributes:
      steps: every finished step of all processes, by the name of the file it is in.
    """

    def __init__(self, directory: Location, num_proxies: int, process: int = 0):
        """Reads all logs and cuts a torn last line off this process's own.

        Args:
          directory: the work directory, which this process has locked.
          num_proxies: P.
          process: index of this process.

        Raises:
          InputError: a line other than the last is damaged, or a log is no file.
          OSError: a log cannot be read or written.
        """
        self._directory = directory
        self._num_proxies = num_proxies
        self._own = log_file(directory, process)
        logs = {path.name: log_at(path) for path in (*log_files(directory), self._own)}
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
        """Tells the other processes of a step, which may be empty, and returns theirs."""
        if hosts.count() == 1:
            return []
        told = hosts.exchange(_to_line(step) if len(step.codes) else b"")
        others = []
        for process, line in enumerate(told):
            path = log_file(self._directory, process)
            if path != self._own and line:
                others.append(self._step(line))
                self.steps.setdefault(path.name, []).append(others[-1])
        return others

    def _agree(self) -> None:
        """Takes over what process 0 has read: another host may see files that lag behind."""
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
        """A step that another process told of."""
        step = _parse(line, self._num_proxies)
        if step is None:
            raise InputError(f"{self._own}: another process tells of steps of another kind")
        return step


class LoggedScorer:
    """Scores cells, but asks a log before it does, and tells it after every step.

    Attributes:
      rows: the proxies `[P]` of every code that has been scored, in this run or before.
      num_scored: how many of them are new, scored by this process or another one of the run.
    """

    def __init__(self, scorer: CellScorer, log: ScoreLog, check_stop: Callable[[], None]):
        """Takes over what the log holds.

        Args:
          scorer: scores what the log does not hold.
          log: the log.
          check_stop: called after compiling and after every step, when it is on disk; raises to
            stop the search.
        """
        self._scorer = scorer
        self._log = log
        self._check_stop = check_stop
        self.rows: dict[int, np.ndarray] = {}
        for steps in log.steps.values():
            for step in steps:
                self._remember(step)
        self.num_scored = 0
        self._share: Share | None = None

    def proxies(self, genotypes: np.ndarray) -> np.ndarray:
        """The proxies `[A, P]` of genotypes `[A, E]`, NaN where a cell has none."""
        codes, networks, back = self._scorer.distinct(genotypes)
        is_new = np.array([code not in self.rows for code in codes.tolist()], bool)
        if is_new.any():
            self._score(codes[is_new], networks[is_new], num_done=int((~is_new).sum()))
        rows = [self.rows[code] for code in codes.tolist()]
        return np.reshape(rows, (len(codes), self._scorer.num_proxies))[back]

    def _score(self, codes: np.ndarray, networks: np.ndarray, num_done: int) -> None:
        compile_seconds = 0.0
        start = time.perf_counter()
        if self._share is None:
            self._scorer.compile()
            compile_seconds = time.perf_counter() - start
            self._check_stop()
            self._share = _share_of(self._scorer.num_places)
        start = time.perf_counter()
        for step_codes, rows in self._scorer.steps(codes, networks, num_done, self._share):
            seconds = time.perf_counter() - start
            step = Step(step_codes, rows, seconds, compile_seconds, memory_in_use())
            if len(step_codes):
                self._log.append(step)
            self._check_stop()
            for part in (step, *self._log.exchange(step)):
                self._remember(part)
                self.num_scored += len(part.codes)
            compile_seconds = 0.0
            start = time.perf_counter()

    def _remember(self, step: Step) -> None:
        rows = step.proxies.astype(self._scorer.dtype)
        self.rows.update(zip(step.codes.tolist(), rows, strict=True))


def _share_of(num_places: int) -> Share:
    """The share of this process; the one with the least room says how many cells each gets."""
    told = hosts.exchange(str(num_places).encode())
    return Share(hosts.index(), hosts.count(), min(map(int, told)))


def memory_in_use() -> int:
    """Bytes in use: of the devices at their peak, or of this process where they are CPU cores."""
    stats = [device.memory_stats() for device in jax.local_devices()]
    if all(stats):
        return sum(stat["peak_bytes_in_use"] for stat in stats if stat)
    return int(psutil.Process().memory_info().rss)


def _to_line(step: Step) -> bytes:
    record = {
        "codes": step.codes.tolist(),
        # A float's shortest decimal form reads back as the same float.
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
                # A kill or a full disk tore it; its cells are scored again.
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
        codes, proxies = np.array(record["codes"], int), np.array(record["proxies"], float)
        step = Step(
            codes,
            proxies,
            float(record["seconds"]),
            float(record["compile_seconds"]),
            int(record["memory_bytes"]),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return step if proxies.shape == (codes.size, num_proxies) and codes.ndim == 1 else None
