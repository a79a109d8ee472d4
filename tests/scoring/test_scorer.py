import dataclasses
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch

from epe_nas_jax import (
    InputError,
    NasBench201Network,
    ScoringConfig,
    compile_scorer,
    format_arch,
    jacobian_score,
    parse_arch,
    score_cells,
)
from epe_nas_jax.scoring import scorer as scorer_module
from epe_nas_jax.scoring import step
from epe_nas_jax.scoring.planning import Shard, plan_steps
from epe_nas_jax.scoring.scorer import CellScorer
from epe_nas_jax.spaces.nasbench201 import genotype as space
from epe_nas_jax.spaces.nasbench201.space import NASBENCH201

NETWORK = NasBench201Network(num_classes=3, channels=4, cells_per_stage=1, param_dtype=jnp.float64)
CELLS = np.asarray(space.sample(jax.random.key(5), 12))

# Those that need no gradient by the weights.
OF_ONE_PASS = ("epe", "epe_two_branch", "jacob_cov", "nwot", "grad_entropy", "grad_decay")
# Scores add logarithms of correlations; other orders of summation move them by rounding only.
SAME = {"rtol": 1e-9, "equal_nan": True}


@pytest.fixture
def score(minibatch):
    return functools.partial(score_cells, images=minibatch[0], labels=minibatch[1], network=NETWORK)


@pytest.fixture(scope="module")
def at_once(minibatch):
    """Scores the cells of a step at once, on two devices."""
    return compile_scorer(*minibatch, seed=0, network=NETWORK, cells_per_step=6, vectorise=True)


@pytest.mark.parametrize("init", ["shared", "independent"])
def test_vmap_equals_the_loop_over_single_cells(minibatch, init):
    score = functools.partial(jacobian_score, network=NETWORK)
    keys = jax.random.split(jax.random.key(0), len(CELLS))
    axes = (None if init == "shared" else 0, 0, None, None)
    key = keys[0] if init == "shared" else keys
    batched = jax.jit(jax.vmap(score, axes))(key, jnp.asarray(CELLS), *minibatch)
    single = jax.jit(score)
    loop = [
        single(keys[0] if init == "shared" else keys[i], jnp.asarray(cell), *minibatch)
        for i, cell in enumerate(CELLS)
    ]
    assert np.isfinite(batched).sum() >= len(CELLS) - 1
    assert np.allclose(batched, loop, **SAME)


@pytest.mark.parametrize(
    "config",
    [
        ScoringConfig(),
        ScoringConfig(init="independent"),
        ScoringConfig(init="independent", fresh_batch=6, augment=True, num_inits=2),
    ],
)
def test_score_depends_on_the_cell_only(score, config):
    score = functools.partial(score, seed=1, config=config)
    scores = score(CELLS, cells_per_step=4)
    order = np.random.default_rng(0).permutation(len(CELLS))
    assert np.allclose(score(CELLS[order], cells_per_step=4), scores[order], **SAME)
    assert np.allclose(score(CELLS, cells_per_step=5), scores, **SAME)
    assert np.allclose(score(CELLS[3:4], cells_per_step=4), scores[3:4], **SAME)
    assert not np.allclose(score(CELLS[:1], cells_per_step=4), score(CELLS[:1] * 0 + 3))


@pytest.mark.parametrize(
    "config",
    [
        ScoringConfig(num_inits=2),
        ScoringConfig(init="independent", fresh_batch=6, augment=True),
    ],
)
def test_class_scores_make_up_the_score(minibatch, config):
    scorer = compile_scorer(*minibatch, seed=1, network=NETWORK, config=config)
    # With a dead operation, whose live form is what is scored.
    cell = parse_arch(
        "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|nor_conv_1x1~0|skip_connect~1|none~2|"
    )
    e = scorer.class_scores(cell)
    assert e.shape == (3,)
    assert np.allclose(np.abs(e).sum(), scorer(cell[None])[0], **SAME)


