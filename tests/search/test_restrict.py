import jax
import numpy as np
import pytest
from toy_space import ALGORITHMS, DIGITS, SPACES, noisy_sum

from epe_nas_jax import InputError
from epe_nas_jax.search import algorithms
from epe_nas_jax.search.restrict import restrict
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201


def even(cells):
    return np.asarray(cells).sum(axis=1) % 2 == 0


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_is_not_accepted_is_never_scored(name, space):
    algorithm = ALGORITHMS[name](restrict(SPACES[space], even))
    result = algorithms.run(algorithm, jax.random.key(0), noisy_sum, 60)
    assert len(result.genotypes) == 60
    assert even(result.genotypes).all()


def test_restricted_space_samples_each_cell_it_holds_once():
    space = restrict(NASBENCH201, lambda g: (g != 3).all(axis=1))
    cells = np.asarray(space.sample(jax.random.key(0), 4**6))
    assert len({tuple(cell) for cell in cells.tolist()}) == 4**6
    assert not (cells == 3).any()


@pytest.mark.parametrize("space", SPACES)
def test_restricted_space_draws_accepted_cells_only_also_with_replacement(space):
    within = restrict(SPACES[space], even)
    cells = within.sample_with_replacement(jax.random.key(0), 300)
    assert cells.shape == (300, SPACES[space].num_edges)
    assert even(cells).all()
    assert np.array_equal(cells, within.sample_with_replacement(jax.random.key(0), 300))


def test_the_few_cells_of_a_restricted_space_are_drawn_alike_often_with_replacement():
    space = restrict(NASBENCH201, lambda g: (g[:, :5] == 1).all(axis=1))
    cells = space.sample_with_replacement(jax.random.key(0), 1000)
    found, times = np.unique(cells, axis=0, return_counts=True)
    assert np.array_equal(found, np.unique(space.every(), axis=0))
    # 200 of each on average, with a standard deviation of 13: five of them.
    assert (np.abs(times - 200) < 65).all()


def test_a_cell_of_which_no_mutation_is_accepted_mutates_to_itself():
    space = restrict(NASBENCH201, lambda g: (g == 3).all(axis=1))
    cells = np.full((2, 6), 3)
    assert np.array_equal(space.mutate(jax.random.key(0), cells), cells)
    assert len(space.neighbours(cells[0])) == 0


def test_a_space_in_which_nothing_is_accepted_is_refused():
    def nothing(cells):
        return np.zeros(len(cells), bool)

    with pytest.raises(InputError, match="found 0 cells that are accepted, expected 1"):
        restrict(NASBENCH201, nothing)
    large = restrict(DIGITS, nothing)
    with pytest.raises(InputError, match="found 0 cells that are accepted, expected 3"):
        large.sample(jax.random.key(0), 3)
    with pytest.raises(InputError, match="found 0 cells that are accepted, expected 3"):
        large.sample_with_replacement(jax.random.key(0), 3)


def test_more_cells_than_are_accepted_are_refused():
    space = restrict(NASBENCH201, lambda g: (g[:, :5] == 1).all(axis=1))
    with pytest.raises(InputError, match="found 5 cells that are accepted, expected 6"):
        algorithms.run(algorithms.random(6, space=space), jax.random.key(0), noisy_sum, 6)


class Counted:
    """Accepts even cells, and counts how often it is asked about each."""

    def __init__(self):
        self.times = {}

    def __call__(self, cells):
        for cell in np.asarray(cells):
            self.times[cell.tobytes()] = self.times.get(cell.tobytes(), 0) + 1
        return even(cells)


@pytest.mark.parametrize("space", SPACES)
def test_a_costly_predicate_is_asked_about_no_more_cells_than_sampling_takes(space):
    accept = Counted()
    within = restrict(SPACES[space], accept, is_costly=True)
    assert within.every is None
    assert not accept.times
    cells = np.asarray(within.sample(jax.random.key(0), 20))
    assert len(np.unique(cells, axis=0)) == 20
    assert even(cells).all()
    # The last one asked about was the last one needed, and about half of them are even: 40 times,
    # with a standard deviation of 6.3; five of them.
    assert list(accept.times)[-1] == cells[-1].tobytes()
    assert sum(accept.times.values()) < 72
    repeated = within.sample_with_replacement(jax.random.key(0), 20)
    assert repeated.shape == cells.shape
    assert even(repeated).all()
    assert sum(accept.times.values()) < 2 * 72


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_what_a_costly_predicate_does_not_accept_is_never_scored(name, space):
    algorithm = ALGORITHMS[name](restrict(SPACES[space], even, is_costly=True))
    result = algorithms.run(algorithm, jax.random.key(0), noisy_sum, 60)
    assert len(result.genotypes) == 60
    assert even(result.genotypes).all()


def test_a_space_that_is_listed_is_gone_through_once_by_a_costly_predicate():
    five = restrict(NASBENCH201, lambda g: (g[:, :5] == 1).all(axis=1))
    accept = Counted()
    within = restrict(five, accept, is_costly=True)
    assert len(within.sample(jax.random.key(0), 2)) == 2
    accept.times.clear()
    with pytest.raises(InputError, match="found 2 cells that are accepted, expected 3"):
        within.sample(jax.random.key(0), 3)
    assert list(accept.times.values()) == [1] * 5


def test_mutations_are_asked_about_until_one_is_accepted():
    asked = []

    def accept(cells):
        asked.append(len(cells))
        return even(cells)

    cells = np.asarray(NASBENCH201.sample(jax.random.key(2), 30))
    children = restrict(NASBENCH201, accept, is_costly=True).mutate(jax.random.key(3), cells)
    assert even(children).all()
    # Of those that are missing only: each time some of them are found.
    assert asked[0] == 30
    assert asked == sorted(asked, reverse=True)
    assert asked[1] < 30


def test_a_predicate_must_answer_for_every_cell():
    with pytest.raises(
        InputError, match=r"accept: found values of shape \(\), expected \(15625,\)"
    ):
        restrict(NASBENCH201, lambda g: True)  # noqa: ARG005
