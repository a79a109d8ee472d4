"""The DARTS network for CIFAR as Flax modules (Liu et al. 2019, section 3.1 and its released code).

Stem (convolution 3x3 and batch norm, 3C channels), then cells, each of which reads the outputs of
the two before it; the cells at 1/3 and 2/3 are reduction cells, which halve the size and double the
channels; batch norm, ReLU, global average pool and a linear layer. Batch norm always uses the
statistics of the mini-batch.

It is DARTS's evaluation network without auxiliary head and drop path, and with the last batch norm
and ReLU of xautodl's `NASNetonCIFAR`. DARTS has neither (`last_activation=False`): there most cells
end in a batch norm, whose sum over the mini-batch no image changes, so that the summed logits of
such a network have a zero input Jacobian, and it has no EPE-NAS score.

Genotypes may be static or traced, and weights are drawn and ReLUs and gradients measured, as in
`spaces.nasbench201.network`.
"""

import itertools
import operator
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import Cost, Genotype, SearchSpace
from epe_nas_jax.spaces.darts import cost, operations, traced
from epe_nas_jax.spaces.darts.edges import (
    CELL_EDGES,
    EDGES_INTO,
    NODES,
    NUM_CELL_EDGES,
    OPERATIONS,
    OPERATIONS_OF,
)
from epe_nas_jax.spaces.darts.space import DARTS
from epe_nas_jax.spaces.layers import convolution
from epe_nas_jax.spaces.layers.batch_norm import normalise
from epe_nas_jax.spaces.layers.checks import check_images
from epe_nas_jax.spaces.layers.classifier import classify
from epe_nas_jax.spaces.layers.conv_bn import ConvBN, ConvBNParams, relu_conv_bn
from epe_nas_jax.spaces.layers.gradient_probes import ENTROPY, SIZE, probe
from epe_nas_jax.spaces.layers.init import draw_layers, scale_to_fan_in
from epe_nas_jax.spaces.layers.relu_agreement import (
    COLLECTION,
    counts_relus,
    sow_relu_agreement,
)

# Index of an operation's first drawn tensor on an edge, and kernel size; skip_connect has tensor 0.
_SEPARABLE = {
    "sep_conv_3x3": (1, 3),
    "sep_conv_5x5": (5, 5),
    "dil_conv_3x3": (9, 3),
    "dil_conv_5x5": (11, 5),
}
_TENSORS_PER_EDGE = 13
# A convolution before the edges has up to 4C input channels, for which it takes 4 drawn tensors.
_TENSORS_PER_PREPROCESSING = 4
_FIRST_EDGE_TENSOR = 2 * _TENSORS_PER_PREPROCESSING
_TENSORS_PER_LAYER = _FIRST_EDGE_TENSOR + _TENSORS_PER_EDGE * NUM_CELL_EDGES
# Tensors of second operations, of which a node has at most one; their keys are those of layer
# numbers that no network has.
_SECOND_TENSORS_PER_LAYER = _TENSORS_PER_EDGE * len(NODES)
_SECOND_LAYERS = 10**6


class Drawn(NamedTuple):
    """Random numbers for the weights of a cell, or of several cells along a leading axis.

    Attributes:
      tensors: for the convolutions before the edges, and for the operations of each edge.
      second: for the second operation on an edge into each node; None if there are no pairs.
    """

    tensors: jax.Array
    second: jax.Array | None


