"""A JAX function as a flat list of steps: calls of `jit` and similar functions are opened."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend

# Calls that can be opened without changing what is computed, or its derivative.
_CALLS = frozenset({"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint"})
# Calls with a derivative of their own, which is lost if they are opened.
_RULES = frozenset({"custom_jvp_call", "custom_vjp_call"})
_ZEROS = frozenset({"broadcast_in_dim", "convert_element_type", "reshape", "copy"})

Atom = int | jax.extend.core.Literal


class Step(NamedTuple):
    """One equation of a function.

    Attributes:
      eqn: JAX's equation.
      inputs: numbers of values, or literals.
      outputs: numbers of values.
      scope: the modules in which it is, as `jax.named_scope` names them, outermost first.
    """

    eqn: Any
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]
    scope: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the primitive."""
        return str(self.eqn.primitive.name)

    @property
    def call(self) -> str | None:
        """The name of the function that is called; None if the step is no call."""
        name = self.eqn.params.get("name") if self.name in _CALLS | _RULES else None
        return None if name is None else str(name)

    @property
    def values(self) -> tuple[int, ...]:
        """The inputs that are no literals."""
        return tuple(atom for atom in self.inputs if isinstance(atom, int))


class Program(NamedTuple):
    """A function as a flat list of steps.

    Attributes:
      steps: in order.
      inputs: numbers of the values that go in.
      output: the value that comes out.
      constants: known values by number.
      avals: shape and dtype of every value.
    """

    steps: list[Step]
    inputs: tuple[int, ...]
    output: Atom
    constants: Mapping[int, Any]
    avals: Mapping[int, Any]

    def dependents(self, number: int) -> set[int]:
        """The values that depend on a given one, itself included."""
        found = {number}
        for step in self.steps:
            if found.intersection(step.values):
                found.update(step.outputs)
        return found

    def zeros(self) -> set[int]:
        """The values that are zero for all inputs."""
        found: set[int] = set()
        for step in self.steps:
            is_zero = [self.is_zero(atom, found) for atom in step.inputs]
            if (step.name in _ZEROS or step.name == "add") and is_zero and all(is_zero):
                found.update(step.outputs)
        return found

    @staticmethod
    def is_zero(atom: Atom, zeros: set[int]) -> bool:
        """Whether an atom is a literal zero, or one of the values that are known to be zero."""
        if isinstance(atom, int):
            return atom in zeros
        return jax.numpy.ndim(atom.val) == 0 and bool(atom.val == 0)


def trace(
    function: Callable[..., jax.Array],
    *arguments: Any,
    opens: Callable[[str], bool],
    opens_rules: bool,
) -> Program:
    """Traces a function of pytrees and opens its calls.

    Args:
      function: it returns one array.
      *arguments: its arguments, of which only shapes and dtypes matter.
      opens: from the name of a called function to whether its call is opened.
      opens_rules: whether to open calls with a derivative of their own, which is then lost.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    reader = _Reader(opens, _CALLS | _RULES if opens_rules else _CALLS)
    inputs = tuple(reader.number(var.aval) for var in closed.jaxpr.invars)
    (output,) = reader.read(closed.jaxpr, closed.consts, inputs, ())
    return Program(reader.steps, inputs, output, reader.constants, reader.avals)


def evaluate(
    program: Program,
    arguments: Sequence[jax.Array],
    watch: Callable[[int, jax.Array], jax.Array],
) -> jax.Array:
    """Runs a program; traceable by JAX.

    Args:
      program: as `trace` makes it.
      arguments: the leaves of the function's arguments.
      watch: called with the number of each value that a step makes and the value; what it returns
        takes the place of the value.
    """
    values = {**program.constants, **dict(zip(program.inputs, arguments, strict=True))}

    def read(atom: Atom) -> Any:
        return values[atom] if isinstance(atom, int) else atom.val

    for step in program.steps:
        # Run as a jaxpr of one equation, since the way to run an equation differs between versions.
        atoms = {
            var: atom
            for var, atom in zip(step.eqn.invars, step.inputs, strict=True)
            if not isinstance(var, jax.extend.core.Literal)
        }
        debug_info = jax.extend.core.DebugInfo("network", step.name, None, None)
        jaxpr = jax.extend.core.Jaxpr(
            (), list(atoms), step.eqn.outvars, [step.eqn], step.eqn.effects, debug_info
        )
        made = jax.core.eval_jaxpr(jaxpr, (), *map(read, atoms.values()))
        for number, value in zip(step.outputs, made, strict=True):
            values[number] = watch(number, value)
    return read(program.output)


def inner_programs(eqn: Any) -> list[Any]:
    """The jaxprs in an equation's parameters."""
    found = []
    for param in eqn.params.values():
        for value in param if isinstance(param, tuple | list) else (param,):
            if isinstance(value, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr):
                found.append(getattr(value, "jaxpr", value))
    return found


class _Reader:
    """Opens jaxprs and numbers their values."""

    def __init__(self, opens: Callable[[str], bool], calls: frozenset[str]):
        self.steps: list[Step] = []
        self.constants: dict[int, Any] = {}
        self.avals: dict[int, Any] = {}
        self._opens = opens
        self._calls = calls

    def number(self, aval: Any) -> int:
        """The number of a new value."""
        self.avals[len(self.avals)] = aval
        return len(self.avals) - 1

    def read(
        self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Atom], scope: tuple[str, ...]
    ) -> list[Atom]:
        """Reads a jaxpr that is called with some atoms, and returns those of its outputs."""
        atoms: dict[Any, Atom] = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, value in zip(jaxpr.constvars, constants, strict=True):
            number = self.number(var.aval)
            atoms[var] = number
            self.constants[number] = value

        def atom_of(var: Any) -> Atom:
            return var if isinstance(var, jax.extend.core.Literal) else atoms[var]

        for eqn in jaxpr.eqns:
            ins = tuple(map(atom_of, eqn.invars))
            names = str(eqn.source_info.name_stack)
            where = (*scope, *(names.split("/") if names else ()))
            if eqn.primitive.name in self._calls and self._opens(str(eqn.params.get("name", ""))):
                (inner,) = inner_programs(eqn)
                known = _constants_of(eqn)
                outs: Sequence[Atom] = self.read(inner, known, ins, where)
            else:
                made = tuple(self.number(var.aval) for var in eqn.outvars)
                self.steps.append(Step(eqn, ins, made, where))
                outs = made
            atoms.update(zip(eqn.outvars, outs, strict=True))
        return [atom_of(var) for var in jaxpr.outvars]


def _constants_of(eqn: Any) -> Sequence[Any]:
    closed = [p for p in eqn.params.values() if isinstance(p, jax.extend.core.ClosedJaxpr)]
    return closed[0].consts if closed else ()
