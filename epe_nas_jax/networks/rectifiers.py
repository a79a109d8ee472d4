"""Finds the inputs of the rectifiers of a JAX function, whose signs are compared between images.

Rectifiers are relu and similar functions. Those of `jax.nn` are known by name. Others are known by
their form: the larger of a value and zero; a choice between a value and something else by the
value's sign; a value times a gate that is computed from that value alone, as in gelu, silu and hard
swish.
"""

from typing import NamedTuple

from epe_nas_jax.networks.jaxpr import Program, Step, inner_programs

RECTIFIERS = frozenset(
    {"relu", "relu6", "leaky_relu", "gelu", "silu", "swish", "hard_silu", "hard_swish"}
    | {"elu", "celu", "selu"}
)
# Functions of `jax.nn` that contain the form of a rectifier but are none.
_NONE = frozenset({"hard_sigmoid", "sigmoid", "softplus", "mish", "hard_tanh", "logaddexp"})
_GATES = RECTIFIERS | {
    *("logistic", "tanh", "erf", "erfc", "hard_sigmoid", "sigmoid", "max", "clamp"),
}
# Steps that compute an element of a gate from the same element of a value.
_ELEMENTWISE = _GATES | {
    *("add", "sub", "mul", "div", "neg", "integer_pow", "square", "min", "exp", "pow"),
    *("convert_element_type", "copy"),
}
_SAME = frozenset({"mul", "div", "neg", "convert_element_type", "copy"})
_SIGNS = frozenset({"gt", "ge", "lt", "le"})
_ROOTS = frozenset({"sqrt", "rsqrt"})
_TO_ROOTS = frozenset({"add", "max", "reshape", "broadcast_in_dim", "convert_element_type"})
_LOOPS = frozenset({"scan", "while", "cond"})


class Rectifiers(NamedTuple):
    """The rectifiers of a function.

    Attributes:
      inputs: the value that each of them reads; a value that several read occurs several times.
      problem: why not all can be counted; empty if they can.
    """

    inputs: tuple[int, ...]
    problem: str


def opens(name: str) -> bool:
    """Whether to open a call of the function of this name in search of rectifiers."""
    return name not in RECTIFIERS | _NONE


def find_rectifiers(program: Program, images: int) -> Rectifiers:
    """Finds the rectifiers of a function.

    Args:
      program: as `jaxpr.trace` makes it with `opens` of this module and `opens_rules`.
      images: the value that holds the images `[N, ...]`.
    """
    dependent = program.dependents(images)
    num_images = program.avals[images].shape[0]
    # Also values with an entry per image that depend on no image, such as a node of zeros.
    alike = {
        number
        for number, aval in program.avals.items()
        if len(aval.shape) == 4 and aval.shape[0] == num_images
    }
    search = _Search(program, dependent | alike)
    found = [(step, value) for step in program.steps for value in search.input_of(step)]
    gates = search.gates
    inputs = [value for step, value in found if not gates.intersection(step.outputs)]
    for value in inputs:
        shape = program.avals[value].shape
        if not shape or shape[0] != num_images:
            return Rectifiers((), f"a rectifier reads {shape}, whose first axis is not the images")
    for step in program.steps:
        if step.name in _LOOPS and dependent.intersection(step.values) and _hides_one(step.eqn):
            return Rectifiers((), f"there are rectifiers in a {step.name}")
    return Rectifiers(tuple(inputs), "" if inputs else "found no rectifier")


class _Search:
    """Looks at the steps of a program one by one."""

    def __init__(self, program: Program, of_images: set[int]):
        self.gates: set[int] = set()
        self._of_images = of_images
        self._program = program
        self._zeros = program.zeros()
        self._made_by = {number: step for step in program.steps for number in step.outputs}
        self._readers: dict[int, list[Step]] = {}
        for step in program.steps:
            for value in step.values:
                self._readers.setdefault(value, []).append(step)

    def input_of(self, step: Step) -> list[int]:
        """The value that a step rectifies, in a list; empty if the step is no rectifier."""
        if step.call is not None:
            return [] if step.call in _NONE else list(self._own(step)[:1])
        if step.name == "max" and any(self._is_zero(atom) for atom in step.inputs):
            return [] if self._leads_to_root(step.outputs[0]) else list(self._own(step))
        if step.name == "clamp" and self._is_zero(step.inputs[0]):
            return list(self._own(step))
        if step.name == "select_n":
            return self._chosen(step)
        return self._gated(step) if step.name == "mul" else []

    def _own(self, step: Step) -> tuple[int, ...]:
        """The inputs that depend on images, not on weights alone."""
        return tuple(value for value in step.values if value in self._of_images)

    def _is_zero(self, atom: object) -> bool:
        return self._program.is_zero(atom, self._zeros)  # type: ignore[arg-type]

    def _chosen(self, step: Step) -> list[int]:
        """The value by whose sign a step chooses between it and another one."""
        which, *cases = step.inputs
        made = self._made_by.get(which) if isinstance(which, int) else None
        if made is None or made.name not in _SIGNS or not self._is_zero(made.inputs[1]):
            return []
        return [case for case in cases if case == made.inputs[0] and case in self._of_images]

    def _gated(self, step: Step) -> list[int]:
        """The value that a step multiplies by a gate that is computed from it."""
        if len(self._own(step)) < 2:
            return []
        for factor, gate in (self._own(step), self._own(step)[::-1]):
            gates = self._ways_back(gate, _ELEMENTWISE)
            common = set(gates) & set(self._ways_back(factor, _SAME))
            if common:
                value = max(common)
                if _GATES.intersection(map(_name, gates[value])):
                    self.gates.update(number for made in gates[value] for number in made.outputs)
                    return [value]
        return []

    def _ways_back(self, number: int, names: frozenset[str]) -> dict[int, list[Step]]:
        """The values from each of which alone a value is computed, and the steps on the way.

        Args:
          number: the value.
          names: the names of steps that are allowed.
        """
        ways: dict[int, list[Step]] = {}
        chain: list[Step] = []
        waiting = {number}
        while waiting:
            latest = max(waiting)
            if len(waiting) == 1:
                ways[latest] = list(chain)
            made = self._made_by.get(latest)
            if made is None or _name(made) not in names:
                break
            chain.append(made)
            waiting = (waiting - {latest}) | set(self._own(made))
        return ways

    def _leads_to_root(self, number: int) -> bool:
        """Whether a value is a variance that is kept from being negative."""
        for reader in self._readers.get(number, []):
            if reader.name in _ROOTS:
                return True
            # A sum with a second value of the images is not that of a variance and its epsilon.
            is_on_the_way = reader.name in _TO_ROOTS and len(self._own(reader)) == 1
            if is_on_the_way and self._leads_to_root(reader.outputs[0]):
                return True
        return False


def _name(step: Step) -> str:
    """The name of the function that a step calls, or of its primitive."""
    return step.call or step.name


def _hides_one(eqn: object) -> bool:
    """Whether a jaxpr inside an equation has a step that looks like a rectifier."""
    for jaxpr in inner_programs(eqn):
        for inner in jaxpr.eqns:
            name = str(inner.params.get("name", inner.primitive.name))
            if name in RECTIFIERS or _hides_one(inner):
                return True
    return False
