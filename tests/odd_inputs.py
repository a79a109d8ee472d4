"""What tests give to readers: damaged files, texts put together wrongly, and values of any type."""

import ml_dtypes
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# Headers lie so near to an end of a file.
_EDGE = 300


def damaged(contents):
    """Strategy of some bytes, mostly with a few flipped, or a piece cut out, doubled or zeroed."""

    # Its own name is all that Hypothesis writes of a strategy that fails.
    @st.composite
    def damaged_bytes(draw):
        content = bytearray(draw(st.sampled_from(contents)))
        size = len(content)
        place = (
            st.integers(0, min(_EDGE, size) - 1)
            | st.integers(max(0, size - _EDGE), size - 1)
            | st.integers(0, size - 1)
        )
        for i, bits in draw(st.lists(st.tuples(place, st.integers(1, 255)), max_size=4)):
            content[i] ^= bits
        start, end = sorted((draw(place), draw(place)))
        kind = draw(st.sampled_from(["whole", "cut off", "cut out", "doubled", "zeroed"]))
        if kind == "cut off":
            del content[start:]
        elif kind == "cut out":
            del content[start:end]
        elif kind == "doubled":
            content[end:end] = content[start:end]
        elif kind == "zeroed":
            content[start:end] = bytes(end - start)
        return bytes(content)

    return damaged_bytes()


@st.composite
def spliced(draw, texts, fragments):
    """One of some texts, with fragments in the places of some pieces of it."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(fragments) + text[start + draw(st.integers(0, 30)) :]
    return text


_SMALL = ("int2", "int4", "uint2", "uint4", "bfloat16", "float8_e4m3fn")
DTYPES = (
    hnp.scalar_dtypes()
    | hnp.nested_dtypes()
    | st.sampled_from([np.dtype(getattr(ml_dtypes, name)) for name in _SMALL])
)
_SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers()),
    *(st.text(max_size=5), st.binary(max_size=5), st.datetimes()),
)


def values(*more):
    """Strategy of nested containers of anything; `more` are strategies of what is in them, too."""
    return st.recursive(
        st.one_of(_SCALARS, *more),
        lambda inner: st.one_of(
            st.lists(inner, max_size=6),
            st.tuples(inner, inner),
            st.dictionaries(st.text(max_size=2), inner, max_size=2),
        ),
        max_leaves=20,
    )


def arrays(*shapes):
    """Strategy of arrays of any dtype, of one of some shapes."""
    zeros = st.builds(np.zeros, st.sampled_from(shapes), DTYPES)
    return zeros | hnp.arrays(hnp.scalar_dtypes(), st.sampled_from(shapes))


# Texts are such as messages must not break at.
JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        st.sampled_from([2**31, 2**63, 1e300, "1", "nan", "a\nb", "\u2028", "\ud800"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=3) | st.sampled_from(["seed", "a\nb"]), inner, max_size=3
        )
    ),
    max_leaves=10,
)