@pytest.mark.parametrize(
    ("config", "num_devices"),
    [
        (ScoringConfig(proxies=OF_ONE_PASS), 1),
        (ScoringConfig(init="independent"), 2),
        (ScoringConfig(init="independent", fresh_batch=6, augment=True, num_inits=2), 1),
    ],
    ids=["all of one pass", "own weights, two devices", "own mini-batches, two draws"],
)
def test_cells_scored_at_once_equal_cells_scored_one_by_one(minibatch, config, num_devices):
    arguments = {"seed": 0, "network": NETWORK, "config": config, "cells_per_step": 5}
    one_by_one = compile_scorer(*minibatch, **arguments).proxies(CELLS)
    scorer = compile_scorer(
        *minibatch,
        **arguments,
        devices=jax.devices()[:num_devices],
        vectorise=True,
    )
    assert scorer.packer is not None
    assert np.isfinite(one_by_one).mean() > 0.9
    assert np.allclose(scorer.proxies(CELLS), one_by_one, **SAME)


def test_loops_give_the_scores_of_groups(at_once):
    by_loops = dataclasses.replace(at_once, packer=None)
    assert np.allclose(by_loops(CELLS), at_once(CELLS), **SAME)


def test_groups_leave_no_loop_and_a_program_that_is_as_long_for_any_step(at_once):
    def count(**changes):
        text = dataclasses.replace(at_once, **changes).lower("cuda").as_text()
        return [text.count(f"stablehlo.{what}") for what in ("while", "convolution")]

    loops, convolutions = count(cells_per_step=5)
    # The draws of the weights, and for each draw a score: both of known length.
    assert loops == 2
    assert convolutions > 20
    assert count(cells_per_step=50) == [loops, convolutions]
    assert count(cells_per_step=5, packer=None)[0] > 100


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32", "bfloat16"])
def test_halves_are_held_below_float32(at_once, precision):
    key, images, labels, black = at_once.inputs
    scorer = dataclasses.replace(
        at_once,
        network=dataclasses.replace(NETWORK, param_dtype=jnp.float32),
        config=ScoringConfig(precision=precision),
        inputs=(key, images.astype(jnp.float32), labels, black.astype(jnp.float32)),
    )
    text = scorer.lower().as_text()
    assert ("bf16" in text) == (precision != "float32")
    # Without a barrier the compiler takes the way there and back for nothing.
    assert bool(re.search("optimization_barrier.*bf16", text)) == (precision != "float32")
    # All layers, those of the whole network too, only where the precision says so.
    assert bool(re.search("stablehlo.convolution.*bf16", text)) == (precision == "bfloat16")


def test_a_network_without_batch_norm_runs_by_loops(minibatch):
    network = dataclasses.replace(NETWORK, batch_norm=False)
    assert network.group_work is None
    one_by_one, by_loops = (
        compile_scorer(*minibatch, seed=0, network=network, vectorise=vectorise, cells_per_step=3)(
            CELLS[:3]
        )
        for vectorise in (False, True)
    )
    assert np.allclose(by_loops, one_by_one, **SAME)


def test_a_step_is_compiled_for_the_part_of_one_process(at_once):
    packer = at_once.packer._replace(num_together=48)
    known = dataclasses.replace(at_once, packer=packer, cells_per_step=100)
    assert known.largest_step()[0] == 48 // 2
    assert dataclasses.replace(known, num_processes=4).largest_step()[0] == 48 // 8


def test_an_empty_list_and_one_cell_are_scored_at_once_too(at_once):
    assert at_once(np.zeros((0, 6), int)).shape == (0,)
    assert np.allclose(at_once(CELLS[:1]), at_once(CELLS)[:1], **SAME)


@pytest.mark.parametrize("name", ["num_together", "num_processes"])
def test_numbers_that_a_step_is_made_for_are_checked(minibatch, name):
    with pytest.raises(InputError, match=f"{name}: found 0, expected at least 1"):
        compile_scorer(*minibatch, seed=0, network=NETWORK, **{name: 0})


