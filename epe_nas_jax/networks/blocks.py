"""Finds where the blocks of a network end, from the graph of what it computes.

The graph has the same form for every framework: steps in the order in which they run, and for each
step what it reads, what it makes, and in which module it is. A value is narrow if all paths from
the images to the logits go through it: the input and output of a residual block are narrow, values
inside the block are not.

Blocks end at the first kind of these values that the network has:

1. The output of a module that is as large as its input, both narrow, with a narrow sum inside. Of
   nested modules it is the outermost one that is not itself a sequence of such modules.
2. A narrow sum of two values, if the value before its branches is as large; or the output of the
   rectifiers that follow the sum.
3. The last narrow value of each height and width.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class Node(NamedTuple):
    """One step of a network.

    Attributes:
      inputs: the values that it reads, except weights and constants.
      outputs: the values that it makes.
      kind: `"sum"` of two values of one shape, `"rectifier"`, or `""`.
      scope: the modules in which it is, outermost first.
    """

    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    kind: str
    scope: tuple[str, ...]


class Ends(NamedTuple):
    """Where gradients are measured.

    Attributes:
      entropy: values over whose gradients `grad_entropy` sums.
      size: the value whose gradient `grad_decay` compares with that of the images.
    """

    entropy: tuple[Hashable, ...]
    size: Hashable


class _Graph(NamedTuple):
    """The nodes on the paths from images to logits, and the one value that is alive before each.

    Attributes:
      nodes: in order.
      alive: the value alive before each node and after the last; None where there are several.
      shapes: of values, channels last.
    """

    nodes: list[Node]
    alive: list[Hashable | None]
    shapes: Mapping[Any, Shape]

    def shape(self, place: int) -> Shape | None:
        """The shape of the only value that is alive at a place."""
        value = self.alive[place]
        return None if value is None else self.shapes[value]

    def holds_pixels(self, place: int) -> bool:
        """Whether the only value alive has pixels or tokens of each image, each with channels."""
        shape, images = self.shape(place), self.shape(0)
        if shape is None or images is None:
            return False
        return 2 < len(shape) <= len(images) and shape[0] == images[0]


def block_ends(
    nodes: Sequence[Node], images: Hashable, logits: Hashable, shapes: Mapping[Any, Shape]
) -> Ends | None:
    """Finds where the gradients of a network are measured.

    As in the package's own networks, the size is measured at the end of the last block, and the
    entropy at the ends of all blocks before the last stage, whose blocks are as high and wide as
    the last one. If all blocks are in one stage, as in a vision transformer, the entropy is
    measured at all ends but the last.

    Args:
      nodes: every step, in the order in which they run.
      images: the value that holds the images.
      logits: the value that holds the logits.
      shapes: of every value that depends on the images, `[N, H, W, C]` or other, channels last.

    Returns:
      The values; None if there are fewer than two blocks.
    """
    graph = _on_the_way(nodes, images, logits, shapes)
    places = [
        place for place, is_residual in _modules(graph, 0, len(graph.nodes), 0) if is_residual
    ]
    places = places or _residual_sums(graph) or _stages(graph)
    ends = list(dict.fromkeys(graph.alive[place] for place in places))
    if len(ends) < 2:
        return None
    last = _space(shapes[ends[-1]])
    earlier = [end for end in ends if _space(shapes[end]) != last]
    return Ends(tuple(earlier or ends[:-1]), ends[-1])


def _on_the_way(
    nodes: Sequence[Node], images: Hashable, logits: Hashable, shapes: Mapping[Any, Shape]
) -> _Graph:
    """The part of the graph that lies between images and logits."""
    reached, forward = {images}, []
    for node in nodes:
        inputs = tuple(value for value in node.inputs if value in reached)
        if inputs:
            reached.update(node.outputs)
            forward.append(node._replace(inputs=inputs))
    needed, backward = {logits}, []
    for node in reversed(forward):
        outputs = tuple(value for value in node.outputs if value in needed)
        if outputs:
            needed.update(node.inputs)
            backward.append(node._replace(outputs=outputs))
    kept = backward[::-1]
    last_use = {value: place for place, node in enumerate(kept) for value in node.inputs}
    open_values, alive = {images}, [images if kept else None]
    for place, node in enumerate(kept):
        open_values |= set(node.outputs)
        open_values -= {value for value in node.inputs if last_use[value] == place}
        alive.append(next(iter(open_values)) if len(open_values) == 1 else None)
    return _Graph(kept, alive, shapes)


def _modules(graph: _Graph, start: int, stop: int, depth: int) -> list[tuple[int, bool]]:
    """Blocks by modules: the places of their ends, and whether each has a narrow sum."""
    found = []
    for first, last in _runs(graph, start, stop, depth):
        inner = [block for block in _modules(graph, first, last, depth + 1) if block[1]]
        keeps_shape = graph.holds_pixels(first) and graph.shape(first) == graph.shape(last)
        if keeps_shape and len(inner) < 2:
            found.append((last, any(_is_narrow_sum(graph, i) for i in range(first, last))))
        else:
            found.extend(inner)
    return found


def _runs(graph: _Graph, start: int, stop: int, depth: int) -> Iterator[tuple[int, int]]:
    """Start and end of every run of nodes that are in one module at a depth."""
    first = start
    for place in range(start + 1, stop + 1):
        before = graph.nodes[place - 1].scope[: depth + 1]
        if place == stop or graph.nodes[place].scope[: depth + 1] != before:
            if len(before) > depth:
                yield first, place
            first = place


def _residual_sums(graph: _Graph) -> list[int]:
    """Blocks by sums: the places of their ends."""
    found = []
    before = 0
    for place, node in enumerate(graph.nodes):
        end = place + 1
        shape = graph.shape(end)
        if _is_narrow_sum(graph, place) and shape == graph.shape(before) and len(node.inputs) > 1:
            while end < len(graph.nodes) and graph.nodes[end].kind == "rectifier":
                end += 1
            if graph.shape(end) == shape and graph.holds_pixels(end):
                found.append(end)
        if shape is not None:
            before = place + 1
    return found


def _stages(graph: _Graph) -> list[int]:
    """The last place of each height and width, except the images and single pixels."""
    last_of = {}
    for place in range(1, len(graph.alive)):
        shape = graph.shape(place)
        if shape is not None and graph.holds_pixels(place) and math.prod(_space(shape)) > 1:
            last_of[_space(shape)] = place
    return sorted(last_of.values())


def _is_narrow_sum(graph: _Graph, place: int) -> bool:
    return graph.nodes[place].kind == "sum" and graph.alive[place + 1] is not None


def _space(shape: Shape) -> Shape:
    return shape[1:-1]
