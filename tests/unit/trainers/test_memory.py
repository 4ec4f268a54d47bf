"""What ZeRO's stages, offload and accumulation move where."""

from dataclasses import replace

from byzerllm_trainers.memory import Layout, Parts, on_host, phases
from byzerllm_trainers.memory_trace import Moment

N, F = 1000, 3000
HALF = Layout(
    trained=N,
    frozen=F,
    packed=0,
    unpacked=0,
    width=2,
    loaded=4 * (N + F),
    stage=0,
    world=4,
    accumulates=False,
    bucket=10**9,
    prefetch=10**9,
    live=10**9,
    gpu=False,
    offload_optimizer=False,
    offload_weights=False,
)
FULL = [Moment(activations=500, logits=100, gradients=0), Moment(activations=50, logits=0, gradients=N)]


def of(layout: Layout) -> dict[str, Parts]:
    return phases(layout, FULL, state=8 * layout.share, temporary=0)


def test_without_zero_each_rank_has_everything() -> None:
    held = of(HALF)["update"]
    assert (held.weights, held.master_weights, held.optimizer) == (2 * (N + F), 4 * N, 8 * N)
    assert held.gradients == 2 * N + 4 * N


def test_in_fp32_without_zero_the_weights_are_their_own_masters() -> None:
    assert of(replace(HALF, width=4))["update"].master_weights == 0
    assert of(replace(HALF, width=4, stage=1))["update"].master_weights == 4 * N // 4


def test_zero_1_partitions_masters_and_state_and_zero_3_the_weights_too() -> None:
    first, third = of(replace(HALF, stage=1))["update"], of(replace(HALF, stage=3))["update"]
    assert (first.weights, first.master_weights, first.optimizer) == (2 * (N + F), N, 2 * N)
    assert (third.weights, third.master_weights, third.optimizer) == (2 * (N + F) // 4, N, 2 * N)


def test_zero_3_has_at_most_as_many_weights_gathered_as_may_live() -> None:
    resting = 2 * (N + F) // 4
    assert of(replace(HALF, stage=3))["backward"].weights == resting + 2 * (N + F)
    assert of(replace(HALF, stage=3, live=700))["backward"].weights == resting + 2 * 700


def test_a_gpus_bucket_counts_whole_and_a_cpus_as_far_as_it_is_written() -> None:
    large = replace(HALF, stage=2, bucket=50_000)
    assert of(large)["exchange"].buffers == 2 * N + 2 * N
    assert of(replace(large, gpu=True))["exchange"].buffers == 2 * 50_000 + 2 * N


def test_accumulated_gradients_are_there_when_the_activations_are_largest() -> None:
    assert of(HALF)["backward"].gradients in (0, 2 * N)
    accumulated = of(replace(HALF, accumulates=True))["backward"]
    assert (accumulated.gradients, accumulated.activations) == (2 * N, 500)


def test_offload_moves_masters_state_and_fp32_gradients_to_the_node() -> None:
    layout = replace(HALF, stage=2, gpu=True, offload_optimizer=True)
    held = of(layout)["update"]
    assert (held.master_weights, held.optimizer) == (0, 0)
    share = N // 4
    copied = 2 * N + 4 * share + 8 * share
    assert on_host(layout, state=8 * share) == (8 + 4 + 4 + 2) * share + copied
    assert on_host(replace(layout, offload_optimizer=False), state=8 * share) == copied
    assert on_host(HALF, state=8 * share) == 0


def test_a_checkpoint_is_copied_beside_what_stands_on_a_cpu_and_to_the_host_on_a_gpu() -> None:
    held = of(HALF)["checkpoint"]
    assert held.checkpoint == 2 * N + 4 * N + 8 * N, "frozen weights are not saved"
    assert held.total == 2 * (N + F) + 4 * N + 8 * N + held.checkpoint
    assert of(replace(HALF, stage=3))["checkpoint"].checkpoint == (2 + 4 + 8) * N // 4
    assert "checkpoint" not in of(replace(HALF, gpu=True))


def test_weights_in_four_bits_take_half_a_byte_and_their_scales_and_one_is_unpacked_at_a_time() -> None:
    layout = replace(HALF, frozen=F - 2048, packed=2048, unpacked=1024)
    plain = of(replace(HALF, frozen=F - 2048))
    resting = of(layout)["update"].weights - plain["update"].weights
    assert 2048 / 2 + 2048 / 64 <= resting < 2048 / 2 + 2048 / 64 + 2
    assert of(layout)["backward"].buffers - plain["backward"].buffers == 2 * 1024 + 4 * 1024 // 64


def test_every_worker_reads_the_whole_model_before_zero_takes_it_apart() -> None:
    assert of(replace(HALF, stage=3))["load"].total == 4 * (N + F)
