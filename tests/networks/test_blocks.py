"""Ends of blocks in small graphs written by hand: values are letters, `x` the images."""

from epe_nas_jax.networks.blocks import Ends, Node, block_ends

LARGE, SMALL = (8, 4, 4, 6), (8, 2, 2, 6)


def node(text, kind="", scope=""):
    """A node of `inputs>outputs`."""
    inputs, outputs = text.split(">")
    return Node(tuple(inputs), tuple(outputs), kind, tuple(scope.split()))


def residual(start, middle, end, scope=""):
    return [
        node(f"{start}>{middle}", scope=scope),
        node(f"{start}{middle}>{end}", "sum", scope=scope),
    ]


def ends(nodes, large, small):
    shapes = {"x": (8, 4, 4, 3), "z": (8, 3)}
    shapes |= dict.fromkeys(large, LARGE) | dict.fromkeys(small, SMALL)
    return block_ends(nodes, "x", "z", shapes)


def test_residual_sums_end_blocks():
    nodes = [
        node("x>a"),
        *residual("a", "b", "c"),
        node("c>d", "rectifier"),
        *residual("d", "e", "f"),
        node("f>g"),
        *residual("g", "h", "i"),
        node("i>z"),
    ]
    assert ends(nodes, "abcdef", "ghi") == Ends(("d", "f"), "i")


def test_a_sum_that_something_goes_around_ends_none():
    # The sum in a block: its input is read once more, behind it.
    nodes = [
        node("x>a"),
        node("a>b"),
        node("ab>c", "sum"),
        node("ac>d", "sum"),
        *residual("d", "e", "f"),
        node("f>z"),
    ]
    assert ends(nodes, "abcdef", "") == Ends(("d",), "f")


def test_a_block_that_changes_the_shape_is_none():
    nodes = [
        node("x>a"),
        *residual("a", "b", "c"),
        node("c>d"),
        node("c>e"),
        node("de>f", "sum"),
        *residual("f", "g", "h"),
        node("h>z"),
    ]
    assert ends(nodes, "abc", "defgh") == Ends(("c",), "h")


def test_the_outermost_module_that_is_no_row_of_modules_is_a_block():
    nodes = [
        node("x>a", scope="net stem"),
        *residual("a", "b", "c", scope="net stage block_0 inner"),
        node("c>d", scope="net stage block_0"),
        *residual("d", "e", "f", scope="net stage block_1"),
        node("f>g", scope="net"),
        *residual("g", "h", "i", scope="net last"),
        node("i>z", scope="net head"),
    ]
    assert ends(nodes, "abcdef", "ghi") == Ends(("d", "f"), "i")


def test_without_sums_stages_end_where_the_size_changes():
    nodes = [node("x>a"), node("a>b"), node("b>c"), node("c>d"), node("d>z")]
    assert ends(nodes, "ab", "cd") == Ends(("b",), "d")


def test_what_leads_nowhere_changes_nothing():
    nodes = [node("x>a"), node("a>b"), node("a>y"), node("b>c"), node("c>z"), node("y>w")]
    assert ends(nodes, "aby", "cw") == Ends(("b",), "c")


def test_one_stage_alone_has_no_ends():
    assert ends([node("x>a"), node("a>z")], "a", "") is None
    assert ends([node("w>z")], "w", "") is None