def test_processes_with_groups_score_every_network_once(at_once):
    kinds, networks, _ = at_once.distinct(CELLS)
    found, num_steps = {}, []
    for process in range(3):
        # The other processes have a device only, so that this one's second stays idle.
        shard = Shard(process, 3, num_devices=1, cells_per_step=6)
        steps = list(at_once.steps(kinds, networks, shard=shard))
        num_steps.append(len(steps))
        for genotypes, proxies in steps:
            assert not set(map(bytes, genotypes)) & set(found)
            found |= dict(zip(map(bytes, genotypes), proxies, strict=True))
    # After each of them all exchange what they have.
    assert len(set(num_steps)) == 1
    got = np.stack([found[bytes(kind)] for kind in kinds])
    assert np.allclose(got[:, 0], at_once(kinds), **SAME)


def test_number_of_devices_changes_no_score(score):
    assert len(jax.devices()) == 2
    scores = [score(CELLS, seed=0, devices=jax.devices()[:number]) for number in (1, 2)]
    assert np.allclose(*scores, **SAME)


@pytest.mark.slow
def test_eight_devices_give_the_scores_of_one_and_never_gather():
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "eight_devices.py"],
        capture_output=True,
        text=True,
        check=True,
    )
    one, *others = json.loads(done.stdout)
    assert np.isfinite(one).all()
    for other in others:
        assert np.allclose(other, one, **SAME)


@pytest.mark.parametrize(
    "config", [ScoringConfig(), ScoringConfig(init="independent", fresh_batch=6, augment=True)]
)
def test_live_form_scores_are_those_of_the_cells_as_written(score, config):
    # Half of these cells have dead operations, and some share a live form.
    cells = np.concatenate([CELLS, np.tile(CELLS[:3] * [0, 1, 0, 1, 1, 1], (2, 1))])
    assert (space.prune_dead(cells) != cells).any(axis=1).sum() >= 6
    as_written, live = (
        score(cells, seed=0, config=config, prune_dead=prune) for prune in (False, True)
    )
    assert np.isfinite(live).sum() >= 12
    assert np.array_equal(live, as_written, equal_nan=True)


def test_fresh_minibatches_can_be_class_balanced(minibatch):
    # Two images of two classes and six copies of one image of the third: a balanced mini-batch of
    # six holds the same images, whichever are drawn, in some order.
    images, labels = minibatch
    of_class = [images[labels == label] for label in range(3)]
    copies = np.repeat(of_class[2][:1], 6, axis=0)
    data = np.concatenate([of_class[0][:2], of_class[1][:2], copies])
    classes = np.array([0, 0, 1, 1, 2, 2, 2, 2, 2, 2], np.int32)
    score = functools.partial(score_cells, CELLS, seed=0, network=NETWORK)
    expected = score(data[:6], classes[:6])
    balanced = ScoringConfig(fresh_batch=6, class_balanced=True)
    assert np.isfinite(expected).sum() >= len(CELLS) - 1
    assert np.allclose(score(data, classes, config=balanced), expected, **SAME)


def test_equal_live_forms_are_scored_once(minibatch, monkeypatch):
    scorer = compile_scorer(*minibatch, seed=0, network=NETWORK)
    seen = []
    run = CellScorer._run

    def spy(self, kinds, networks, step):
        seen.append(networks)
        return run(self, kinds, networks, step)

    monkeypatch.setattr(CellScorer, "_run", spy)
    base = parse_arch("|none~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|nor_conv_1x1~2|")
    cells = np.tile(base, (5, 1))
    cells[:, 0] = range(5)  # Into node 1, which leads nowhere.
    scores = scorer(cells)
    assert np.unique(scores).size == 1
    assert np.array_equal(seen, [base[None]])


def test_networks_of_one_identity_are_still_different_networks(score, monkeypatch):
    # An identity names weights and mini-batches of a cell's own, and never the cell itself.
    scores = score(CELLS, seed=0)
    same = dataclasses.replace(
        NASBENCH201, identity=lambda cells: np.zeros((len(cells), 1), np.int32)
    )
    monkeypatch.setattr(NasBench201Network, "space", same)
    assert np.allclose(score(CELLS, seed=0), scores, **SAME)


