import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_inputs import arrays, spliced, values
from refusals import refusal

from epe_nas_jax import InputError
from epe_nas_jax.spaces.nats_sss import genotype as space
from epe_nas_jax.spaces.nats_sss.space import NATS_SSS

TEXT = "8:16:32:48:64"


def test_text_lists_the_channels_of_the_layers():
    row = space.parse(TEXT)
    assert row.dtype == np.int32
    assert row.tolist() == [0, 1, 3, 5, 7]
    assert space.format_channels(row) == TEXT
    assert space.format_channels(np.zeros(5, int)) == "8:8:8:8:8"


def test_every_choice_round_trips_through_its_text():
    rows = space.PRODUCT.every()
    texts = [space.format_channels(row) for row in rows]
    expected = itertools.product(range(8, 65, 8), repeat=5)
    assert texts == [":".join(map(str, widths)) for widths in expected]
    assert np.array_equal([space.parse(text) for text in texts], rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the form c1:c2:c3:c4:c5 with channels 8, 16"),
        ("8:8:8:8", "expected the form"),
        ("8:8:8:8:8:8", "channels '8:8:8:8:8:8': expected the form"),
        ("8:8:8:8:", "found '', expected the form"),
        ("8:8:8:8:72", "found '72', expected the form"),
        ("8:8:8:8:0", "found '0'"),
        ("8:8:8:8:08", "found '08'"),
        ("8:8:8:8: 8", "found ' 8'"),
        ("8:8:8:8:8\n", r"found '8\\n'"),
        ("8:8:8:8:\u0668", "found '\u0668'"),
        ("9" * 10**6, r"channels '9+\.\.\.9+': expected the form"),
        (3, "channels: found int, expected a str like c1:c2"),
        (None, "channels: found NoneType"),
    ],
)
def test_other_text_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=message) as error:
        space.parse(text)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 300


FRAGMENTS = st.sampled_from([*":_0123468 \n\x85\u2028\ud800\u0668", "8:", "64", "-8", "72", "8.0"])


@given(st.text() | spliced([TEXT], FRAGMENTS | st.text(max_size=5)))
@settings(deadline=None, max_examples=200)
def test_any_text_is_a_choice_or_refused(text):
    def read():
        assert space.format_channels(space.parse(text)) == text

    refusal(read)


@given(values(st.integers(0, 7)) | arrays((), (1,), (5,), (1, 5)))
@settings(deadline=None, max_examples=200)
def test_anything_is_a_genotype_or_refused(value):
    refusal(lambda: space.parse(space.format_channels(value)))


def test_every_choice_has_a_path_and_nothing_dead():
    rows = space.PRODUCT.every()
    assert NATS_SSS.has_path(rows).all()
    assert NATS_SSS.has_path(rows[0]).shape == ()
    assert np.array_equal(NATS_SSS.prune_dead(rows), rows)


def test_work_grows_with_each_width():
    for layer in range(5):
        row = np.array([[3, 1, 4, 2, 5]] * 8)
        row[:, layer] = range(8)
        assert (np.diff(space.relative_work(row)) > 0).all()


def test_the_drawing_names_the_channels():
    (graph,) = NATS_SSS.graphs(space.parse(TEXT))
    assert [node.name for node in graph.nodes] == ["in", "8", "16", "32", "48", "64"]
    assert [(edge.source, edge.target) for edge in graph.edges] == [(i, i + 1) for i in range(5)]
    assert [edge.operation for edge in graph.edges] == [
        *("cells", "reduction", "cells", "reduction", "cells")
    ]
