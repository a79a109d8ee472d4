"""The protocol of a search space, on every space of the table."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epe_nas_jax import InputError
from epe_nas_jax.spaces.base import CellGraph, Cost
from epe_nas_jax.spaces.table import SPACES, space_entry


@pytest.fixture(params=SPACES)
def entry(request):
    return SPACES[request.param]


@pytest.fixture
def space(entry):
    return entry.space


@pytest.fixture
def num_cells(space):
    """How many cells are drawn: all, if there are few."""
    return 40 if space.every is None else min(40, len(space.every()))


@pytest.fixture
def cells(space, num_cells):
    """Cells drawn at random, the neighbours of one, and the row of zeros."""
    sampled = np.asarray(space.sample(jax.random.key(0), num_cells))
    zeros = np.zeros((1, space.num_edges), np.int32)
    return np.concatenate([sampled, space.neighbours(sampled[0]), zeros])


@pytest.fixture
def network(entry):
    return entry.make_network(3, 4, 1, jnp.float64)


def distinct(rows):
    return len(np.unique(np.asarray(rows), axis=0))


def test_entries_stand_under_their_names():
    for name, entry in SPACES.items():
        assert entry.space.name == name
        assert space_entry(name) is entry


@pytest.mark.parametrize("name", ["other", "", None, "DARTS"])
def test_an_unknown_space_is_refused_in_one_line(name):
    with pytest.raises(InputError, match=r"space.name: found .*, expected one of nasbench201, d"):
        space_entry(name)


def test_text_and_genotype_are_each_others_inverse(space, cells):
    for cell in cells:
        text = space.format(cell)
        assert isinstance(text, str)
        parsed = space.parse(text)
        assert parsed.dtype == np.int32
        assert np.array_equal(parsed, cell)
        assert space.format(parsed) == text
    assert len({space.format(cell) for cell in cells}) == distinct(cells)


@pytest.mark.parametrize("text", ["", "x", None, 3, "|none~0|", "Genotype()", "\n"])
def test_other_text_is_refused_in_one_line(space, text):
    with pytest.raises(InputError) as error:
        space.parse(text)
    assert "\n" not in str(error.value)


def test_check_keeps_genotypes_as_int32(space, cells):
    for dtype in (np.int32, np.int64, np.uint8):
        checked = space.check(cells.astype(dtype))
        assert checked.dtype == np.int32
        assert np.array_equal(checked, cells)
    assert np.array_equal(space.check(jnp.asarray(cells)), cells)
    assert space.check(cells[:0]).shape == (0, space.num_edges)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0], "found shape"),
        (lambda rows: rows[:, 1:], "found shape"),
        (lambda rows: rows.astype(float), "found dtype float64"),
        (lambda rows: rows - 100, "genotype 0, edge 0: found operation index -"),
        (lambda rows: rows + 100, "genotype 0, edge 0: found operation index 10"),
    ],
)
def test_check_refuses_what_is_no_genotype(space, cells, change, message):
    with pytest.raises(InputError, match=message):
        space.check(change(cells))


def test_format_refuses_what_is_no_genotype(space, cells):
    with pytest.raises(InputError):
        space.format(cells[0] + 100)


def test_samples_are_valid_all_different_and_a_function_of_the_key(space, cells, num_cells):
    sampled = cells[:num_cells]
    assert distinct(sampled) == num_cells
    again = space.sample(jax.random.key(0), num_cells)
    assert np.array_equal(again, sampled)
    assert not np.array_equal(space.sample(jax.random.key(1), num_cells), sampled)
    assert np.array_equal(space.check(sampled), sampled)


def test_samples_with_replacement_are_valid(space):
    drawn = np.asarray(space.sample_with_replacement(jax.random.key(0), 40))
    assert drawn.shape == (40, space.num_edges)
    assert np.array_equal(space.check(drawn), drawn)


@pytest.mark.parametrize("draw", ["sample", "sample_with_replacement"])
def test_no_cells_cannot_be_drawn(space, draw):
    with pytest.raises(InputError, match="number of samples: found 0"):
        getattr(space, draw)(jax.random.key(0), 0)


def test_neighbours_are_valid_and_all_different_from_the_cell_and_each_other(space, cells):
    for cell in cells[[0, 1, -1]]:
        around = space.neighbours(cell)
        assert np.array_equal(space.check(around), around)
        assert distinct(np.append(around, cell[None], axis=0)) == len(around) + 1


def test_a_mutation_is_a_neighbour_and_a_function_of_the_key(space, cells, num_cells):
    parents = cells[:num_cells]
    children = np.asarray(space.mutate(jax.random.key(3), parents))
    assert children.dtype == np.int32
    for parent, child in zip(parents, children, strict=True):
        assert child.tolist() in space.neighbours(parent).tolist()
    assert np.array_equal(space.mutate(jax.random.key(3), parents), children)
    assert not np.array_equal(space.mutate(jax.random.key(4), parents), children)


def test_every_cell_is_listed_once_or_none_is(space, cells):
    if space.every is None:
        return
    every = space.every()
    assert distinct(every) == len(every)
    assert distinct(np.concatenate([every, cells])) == len(every)


def test_pruning_takes_operations_away_and_is_idempotent(space, cells):
    pruned = space.prune_dead(cells)
    assert np.array_equal(space.prune_dead(pruned), pruned)
    assert np.array_equal(space.check(pruned), pruned)
    # Operations are taken away, and those that stay may move up.
    assert (np.sort(pruned, axis=1) <= np.sort(cells, axis=1)).all()
    # Its argument is left as it was, and a row is pruned as it is among others.
    assert np.array_equal(space.prune_dead(cells[3]), pruned[3])
    assert np.array_equal(space.has_path(pruned), space.has_path(cells))


def test_almost_all_drawn_cells_have_a_path(space, cells, num_cells):
    has_path = space.has_path(cells)
    assert has_path.dtype == bool
    assert has_path.shape == (len(cells),)
    assert has_path[:num_cells].mean() > 0.9


def test_identity_is_exact(space, cells):
    cells = np.concatenate([cells, space.prune_dead(cells), cells[:5]])
    words = space.identity(cells)
    assert words.dtype == np.int32
    assert words.ndim == 2
    assert words.min() >= 0
    assert distinct(words) == distinct(cells) == distinct(np.append(words, cells, axis=1))
    # A cell has its identity wherever it stands.
    assert np.array_equal(space.identity(cells[7:8]), words[7:8])


def test_work_is_positive_where_there_is_a_path_and_grows_with_dead_operations(space, cells):
    work = np.asarray(space.relative_work(cells))
    assert work.shape == (len(cells),)
    assert (work[space.has_path(cells)] > 0).all()
    assert (work >= space.relative_work(space.prune_dead(cells))).all()
    assert distinct(work) > 2


def named_edges(graphs):
    """Those edges of drawings that have an operation."""
    return [edge for graph in graphs for edge in graph.edges if edge.operation]


def test_graphs_name_all_operations_and_mark_the_live_ones(space, cells):
    drawn = [named_edges(space.graphs(cell)) for cell in cells]
    names = {edge.operation for edges in drawn for edge in edges}
    assert len(names) > 1
    # Some texts write operations as numbers.
    texts_name_operations = all(any(name in space.format(cell) for cell in cells) for name in names)
    for cell, edges in zip(cells, drawn, strict=True):
        text = space.format(cell)
        count = collections.Counter(edge.operation for edge in edges)
        if texts_name_operations:
            assert count == collections.Counter({name: text.count(name) for name in names})
        live = named_edges(space.graphs(space.prune_dead(cell)))
        assert sum(edge.is_live for edge in edges) == len(live)
        assert all(edge.is_live for edge in live)


def test_graphs_stand_within_the_drawing(space, cells):
    for cell in cells:
        graphs = space.graphs(cell)
        titles = [graph.title for graph in graphs]
        assert len(set(titles)) == len(titles) > 0
        for graph in graphs:
            assert isinstance(graph, CellGraph)
            for node in graph.nodes:
                assert node.name
                assert 0 < node.x < graph.width
                assert 0 < node.y < graph.height
            for edge in graph.edges:
                assert edge.kind in ("skip", "conv", "pool")
                assert 0 <= edge.source < edge.target < len(graph.nodes)


def test_canonical_form_is_text_if_the_space_knows_one(space, cells):
    if space.canonical_form is None:
        return
    forms = {space.canonical_form(cell) for cell in cells}
    assert all(isinstance(form, str) for form in forms)
    assert 1 < len(forms) <= distinct(cells)


def test_network_is_one_of_the_space_and_a_key(entry, network):
    assert network.space is entry.space
    assert network.num_classes == 3
    assert network.param_dtype == jnp.float64
    assert network == entry.make_network(3, 4, 1, jnp.float64)
    assert hash(network) == hash(entry.make_network(3, 4, 1, jnp.float64))
    for sizes in ((5, 4, 1), (3, 8, 1), (3, 4, 2)):
        assert network != entry.make_network(*sizes, jnp.float64)


def test_network_gives_logits_and_has_weights_for_any_genotype_if_it_is_traced(
    entry, network, minibatch
):
    images, _ = minibatch
    cell = np.asarray(entry.space.sample(jax.random.key(0), 1))[0]
    static = tuple(cell.tolist())
    own = jax.eval_shape(lambda key: network.init(key, images, static), jax.random.key(0))
    logits = jax.eval_shape(lambda variables: network.apply(variables, images, static), own)
    assert logits.shape == (8, 3)
    every = jax.eval_shape(network.init, jax.random.key(0), images, jnp.asarray(cell))
    shapes = [
        {path: leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
        for variables in (own, every)
    ]
    assert shapes[0].keys() <= shapes[1].keys()
    # A genotype of widths has the first channels of the widest network.
    assert all(
        a <= b
        for path, shape in shapes[0].items()
        for a, b in zip(shape, shapes[1][path], strict=True)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(every)} == {np.dtype(np.float64)}


def test_only_a_trainable_network_makes_running_averages(entry, network, minibatch):
    images, _ = minibatch
    cell = tuple(np.asarray(entry.space.sample(jax.random.key(0), 1))[0].tolist())

    def init(key):
        return network.init(key, images, cell, use_running_average=True)

    if entry.is_trainable:
        assert set(jax.eval_shape(init, jax.random.key(0))) == {"params", "batch_stats"}
    else:
        with pytest.raises(TypeError, match="use_running_average"):
            jax.eval_shape(init, jax.random.key(0))


def test_costs_are_a_number_a_cell_and_grow_with_the_network(entry, network, cells):
    cost = network.cost(cells, side=32)
    assert isinstance(cost, Cost)
    for numbers in cost:
        assert numbers.dtype == np.int64
        assert numbers.shape == (len(cells),)
        assert (numbers > 0).all()
    live = network.cost(cells, side=32, live=True)
    pruned = network.cost(entry.space.prune_dead(cells), side=32)
    for a, b, c in zip(live, pruned, cost, strict=True):
        assert np.array_equal(a, b)
        assert (a <= c).all()
    wider, deeper = (
        entry.make_network(3, *sizes, jnp.float64).cost(cells, side=32)
        for sizes in ((8, 1), (4, 2))
    )
    assert all((a > b).all() for a, b in zip(wider, cost, strict=True))
    # A cell of pools and skips has no parameters.
    assert all((a >= b).all() for a, b in zip(deeper, cost, strict=True))
    assert all((a > b).mean() > 0.5 for a, b in zip(deeper, cost, strict=True))
    four_times = network.cost(cells, side=64)
    assert np.array_equal(four_times.params, cost.params)
    assert (four_times.flops > 3 * cost.flops).all()


def test_kept_activations_grow_with_images_and_network(entry, network):
    count = network.activation_count((8, 8, 8, 3))
    assert count > 0
    assert network.activation_count((16, 8, 8, 3)) == 2 * count
    assert network.activation_count((8, 16, 16, 3)) == 4 * count
    for sizes in itertools.product((4, 8), (1, 2)):
        if sizes != (4, 1):
            assert entry.make_network(3, *sizes, jnp.float64).activation_count((8, 8, 8, 3)) > count