def test_shared_weights_are_those_of_the_network_init(minibatch, score):
    seed_key = jax.random.split(jax.random.key(7), 1)[0]
    weights_key, _ = jax.random.split(seed_key)
    expected = jax.jit(functools.partial(jacobian_score, network=NETWORK))(
        weights_key, jnp.asarray(CELLS[0]), *minibatch
    )
    assert np.allclose(score(CELLS[:1], seed=7), expected, **SAME)
    init = jax.jit(lambda key: NETWORK.init(key, minibatch[0], tuple(CELLS[0].tolist())))
    shared = step.shared_weights(7, NETWORK, minibatch[0])
    drawn = dict(jax.tree_util.tree_leaves_with_path(shared))
    for path, leaf in jax.tree_util.tree_leaves_with_path(init(weights_key)):
        assert np.array_equal(leaf, drawn[path]), path


def test_equal_configs_with_other_seeds_give_other_scores(score):
    one, other = (score(CELLS[:3], seed=seed) for seed in (0, 1))
    assert not np.isclose(one, other).any()


def test_independent_weights_differ_from_shared_ones(score):
    shared = score(CELLS[:3], seed=0)
    own = score(CELLS[:3], seed=0, config=ScoringConfig(init="independent"))
    assert not np.isclose(shared, own).any()


def test_inits_are_averaged(minibatch):
    network = NETWORK
    keys = jax.random.split(jax.random.key(0), 3)
    weights_keys = [jax.random.split(key)[0] for key in keys]
    single = jax.jit(functools.partial(jacobian_score, network=network))
    expected = np.mean([single(key, jnp.asarray(CELLS[1]), *minibatch) for key in weights_keys])
    got = score_cells(
        CELLS[1:2], *minibatch, seed=0, network=network, config=ScoringConfig(num_inits=3)
    )
    assert np.allclose(got, expected, **SAME)


def test_one_program_serves_any_number_of_cells(minibatch):
    images, labels = minibatch[0].astype(np.float32), minibatch[1]
    network = NasBench201Network(num_classes=3, channels=2, cells_per_stage=1)
    programs = step.score_step._cache_size()
    for seed, num_cells in enumerate((1, 7, 1000)):
        scorer = compile_scorer(images, labels, seed=seed, network=network, cells_per_step=50)
        assert scorer(space.sample(jax.random.key(0), num_cells)).shape == (num_cells,)
        assert step.score_step._cache_size() == programs + 1


def test_equal_scorers_share_a_program_and_are_traced_once(minibatch, monkeypatch):
    images, labels = minibatch[0].astype(np.float32), minibatch[1]
    network = NasBench201Network(num_classes=3, channels=2, cells_per_stage=1)
    traced = []
    cell_proxies = step.cell_proxies

    def spy(*args, **kwargs):
        traced.append(kwargs["proxies"])
        return cell_proxies(*args, **kwargs)

    monkeypatch.setattr(step, "cell_proxies", spy)
    # A number of cells that no other test takes, so that the program is new.
    arguments = {"network": network, "cells_per_step": 3}
    scores = compile_scorer(images, labels, seed=0, **arguments)(CELLS)
    num_traced, programs = len(traced), step.score_step._cache_size()
    assert num_traced > 0
    again = compile_scorer(images, labels, seed=0, **arguments)
    assert np.array_equal(again(CELLS), scores, equal_nan=True)
    # Another seed and other images are other numbers in the same program.
    other = compile_scorer(images[::-1], labels, seed=1, **arguments)
    assert not np.allclose(other(CELLS), scores, equal_nan=True)
    assert len(traced) == num_traced
    assert step.score_step._cache_size() == programs


def test_a_scorer_never_changes(minibatch):
    scorer = compile_scorer(*minibatch, seed=0, network=NETWORK)
    for field in dataclasses.fields(scorer):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(scorer, field.name, getattr(scorer, field.name))
    # It can be a key of a dictionary, though arrays cannot.
    assert {scorer: 1}[scorer] == 1
    assert scorer != dataclasses.replace(scorer, progress=True)


