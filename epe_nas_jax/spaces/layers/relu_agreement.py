"""In how many ReLU units the images of a mini-batch agree, from which `nwot` is made."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

COLLECTION = "relus"

# Of all images: few enough for the fastest cache of a CPU.
_WORDS_AT_ONCE = 16


def relu_agreement(x: jax.Array) -> jax.Array:
    """In how many of x's units two images' ReLUs are both open or both closed.

    Args:
      x: what the ReLUs read, `[N, H, W, C]`.

    Returns:
      Counts, int32 `[N, N]`.
    """
    units = (x > 0).reshape(len(x), -1)
    return lax.platform_dependent(units, cpu=_agreement_by_bits, default=_agreement_by_product)


def _agreement_by_product(units: jax.Array) -> jax.Array:
    # Exact: +1 and -1 have no rounding in bfloat16, nor have their sums in float32.
    signs = jnp.where(units, 1, -1).astype(jnp.bfloat16)
    products = jnp.matmul(signs, signs.T, preferred_element_type=jnp.float32)
    return (units.shape[1] + products.astype(jnp.int32)) // 2


def _agreement_by_bits(units: jax.Array) -> jax.Array:
    """Agreement by counting bits, 32 units to a word: several times as fast on CPUs."""
    num_images, num_units = units.shape
    units = jnp.pad(units, ((0, 0), (0, -num_units % (32 * _WORDS_AT_ONCE))))
    bits = units.reshape(num_images, 32, -1).astype(jnp.uint32)
    bits = bits << jnp.arange(32, dtype=jnp.uint32)[None, :, None]
    words = jnp.sum(bits, axis=1, dtype=jnp.uint32).T
    twice = jnp.concatenate([words, words], axis=1).reshape(-1, _WORDS_AT_ONCE, 2 * num_images)

    def count(by_distance: jax.Array, twice: jax.Array) -> tuple[jax.Array, None]:
        def differing(apart: jax.Array) -> jax.Array:
            others = lax.dynamic_slice_in_dim(twice, apart, num_images, axis=1)
            unlike = lax.population_count(twice[:, :num_images] ^ others)
            return jnp.sum(unlike, axis=0, dtype=jnp.int32)

        return by_distance + lax.map(differing, jnp.arange(len(by_distance))), None

    # Every image with those up to half a round of all images ahead of it: so each pair is met.
    none = jnp.zeros((num_images // 2 + 1, num_images), jnp.int32)
    by_distance, _ = lax.scan(count, none, twice)
    image = jnp.arange(num_images)
    ahead = (image[None, :] - image[:, None]) % num_images
    earlier = jnp.where(ahead <= num_images // 2, image[:, None], image[None, :])
    return num_units - by_distance[jnp.minimum(ahead, num_images - ahead), earlier]


def counts_relus(module: nn.Module) -> bool:
    """Whether a module's collection `relus` is asked for."""
    return not module.is_initializing() and module.is_mutable_collection(COLLECTION)


def sow_relu_agreement(
    module: nn.Module,
    name: str,
    x: jax.Array,
    num_relus: int | jax.Array = 1,
    num_absent: int | jax.Array = 0,
) -> None:
    """Puts the agreement of ReLUs that all read x into a module's collection `relus`.

    Args:
      module: the module that has the ReLUs.
      name: of the entry, different for each of a module.
      x: what the ReLUs read, `[N, H, W, C]`.
      num_relus: how many of them read it; each counts.
      num_absent: how many of an image's units are not there, but zeros for every image.
    """
    if not counts_relus(module):
        return
    none = jnp.zeros((len(x), len(x)), jnp.int32)
    count = jnp.asarray(num_relus, jnp.int32)
    agreement = lax.cond(count > 0, relu_agreement, lambda _: none, lax.stop_gradient(x))
    module.sow(COLLECTION, name, count * (agreement - jnp.asarray(num_absent, jnp.int32)))
