import jax
import jax.numpy as jnp
import pytest

from benchmarks.compiled_text import account

# Three rows are taken from 100, scaled, and a branch and loops run further kernels.
PROGRAM = """
HloModule made_by_hand

%taken (p0: f32[100,8], p1: s32[3]) -> f32[3,8] {
  %p0 = f32[100,8]{1,0} parameter(0)
  %p1 = s32[3]{0} parameter(1)
  %scaled = f32[100,8]{1,0} negate(%p0)
  ROOT %rows = f32[3,8]{1,0} gather(%scaled, %p1), offset_dims={1}, slice_sizes={1,8}
}

%body (s: (s32[], f32[3,8])) -> (s32[], f32[3,8]) {
  %s = (s32[], f32[3,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[3,8]{1,0} get-tuple-element(%s), index=1
  %copied = f32[3,8]{1,0} copy(%x)
  ROOT %t = (s32[], f32[3,8]{1,0}) tuple(%i, %copied)
}

%condition (s.1: (s32[], f32[3,8])) -> pred[] {
  %s.1 = (s32[], f32[3,8]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

%branch (b: f32[3,8]) -> f32[3,8] {
  %b = f32[3,8]{1,0} parameter(0)
  ROOT %sorted = f32[3,8]{1,0} sort(%b), dimensions={1}
}

ENTRY %main (a0: f32[100,8], a1: s32[3], a2: f32[2,6,6,4], a3: f32[3,3,4,5]) -> f32[3,8] {
  %a0 = f32[100,8]{1,0} parameter(0)
  %a1 = s32[3]{0} parameter(1)
  %a2 = f32[2,6,6,4]{3,2,1,0} parameter(2)
  %a3 = f32[3,3,4,5]{3,2,1,0} parameter(3)
  %zero = s32[] constant(0)
  %token = token[] after-all()
  %fusion = f32[3,8]{1,0} fusion(%a0, %a1), kind=kLoop, calls=%taken, metadata={op_name="f(%a3)"}
  %start = (s32[], f32[3,8]{1,0}) tuple(%zero, %fusion)
  %turned = (s32[], f32[3,8]{1,0}) while(%start), LOOP, FIVE_TIMES
  %unknown = (s32[], /*index=1*/f32[3,8]{1,0}) while(%turned), LOOP
  %y = f32[3,8]{1,0} get-tuple-element(%unknown), index=1
  %conv = (f32[2,6,6,5]{3,2,1,0}, u8[0]{0}) custom-call(%a2, %a3), CONVOLUTION FORWARD
  %back = (f32[2,6,6,4]{3,2,1,0}) custom-call(%a4, %a3), CONVOLUTION BACKWARD
  %a4 = f32[2,6,6,5]{3,2,1,0} get-tuple-element(%conv), index=0
  ROOT %chosen = f32[3,8]{1,0} conditional(%zero, %y, %y), branch_computations={%branch, %branch}
}
"""
for word, meaning in {
    "FORWARD": '"__cudnn$convForward"',
    "BACKWARD": '"__cudnn$convBackwardInput"',
    "CONVOLUTION ": "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, TARGET",
    "TARGET": "custom_call_target=",
    "LOOP": "condition=%condition, body=%body",
    "FIVE_TIMES": 'backend_config={"known_trip_count":{"n":"5"}}',
}.items():
    PROGRAM = PROGRAM.replace(word, meaning)


def test_what_a_program_is_made_of():
    found = account(PROGRAM)
    assert (found.num_loops, found.num_unknown, found.num_conditionals) == (2, 1, 1)
    times = {kernel.name: number for kernel, number in found.kernels}
    # One copy five times, and as if once where nobody knows how often.
    assert sum(number for kernel, number in found.kernels if kernel.name == "copied") == 5 + 1
    assert times["fusion"] == times["conv"] == times["back"] == 1
    # Both branches count.
    assert found.num_runs == 1 + 6 + 2 + 2
    assert found.library_calls == {"__cudnn$convForward": 1, "__cudnn$convBackwardInput": 1}


def test_bytes_are_those_of_the_rows_that_a_kernel_takes():
    by_name = {kernel.name: kernel for kernel, _ in account(PROGRAM).kernels}
    # Three rows of eight float32 read and written, and three indices.
    assert by_name["fusion"].bytes == 2 * 3 * 8 * 4 + 3 * 4
    assert by_name["copied"].bytes == 2 * 3 * 8 * 4
    pixels, kernel = 2 * 6 * 6 * 4, 3 * 3 * 4 * 5 * 4
    assert by_name["conv"].bytes == pixels * 4 + pixels * 5 + kernel


def test_arithmetic_is_that_of_convolutions_both_ways():
    by_name = {kernel.name: kernel for kernel, _ in account(PROGRAM).kernels}
    # For every pixel two operations for each tap, input and output.
    for name in ("conv", "back"):
        assert by_name[name].flop == 2 * 2 * 6 * 6 * 9 * 4 * 5
    assert by_name["fusion"].flop == 0


def test_an_estimate_is_the_sum_of_the_longest_times():
    found = account(PROGRAM)
    by_bytes = found.seconds(bandwidth=1, flop_per_second=1e30, launch=0)
    assert by_bytes == found.bytes
    by_flop = found.seconds(bandwidth=1e30, flop_per_second=1, launch=0)
    assert by_flop == pytest.approx(found.flop)
    assert found.seconds(bandwidth=1e30, flop_per_second=1e30, launch=2) == 2 * found.num_runs


def test_a_program_that_xla_compiled():
    def program(x, y):
        turned = jax.lax.scan(lambda x, _: (jnp.sin(x), None), x, length=7)[0]
        return jax.lax.fori_loop(0, jnp.int32(y[0, 0]), lambda _, x: jnp.cos(x), turned @ y)

    x, y = jnp.ones((4, 5), jnp.float32), jnp.ones((5, 6), jnp.float32)
    found = account(jax.jit(program).lower(x, y).compile().as_text())
    assert (found.num_loops, found.num_unknown) == (2, 1)
    assert found.flop == 2 * 4 * 5 * 6
    assert found.num_runs > 7