def test_processes_that_share_the_steps_score_every_network_once(minibatch):
    scorer = compile_scorer(*minibatch, seed=0, network=NETWORK, cells_per_step=2)
    assert scorer.num_slots == 4
    kinds, networks, back = scorer.distinct(CELLS)
    found = {}
    for process in (0, 1):
        shard = Shard(process, 2, num_devices=2, cells_per_step=2)
        for genotypes, proxies in scorer.steps(kinds, networks, shard=shard):
            assert not set(map(bytes, genotypes)) & set(found)
            found |= dict(zip(map(bytes, genotypes), proxies, strict=True))
    assert set(found) == set(map(bytes, kinds))
    got = np.stack([found[bytes(kind)] for kind in kinds[back]])
    assert np.allclose(got, scorer.proxies(CELLS), **SAME)


def test_the_compilers_account_of_memory_has_the_last_word(minibatch, monkeypatch):
    scores = score_cells(CELLS, *minibatch, seed=0, network=NETWORK)
    assert len(compile_scorer(*minibatch, seed=0, network=NETWORK).devices) == 2
    # This program takes 1.04 MB a device; the estimate does not see what is usable here.
    monkeypatch.setattr(scorer_module, "usable_memory", lambda _: 1_500_000)
    scorer = compile_scorer(*minibatch, seed=0, network=NETWORK)
    assert plan_steps("auto", NETWORK, minibatch[0].shape, jax.local_devices()) == (256, 2)
    assert np.allclose(scorer(CELLS), scores, **SAME)
    assert len(scorer.devices) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_products_are_given_their_precision(minibatch, precision):
    scorer = compile_scorer(
        *minibatch, seed=0, network=NETWORK, config=ScoringConfig(precision=precision)
    )
    said = re.findall(
        r"stablehlo\.convolution.*precision_config = \[#stablehlo<precision (\w+)>",
        scorer.lower().as_text(),
    )
    assert len(said) > 10
    # A kernel that is only turned around, not multiplied, keeps its full precision.
    assert set(said) == {{"float32": "HIGHEST", "bfloat16": "DEFAULT"}[precision]}


@pytest.mark.slow
def test_the_341_cells_without_a_path_and_only_they_have_no_score(minibatch):
    images, labels = minibatch[0].astype(np.float32), minibatch[1]
    network = NasBench201Network(num_classes=3, channels=4, cells_per_stage=1)
    every_cell = np.asarray(space.decode(np.arange(space.NUM_CELLS)))
    no_path = every_cell[~space.has_path(every_cell)]
    assert len(no_path) == 341
    scores = score_cells(no_path, images, labels, seed=0, network=network, prune_dead=False)
    assert np.isnan(scores).all()
    others = every_cell[space.has_path(every_cell)][::50]
    # A tiny network can die by chance, a ReLU closing all channels of an image; almost none does.
    assert np.isfinite(score_cells(others, images, labels, seed=0, network=network)).mean() > 0.95


def test_no_cells_give_no_scores(score):
    assert score(np.zeros((0, 6), int), seed=0).shape == (0,)


def replace_first(array, value):
    array = array.copy()
    array.flat[0] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:0], y[:0]), "images: found 0"),
        (lambda x, y: (replace_first(x, np.nan), y), "NaN or infinite"),
        (lambda x, y: (replace_first(x, np.inf), y), "NaN or infinite"),
        (lambda x, y: (x[:, :, :, 0], y), "found rank 3"),
        (lambda x, y: ((255 * x).astype(np.uint8), y), "found dtype uint8"),
        (lambda x, y: (x, y[:-1]), "labels: found 7, expected 8"),
        (lambda x, y: (x, y.astype(float)), "labels: found float64"),
        (lambda x, y: (x, replace_first(y, 3)), "labels: found 3, expected 0..2"),
        (lambda x, y: (x, replace_first(y, -1)), "labels: found -1, expected 0..2"),
        (lambda x, y: (x[:3], y[:3]), "labels: found 3 images of as many classes, expected two of"),
    ],
)
def test_bad_minibatch_is_refused(minibatch, change, message):
    with pytest.raises(InputError, match=message):
        score_cells(CELLS, *change(*minibatch), seed=0, network=NETWORK)


