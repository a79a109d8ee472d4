"""Counts what a compiled GPU program consists of, from the text that XLA prints of it.

The text is a list of computations, one of which is the entry; an instruction of the entry, or of a
loop's body, that computes something is a kernel. Kernels, loops, conditionals, library calls, bytes
and arithmetic are counted; a loop's body counts once per iteration, if the compiler knows their
number.
"""

import collections
import dataclasses
import math
import re
from typing import NamedTuple

_ARRAY = re.compile(r"\b(pred|bf16|f8\w+|[sufc]\d+)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?([\w.-]+) = (.*)$")
_OPCODE = re.compile(r"\s([a-z][\w-]*)\(")
_NAME = re.compile(r"%([\w.-]+)")
# Instructions that run nothing of their own on the device.
_FREE = frozenset(
    {
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
        *("while", "conditional", "call", "partition-id", "replica-id", "optimization-barrier"),
    }
)
# Instructions that read only a part of their first operand.
_PARTIAL = frozenset({"gather", "slice", "dynamic-slice"})


class Instruction(NamedTuple):
    """One line of a computation.

    Attributes:
      name: of the instruction.
      opcode: what it is, for instance `fusion`.
      bytes: size of its result.
      shapes: shapes of the arrays of its result.
      operands: names of the instructions whose results it reads.
      rest: the line after its operands: attributes.
    """

    name: str
    opcode: str
    bytes: int
    shapes: tuple[tuple[int, ...], ...]
    operands: tuple[str, ...]
    rest: str


class Kernel(NamedTuple):
    """What one run of a kernel does.

    Attributes:
      name: name of its instruction.
      bytes: how many bytes it reads and writes.
      flop: multiplications and additions of convolutions and matrix products.
      target: name of the library call, empty for a kernel of the compiler.
    """

    name: str
    bytes: int
    flop: int
    target: str


@dataclasses.dataclass(frozen=True)
class Account:
    """What a program consists of.

    Attributes:
      kernels: all kernels, with how often each runs.
      num_loops: number of loops.
      num_unknown: number of loops whose number of iterations the compiler does not know; their
        bodies count once.
      num_conditionals: number of conditionals; each of their branches counts once.
    """

    kernels: tuple[tuple[Kernel, int], ...]
    num_loops: int
    num_unknown: int
    num_conditionals: int

    @property
    def num_runs(self) -> int:
        """How many times kernels run."""
        return sum(times for _, times in self.kernels)

    @property
    def bytes(self) -> int:
        """How many bytes all kernels read and write."""
        return sum(kernel.bytes * times for kernel, times in self.kernels)

    @property
    def flop(self) -> int:
        """Multiplications and additions of convolutions and matrix products."""
        return sum(kernel.flop * times for kernel, times in self.kernels)

    @property
    def library_calls(self) -> dict[str, int]:
        """How often each library call runs."""
        calls: collections.Counter[str] = collections.Counter()
        for kernel, times in self.kernels:
            if kernel.target:
                calls[kernel.target] += times
        return dict(calls.most_common())

    def seconds(self, *, bandwidth: float, flop_per_second: float, launch: float) -> float:
        """A roofline estimate: the sum over kernels of the longest of three times.

        Args:
          bandwidth: of the memory, bytes per second.
          flop_per_second: of convolutions and matrix products.
          launch: the shortest time of a kernel, seconds.
        """
        return sum(
            times * max(kernel.bytes / bandwidth, kernel.flop / flop_per_second, launch)
            for kernel, times in self.kernels
        )


def account(text: str) -> Account:
    """The account of a compiled program, from `jax.stages.Compiled.as_text()`."""
    computations, entry = _parse(text)
    kernels: list[tuple[Kernel, int]] = []
    counts = collections.Counter[str]()

    def visit(name: str, times: int) -> None:
        by_name = {instruction.name: instruction for instruction in computations[name]}
        for instruction in computations[name]:
            turns = times
            if instruction.opcode == "while":
                counts["loops"] += 1
                known = re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.rest)
                counts["unknown"] += known is None
                turns = times * (int(known[1]) if known else 1)
            counts["conditionals"] += instruction.opcode == "conditional"
            if instruction.opcode in ("while", "conditional", "call"):
                for called in _called(instruction.rest):
                    visit(called, turns)
            elif instruction.opcode not in _FREE:
                kernels.append((_kernel(instruction, by_name, computations), times))

    visit(entry, 1)
    return Account(tuple(kernels), counts["loops"], counts["unknown"], counts["conditionals"])