class DartsNetwork(nn.Module):
    """The network of a pair of DARTS cells, a Flax module called with images and a genotype.

    Attributes:
      num_classes: K.
      channels: C, channels of the first cells' nodes; even.
      num_cells: number of cells, at least 3.
      last_activation: batch norm and ReLU before the pooling; without them a score is noise.
      param_dtype: dtype of the weights.
      plain_norm: whether the batch norms of operations have no scale and offset, and one follows
        each pool, as in the network in which DARTS searches. Fixed by the space.
      has_pairs: whether an edge may have two operations (see `edges`). Fixed by the space.

    Examples:
      >>> from epe_nas_jax.spaces.darts.published import DARTS_V2
      >>> genotype = epe_nas_jax.parse_genotype(DARTS_V2)
      >>> network = epe_nas_jax.DartsNetwork(num_classes=10, last_activation=False)
      >>> network.cost(genotype[None], side=32).params  # the 3.3 million of Liu et al. 2019
      array([3349342])
    """

    plain_norm: ClassVar[bool] = False
    has_pairs: ClassVar[bool] = False

    num_classes: int
    channels: int = 36
    num_cells: int = 20
    last_activation: bool = True
    param_dtype: jnp.dtype = jnp.float32

    @property
    def space(self) -> SearchSpace:
        """The search space of the cells."""
        return DARTS

    @property
    def group_work(self) -> None:
        """None: no operation runs by groups of fixed size."""
        return None

    def activation_count(self, batch_shape: tuple[int, ...]) -> float:
        """How many numbers are kept for the backward pass of a score, for images `[N, H, H, 3]`."""
        # A cell's inputs, preprocessed inputs, nodes and output, in three stages.
        per_pixel = 24 * self.channels * self.num_cells / 3 * (1 + 1 / 2 + 1 / 4)
        return batch_shape[0] * batch_shape[1] * batch_shape[2] * per_pixel

    def cost(
        self, genotypes: np.ndarray, *, side: int, image_channels: int = 3, live: bool = False
    ) -> Cost:
        """Parameters and FLOPs of the networks of cells `[A, E]`, for images of side H."""
        sizes = cost.Sizes(
            self.channels,
            self.num_cells,
            self.num_classes,
            self.last_activation,
            self.plain_norm,
        )
        cells = self.space.check(genotypes)
        return cost.count(cells, sizes, side=side, image_channels=image_channels, live=live)

    @nn.compact
    def __call__(self, images: jax.Array, genotype: Genotype) -> jax.Array:
        """Logits `[N, K]` of images `[N, H, H, 3]`; genotype is int `[E]`, static or traced.

        Raises:
          InputError: images are not square, floating and of a side divisible by 4; channels are
            odd, or there are fewer than 3 cells.
        """
        check_images(images)
        if self.channels % 2 or self.channels < 2:
            raise InputError(f"channels: found {self.channels}, expected an even number")
        if self.num_cells < 3:
            raise InputError(f"number of cells: found {self.num_cells}, expected at least 3")
        key = self.make_rng("params") if self.is_initializing() else None
        dtype = self.param_dtype

        def draw(layer: int, num_layers: int, size: int) -> jax.Array:
            return draw_layers(key, layer, num_layers, _TENSORS_PER_LAYER, size, dtype)

        shape = (3, 3, images.shape[-1], cost.STEM_MULTIPLIER * self.channels)
        kernel = scale_to_fan_in(draw(0, 1, 9 * shape[2] * shape[3])[0, 0], shape)
        kernel, scale, bias = ConvBNParams(shape, dtype, name="stem")(kernel)
        before = last = normalise(convolution.convolve(images, kernel), scale, bias)[0]
        # The first cell reads the stem as both of its inputs.
        sow_relu_agreement(self, "relus_stem", last, 3)

        starts = (0, self.num_cells // 3, 2 * self.num_cells // 3, self.num_cells)
        for stage, (start, stop) in enumerate(itertools.pairwise(starts)):
            channels = self.channels * 2**stage
            drawn = self._draw_cells(key, start, stop - start, channels * max(channels, 25))
            for i in range(start, stop):
                is_reduction = stage > 0 and i == start
                cell = DartsCell(channels, is_reduction, self.plain_norm, dtype, name=f"cell_{i}")
                own = jax.tree.map(operator.itemgetter(i - start), drawn)
                before, last = last, cell(before, last, genotype, own)
                sow_relu_agreement(self, f"relus_{i}", last, min(2, self.num_cells - 1 - i))
                if stage < 2:
                    last = probe(self, ENTROPY, last)
        last = probe(self, SIZE, last)

        if self.last_activation:
            size = last.shape[-1:]
            scale = self.param("last_scale", nn.initializers.ones, size, dtype)
            bias = self.param("last_bias", nn.initializers.zeros, size, dtype)
            last = normalise(last, scale, bias)[0]
            sow_relu_agreement(self, "relus_last", last)
            last = nn.relu(last)
        features = jnp.mean(last, axis=(1, 2))
        row = draw(1 + self.num_cells, 1, features.shape[-1] * self.num_classes)[0]
        return classify(self, features, self.num_classes, row)

    def _draw_cells(self, key: jax.Array | None, first: int, num_cells: int, size: int) -> Drawn:
        """Draws the random numbers of some cells, one row per cell."""
        dtype = self.param_dtype
        tensors = draw_layers(key, 1 + first, num_cells, _TENSORS_PER_LAYER, size, dtype)
        if not self.has_pairs:
            return Drawn(tensors, None)
        layer = _SECOND_LAYERS + first
        number = _SECOND_TENSORS_PER_LAYER
        return Drawn(tensors, draw_layers(key, layer, num_cells, number, size, dtype))


class DartsCell(nn.Module):
    """A normal or reduction cell, from the outputs of the last two cells to `[N, H, H, 4C]`.

    Attributes:
      channels: C, channels of a node.
      is_reduction: whether it halves the size.
      plain_norm: as in `DartsNetwork`.
      param_dtype: dtype of the weights.
    """

    channels: int
    is_reduction: bool
    plain_norm: bool
    param_dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, before: jax.Array, last: jax.Array, genotype: Genotype, drawn: Drawn
    ) -> jax.Array:
        inputs = [
            self._preprocess(0, before, last, drawn.tensors),
            self._preprocess(1, last, last, drawn.tensors),
        ]
        first = NUM_CELL_EDGES if self.is_reduction else 0
        values = genotype[first : first + NUM_CELL_EDGES]
        if isinstance(values[0], jax.Array):
            nodes = self._traced_nodes(jnp.asarray(values), inputs, drawn)
        else:
            nodes = self._static_nodes(np.asarray(values), inputs, drawn)
        for source, x in enumerate([*inputs, *nodes[:-1]]):
            num_relus = operations.num_relus_of_input(self._form(source).stride)
            readers = [edge for edge, ends in enumerate(CELL_EDGES) if ends[0] == source]
            counts = jnp.asarray(num_relus)[jnp.asarray(values)[np.array(readers)]]
            sow_relu_agreement(self, f"relus_{source}", x, counts.sum())
        return jnp.concatenate(nodes, axis=-1)

    def _static_nodes(
        self, values: np.ndarray, inputs: list[jax.Array], drawn: Drawn
    ) -> list[jax.Array]:
        """Computes nodes 2 to 5 for static values of edges."""
        nodes = list(inputs)
        for node in NODES:
            incoming = []
            for edge in EDGES_INTO[node]:
                source, _ = CELL_EDGES[edge]
                form = self._form(source)
                for number, op in enumerate(OPERATIONS_OF[values[edge]]):
                    if op or not number:
                        names = (OPERATIONS[op],)
                        weights = self._weights(number, edge, names, drawn)
                        y, inner = operations.apply_operation(op, nodes[source], weights, form)
                        incoming.append(y)
                        if inner is not None:
                            sow_relu_agreement(self, f"second_relus_{edge}_{number}", inner)
            nodes.append(sum(incoming[1:], start=incoming[0]))
        return nodes[len(inputs) :]

    def _traced_nodes(
        self, values: jax.Array, inputs: list[jax.Array], drawn: Drawn
    ) -> list[jax.Array]:
        """Computes nodes 2 to 5 for traced values of edges."""
        weights = [self._weights(0, edge, OPERATIONS, drawn) for edge in range(NUM_CELL_EDGES)]
        if drawn.second is not None:
            # The first edge into a node may have every operation that other edges into it may have.
            weights += [self._weights(1, EDGES_INTO[node][0], OPERATIONS, drawn) for node in NODES]
        counts = counts_relus(self)
        nodes, agreement = traced.nodes_of_cell(
            values, inputs, weights, self._form(0), counts_relus=counts
        )
        if counts:
            self.sow(COLLECTION, "second_relus", agreement)
        return nodes

    def _form(self, source: int) -> operations.Form:
        """The form of operations that read a node."""
        stride = 2 if self.is_reduction and source < NODES[0] else 1
        return operations.Form(stride, pool_norm=self.plain_norm)

    def _preprocess(
        self, number: int, x: jax.Array, last: jax.Array, drawn: jax.Array
    ) -> jax.Array:
        """Converts an input to the cell's channels, and to the size of the last output."""
        start = number * _TENSORS_PER_PREPROCESSING
        joined = drawn[start : start + _TENSORS_PER_PREPROCESSING].reshape(-1)
        weights = self._pointwise(f"preprocess_{number}", x.shape[-1], joined)
        if x.shape[1] != last.shape[1]:
            return operations.factorized_reduce(x, weights)
        return relu_conv_bn(x, weights)[0]

    def _weights(
        self, number: int, edge: int, names: Sequence[str], drawn: Drawn
    ) -> operations.DartsEdgeWeights:
        """The weights of operations, each as the first (0) or second (1) operation of an edge.

        A node has at most one second operation: so all edges into it share the weights for that.
        """
        source, node = CELL_EDGES[edge]
        if number:
            assert drawn.second is not None
            own, place = drawn.second[_TENSORS_PER_EDGE * (node - NODES[0]) :], f"second_{node}"
        else:
            start = _FIRST_EDGE_TENSOR + _TENSORS_PER_EDGE * edge
            own, place = drawn.tensors[start:], f"edge_{edge}"
        weights: dict[str, Any] = {}
        for name in names:
            if name == "skip_connect" and self._form(source).stride == 2:
                weights[name] = self._pointwise(f"{place}_{name}", self.channels, own[0], edge=True)
            elif name in _SEPARABLE:
                first, size = _SEPARABLE[name]
                if name.startswith("sep"):
                    weights[name] = (
                        self._separable(f"{place}_{name}_0", size, own[first:]),
                        self._separable(f"{place}_{name}_1", size, own[first + 2 :]),
                    )
                else:
                    weights[name] = self._separable(f"{place}_{name}", size, own[first:])
        return operations.DartsEdgeWeights(**weights)

    def _separable(self, name: str, size: int, drawn: jax.Array) -> operations.SeparableConvBN:
        depthwise = scale_to_fan_in(drawn[0], (size, size, 1, self.channels))
        depthwise = self.param(f"{name}_depthwise", lambda _: depthwise)
        pointwise = self._pointwise(name, self.channels, drawn[1], edge=True)
        return operations.SeparableConvBN(depthwise, pointwise)

    def _pointwise(
        self, name: str, channels_in: int, drawn: jax.Array, *, edge: bool = False
    ) -> ConvBN:
        """The weights of a pointwise convolution with batch norm, on an edge or before edges."""
        shape = (1, 1, channels_in, self.channels)
        affine = not (edge and self.plain_norm)
        module = ConvBNParams(shape, self.param_dtype, affine, name=name)
        return module(scale_to_fan_in(drawn, shape))
