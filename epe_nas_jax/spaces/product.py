"""Genotypes whose entries are chosen freely, all from the same number of choices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from epe_nas_jax.errors import InputError
from epe_nas_jax.spaces.base import Cells, check_rows


@dataclasses.dataclass(frozen=True)
class Product:
    """The space of all rows of E numbers, each from 0 to `num_choices` - 1.

    A row's code is the row read as a number in base `num_choices`, first entry first.

    Attributes:
      num_entries: E.
      num_choices: how many values an entry may have.

    Examples:
      >>> from epe_nas_jax.spaces.product import Product
      >>> rows = Product(num_entries=2, num_choices=3)
      >>> rows.size
      9
      >>> rows.neighbours(np.array([0, 2])).tolist()
      [[1, 2], [2, 2], [0, 0], [0, 1]]
    """

    num_entries: int
    num_choices: int

    @property
    def size(self) -> int:
        """The number of rows."""
        return int(self.num_choices**self.num_entries)

    def check(self, genotypes: Cells) -> np.ndarray:
        """Checks rows; returns them as int32 `[A, E]` or raises `InputError`."""
        return check_rows(genotypes, self.num_entries, self.num_choices)

    def encode(self, genotypes: Cells) -> np.ndarray:
        """The codes, int32 `[...]`, of genotypes, int `[..., E]`."""
        places = self.num_choices ** np.arange(self.num_entries - 1, -1, -1)
        return (np.asarray(genotypes) @ places).astype(np.int32)

    def decode(self, codes: Cells) -> np.ndarray:
        """The genotypes, int32 `[..., E]`, of codes, int `[...]`."""
        places = self.num_choices ** np.arange(self.num_entries - 1, -1, -1)
        return (np.asarray(codes)[..., None] // places % self.num_choices).astype(np.int32)

    def identity(self, genotypes: Cells) -> np.ndarray:
        """The identities of genotypes, int `[A, E]`: their codes, int32 `[A, W]` with W = 1."""
        return self.encode(genotypes)[:, None]

    def every(self) -> np.ndarray:
        """All rows in the order of their codes, int32 `[A, E]`."""
        return self.decode(np.arange(self.size))

    def sample(self, key: jax.Array, num_cells: int, *, replace: bool = False) -> np.ndarray:
        """Draws rows uniformly.

        Args:
          key: random key, consumed.
          num_cells: how many rows, A.
          replace: whether a row may be drawn twice.

        Returns:
          Genotypes, int32 `[A, E]`.

        Raises:
          InputError: A is below 1, or above the number of rows without replacement.
        """
        if num_cells < 1:
            raise InputError(f"number of samples: found {num_cells}, expected at least 1")
        if not replace and num_cells > self.size:
            raise InputError(
                f"number of samples: found {num_cells}, expected at most {self.size} "
                "different cells (or sample with replacement)"
            )
        return self.decode(
            np.asarray(jax.random.choice(key, self.size, (num_cells,), replace=replace))
        )

    def mutate(self, key: jax.Array, genotypes: Cells) -> jax.Array:
        """Changes one entry of every row: to one of its neighbours, drawn uniformly.

        Args:
          key: random key, consumed.
          genotypes: int `[A, E]`.

        Returns:
          The changed genotypes, int32 `[A, E]`.
        """
        return _mutate(key, jnp.asarray(genotypes, jnp.int32), self.num_choices)

    def neighbours(self, genotype: np.ndarray) -> np.ndarray:
        """All rows that differ from a genotype, int `[E]`, in one entry: int32 `[A, E]`."""
        row = np.asarray(genotype, np.int32)
        rows = np.repeat(row[None], self.num_entries * (self.num_choices - 1), axis=0)
        places, shifts = np.divmod(np.arange(len(rows)), self.num_choices - 1)
        rows[np.arange(len(rows)), places] += shifts.astype(np.int32) + 1
        return rows % self.num_choices


@functools.partial(jax.jit, static_argnames="num_choices")
def _mutate(key: jax.Array, genotypes: jax.Array, num_choices: int) -> jax.Array:
    place_key, shift_key = jax.random.split(key)
    num_cells, num_entries = genotypes.shape
    places = jax.random.randint(place_key, (num_cells, 1), 0, num_entries)
    shifts = jax.random.randint(shift_key, (num_cells, 1), 1, num_choices)
    shifts = jnp.where(jnp.arange(num_entries)[None] == places, shifts, 0)
    return ((genotypes + shifts) % num_choices).astype(jnp.int32)