def _called(rest: str) -> list[str]:
    """Computations that a loop, conditional or call runs; not the condition of a loop."""
    found = re.findall(r"\b(?:body|to_apply|true_computation|false_computation)=%([\w.-]+)", rest)
    branches = re.search(r"branch_computations=\{([^}]*)\}", rest)
    return found + (_NAME.findall(branches[1]) if branches else [])


def _kernel(
    instruction: Instruction,
    by_name: dict[str, Instruction],
    computations: dict[str, list[Instruction]],
) -> Kernel:
    fused = re.search(r"calls=%([\w.-]+)", instruction.rest)
    target = re.search(r'custom_call_target="([^"]+)"', instruction.rest)
    operands = [by_name[name] for name in instruction.operands]
    inside = computations[fused[1]] if fused else []
    if inside:
        num_bytes = instruction.bytes + _bytes_read(inside)
        flop = sum(_flop(i, {j.name: j for j in inside}) for i in inside)
    else:
        num_bytes = instruction.bytes + sum(operand.bytes for operand in operands)
        flop = _flop(instruction, by_name)
    return Kernel(instruction.name, num_bytes, flop, target[1] if target else "")


def _bytes_read(fused: list[Instruction]) -> int:
    """Bytes that a fusion reads of its parameters; of one from which it takes rows, only these."""
    needed = dict.fromkeys((i.name for i in fused), 0.0)
    by_name = {i.name: i for i in fused}
    needed[fused[-1].name] = 1.0
    for i in reversed(fused):
        for number, name in enumerate(i.operands):
            operand = by_name.get(name)
            if operand is None:
                continue
            share = needed[i.name]
            if i.opcode in _PARTIAL and number == 0:
                share *= i.bytes / max(1, operand.bytes)
            elif i.opcode == "dynamic-update-slice" and number == 0:
                share = 0.0
            needed[name] = min(1.0, needed[name] + share)
    return round(sum(needed[i.name] * i.bytes for i in fused if i.opcode == "parameter"))


def _flop(instruction: Instruction, by_name: dict[str, Instruction]) -> int:
    """Multiplications and additions of a convolution or a matrix product; else 0."""
    is_convolution = instruction.opcode == "convolution" or "__cudnn$conv" in instruction.rest
    if is_convolution:
        size = re.search(r"window=\{[^}]*?size=([\dx]+)", instruction.rest)
        taps = math.prod(map(int, size[1].split("x"))) if size else 1
        labels = re.search(r"dim_labels=\w+_(\w+)->\w+", instruction.rest)
        kernel = by_name[instruction.operands[1]].shapes[0]
        channels_in = kernel[labels[1].index("i")] if labels else 1
        if "BackwardInput" in instruction.rest:
            # Taps x inputs x outputs for each pixel of the first operand, the gradient.
            gradient = by_name[instruction.operands[0]].shapes[0]
            return 2 * math.prod(gradient) * taps * channels_in
        return 2 * math.prod(instruction.shapes[0]) * taps * channels_in
    if instruction.opcode == "dot" or "__cublas" in instruction.rest:
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest) or re.search(
            r'lhs_contracting_dimensions":\["([\d",]*)"\]', instruction.rest
        )
        left = by_name[instruction.operands[0]].shapes[0]
        dims = [int(d) for d in re.findall(r"\d+", contracted[1])] if contracted else []
        return 2 * math.prod(instruction.shapes[0]) * math.prod(left[d] for d in dims)
    return 0


def _parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The computations of a program's text by name, and the name of the entry."""
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            lines = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        else:
            found = _INSTRUCTION.match(line)
            if found:
                lines.append(_instruction(found[1], found[2]))
    return computations, entry


def _instruction(name: str, line: str) -> Instruction:
    opcode = _OPCODE.search(" " + line)
    assert opcode, line
    start = opcode.start() - 1
    # `/*index=5*/` stands in long tuples.
    arrays = _ARRAY.findall(line[: max(start, 0)])
    shapes = tuple(tuple(int(d) for d in dims.split(",") if d) for _, dims in arrays)
    bits = (8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0]) for dtype, _ in arrays)
    size = sum(b * math.prod(shape) // 8 for b, shape in zip(bits, shapes, strict=True))
    behind = line[opcode.end() - 2 :]
    end = _closing(behind)
    return Instruction(
        name, opcode[1], size, shapes, tuple(_NAME.findall(behind[:end])), behind[end:]
    )


def _closing(text: str) -> int:
    """The position at which the bracket closes with which a text begins."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position
    return len(text)