def test_fresh_batch_larger_than_the_data_set_is_refused(score):
    with pytest.raises(InputError, match="fresh_batch: found 9, expected at most 8"):
        score(CELLS, seed=0, config=ScoringConfig(fresh_batch=9))


FORMS = {
    "lists": lambda x, y: (x.tolist(), y.tolist()),
    "torch": lambda x, y: (torch.tensor(x), torch.tensor(y)),
    "jax": lambda x, y: (jnp.asarray(x), jnp.asarray(y)),
    "wide labels": lambda x, y: (x, y.astype(np.uint64)),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_of_any_library_have_one_score(minibatch, score, form):
    images, labels = FORMS[form](*minibatch)
    found = score(CELLS[:3], images=images, labels=labels, seed=0)
    assert np.array_equal(found, score(CELLS[:3], seed=0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(minibatch, dtype):
    images = torch.tensor(minibatch[0], dtype=dtype)
    network = dataclasses.replace(NETWORK, param_dtype=jnp.float32)
    found, expected = (
        score_cells(CELLS[:3], x, minibatch[1], seed=0, network=network)
        for x in (images, images.float().numpy())
    )
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_float64_images_print_no_warning_where_jax_has_32_bits(minibatch):
    network = dataclasses.replace(NETWORK, param_dtype=jnp.float32)
    with jax.enable_x64(False):
        # Warnings are errors here.
        scores = score_cells(CELLS[:3], *minibatch, seed=0, network=network)
    assert scores.dtype == np.float32


@pytest.mark.parametrize(
    "form", [list, tuple, np.array, pd.Series, lambda texts: np.array(texts, object)]
)
def test_cells_may_be_arch_strings(score, form):
    archs = [format_arch(cell) for cell in CELLS[:3]]
    assert np.array_equal(score(form(archs), seed=0), score(CELLS[:3], seed=0))


def test_one_arch_string_is_one_cell_and_an_empty_list_none(score):
    assert np.array_equal(score(format_arch(CELLS[0]), seed=0), score(CELLS[:1], seed=0))
    assert score([], seed=0).shape == (0,)


@pytest.mark.parametrize("form", [torch.tensor, np.ndarray.tolist, jnp.asarray])
def test_genotypes_are_arrays_of_any_library(score, form):
    assert np.array_equal(score(form(CELLS[:3]), seed=0), score(CELLS[:3], seed=0))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["|none~0|"], r"arch string '\|none~0\|': expected the form"),
        ([format_arch([0] * 6), 3], "arch string: found int, expected a str"),
        ([[0, 1], [2]], "genotypes: found a list that cannot be read as an array"),
        ([0, 1, 2, 3, 4, 0], r"genotypes: found shape \(6,\)"),
        (np.zeros((2, 6)), "genotypes: found dtype float64"),
        (np.zeros((2, 6), "m8[s]"), "genotypes: found dtype timedelta64"),
        (None, "genotypes: found a NoneType"),
    ],
)
def test_what_is_no_list_of_cells_is_refused(score, cells, message):
    with pytest.raises(InputError, match=message):
        score(cells, seed=0)


def test_no_devices_are_not_all_devices(score):
    with pytest.raises(InputError, match="devices: found none, expected at least one"):
        score(CELLS, seed=0, devices=[])


@pytest.mark.parametrize("seed", [2**32, 2**40, -1, 1.5, None])
def test_a_seed_that_would_be_another_one_is_refused(score, seed):
    with pytest.raises(InputError, match=f"seed: found {seed}, expected a whole number"):
        score(CELLS, seed=seed)


def test_seeds_up_to_32_bits_have_scores_of_their_own(score):
    found = [score(CELLS[:1], seed=seed)[0] for seed in (0, 2**31, 2**32 - 1)]
    assert len(set(found)) == 3


def test_who_looks_for_nan_gets_the_scores_of_cells_without_a_path(score):
    cells = np.array([CELLS[0], [0] * 6])
    with jax.debug_nans(True):
        found = score(cells, seed=0, prune_dead=False)
    assert np.isnan(found).tolist() == [False, True]
