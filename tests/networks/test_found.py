"""The clock: how often a function is run, and which of the times counts."""

import pytest

from epe_nas_jax.networks import found
from epe_nas_jax.networks.found import median_seconds


class Clock:
    """A clock by which each run takes as long as it is told, the last time from then on."""

    def __init__(self, seconds):
        self.seconds = list(seconds)
        self.now = 0.0
        self.num_runs = 0

    def perf_counter(self):
        return self.now

    def run(self):
        self.now += self.seconds[min(self.num_runs, len(self.seconds) - 1)]
        self.num_runs += 1


@pytest.fixture
def clock(monkeypatch):
    def clock(*seconds):
        made = Clock(seconds)
        monkeypatch.setattr(found, "time", made)
        return made

    return clock


def test_first_runs_do_not_count_and_the_median_does(clock):
    times = clock(100, 7, 1, 5, 3, 9)
    assert median_seconds(times.run) == 5
    assert times.num_runs == 1 + 5
    times = clock(100, 90, 80, 2)
    assert median_seconds(times.run, warm_up=3, least=10, most=50) == pytest.approx(2)
    assert times.num_runs == 3 + 10


def test_spread_runs_are_repeated_until_they_are_not_or_there_are_enough(clock):
    # After six runs of 10, 1, 1, 1, 1, 1 the quartiles are 1 and 1.
    times = clock(0, 10, 8, 1)
    assert median_seconds(times.run, least=3, most=50) == pytest.approx(1)
    quarter = [(10, 8) + (1,) * more for more in range(1, 48)]
    # Both long runs are in the upper quarter once there are so many short ones.
    num_counted = next(len(runs) for runs in quarter if (len(runs) - 1) * 0.25 >= 2)
    assert times.num_runs == 1 + num_counted
    uneven = clock(0, *(1, 2) * 10)
    assert median_seconds(uneven.run, least=3, most=8) == pytest.approx(1.5)
    assert uneven.num_runs == 1 + 8
