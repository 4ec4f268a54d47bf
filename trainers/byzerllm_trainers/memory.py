"""What a worker's device holds, by part and phase, as DeepSpeed lays a run's tensors out (read in its 0.19 sources).

Of N trained and F frozen weights in ``w`` bytes each (4 in fp32, 2 in half precision), P = N / world being a rank's
share, a run holds besides its activations (`memory_trace`):

=====  ==================  ==================  ===============  =========================================
stage  weights             fp32 masters        gradients        where
=====  ==================  ==================  ===============  =========================================
0      w·(N + F)           4·N in half         w·N              the optimizer itself; FP16_UnfusedOptimizer
1, 2   w·(N + F)           4·P in both         w·N; 2: bucket   DeepSpeedZeroOptimizer
3      w·(P + F / world)   4·P in both         w·P and bucket   DeepSpeedZeroOptimizer_Stage3
=====  ==================  ==================  ===============  =========================================

Frozen weights in four bits (QLoRA) are beside these, the same at every stage; stage 3 is refused for them.
The optimizer's state is over the masters (without masters, the weights). All of it is there at once at no time, so
that the peak is that of one of the phases of `phases`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from .memory_trace import Moment

if TYPE_CHECKING:
    from .loop_settings import LoopSettings

FP32 = 4
"""Bytes of a master weight and its gradient."""

BUCKET = 500_000_000
"""DeepSpeed's ``reduce_bucket_size`` and its engine's bucket without ZeRO, in elements."""

PREFETCH = 50_000_000
"""DeepSpeed's ``stage3_prefetch_bucket_size``: elements that are gathered at a time, ahead of their use."""

LIVE = 1_000_000_000
"""DeepSpeed's ``stage3_max_live_parameters`` and ``stage3_max_reuse_distance``, in elements."""


NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in four bits: its half byte; a scale of a byte for each 64; one of four bytes for 256 of those."""

UNPACKED_SCALES = 4 / 64
"""Bytes of a weight's scales while bitsandbytes multiplies by it: taken to fp32."""


@dataclass(frozen=True)
class Parts:
    """Bytes on one device, by what they are for.

    Attributes:
        weights: Weights that the model computes with, gathered ones included.
        master_weights: Their fp32 copy that the optimizer changes.
        optimizer: Its state, e.g. AdamW's two moments.
        gradients: Gradients, as far as they are done.
        activations: What forward keeps for backward, and what either computes meanwhile.
        logits: Everything over the vocabulary at the supervised positions.
        buffers: Copies that the exchange between ranks and the optimizer make for a while.
        checkpoint: The copy of a checkpoint that is being written.
    """

    weights: int = 0
    master_weights: int = 0
    optimizer: int = 0
    gradients: int = 0
    activations: int = 0
    logits: int = 0
    buffers: int = 0
    checkpoint: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, int]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __add__(self, other: Parts) -> Parts:
        return Parts(**{name: size + getattr(other, name) for name, size in self.as_dict().items()})


@dataclass(frozen=True)
class Layout:
    """What decides where a run's tensors lie.

    Attributes:
        trained: Elements of weights that are trained, N.
        frozen: Elements of all others but those in four bits, F.
        packed: Elements of the weights in four bits.
        unpacked: Elements of the largest of them: it is taken to the run's precision while it is multiplied.
        width: Bytes of a weight in what the run computes in, w.
        loaded: Bytes of the model as each worker reads it.
        stage: ZeRO's.
        world: Ranks.
        accumulates: Whether a step has several micro-batches.
        bucket: Elements whose gradients are exchanged at a time.
        prefetch: Elements that ZeRO-3 gathers at a time.
        live: Elements that ZeRO-3 keeps gathered at most.
        gpu: Whether the device is a GPU; a CPU's memory is taken only where it is written to.
        offload_optimizer: Whether masters, state and their gradients are in the host's memory.
        offload_weights: Whether ZeRO-3's partitions of the weights are.
    """

    trained: int
    frozen: int
    packed: int
    unpacked: int
    width: int
    loaded: int
    stage: int
    world: int
    accumulates: bool
    bucket: int
    prefetch: int
    live: int
    gpu: bool
    offload_optimizer: bool
    offload_weights: bool

    @property
    def share(self) -> int:
        """Trained elements that a rank updates, P."""
        return self.trained if self.stage == 0 else -(-self.trained // self.world)

    @property
    def masters(self) -> int:
        """Elements that have an fp32 copy."""
        return 0 if self.width == FP32 and self.stage == 0 else self.share  # there the weights are their own

    @property
    def packed_bytes(self) -> int:
        """What the weights in four bits take, scales included."""
        return round(NF4 * self.packed)

    @property
    def unpacked_bytes(self) -> int:
        """What multiplying by one of them takes for a while."""
        return round((self.width + UNPACKED_SCALES) * self.unpacked)

    @property
    def bucket_bytes(self) -> int:
        """The buffer into which gradients are gathered; a GPU's allocator hands it out whole."""
        return self.width * (self.bucket if self.gpu else min(self.bucket, self.trained))


def layout_of(
    settings: LoopSettings,
    *,
    trained: int,
    frozen: int,
    packed: int,
    unpacked: int,
    width: int,
    loaded: int,
    world: int,
    gpu: bool,
) -> Layout:
    """Return a run's layout; ``settings.deepspeed`` may change DeepSpeed's own numbers."""
    zero: Mapping[str, Any] = settings.deepspeed["zero_optimization"]

    def offloads(what: str) -> bool:
        return gpu and (zero.get(what) or {}).get("device", "none") != "none"

    return Layout(
        trained=trained,
        frozen=frozen,
        packed=packed,
        unpacked=unpacked,
        width=width,
        loaded=loaded,
        stage=settings.zero_stage,
        world=world,
        accumulates=settings.accumulation > 1,
        bucket=int(zero.get("reduce_bucket_size", BUCKET)),
        prefetch=int(zero.get("stage3_prefetch_bucket_size", PREFETCH)),
        live=int(min(zero.get("stage3_max_live_parameters", LIVE), zero.get("stage3_max_reuse_distance", LIVE))),
        gpu=gpu,
        offload_optimizer=offloads("offload_optimizer"),
        offload_weights=settings.zero_stage == 3 and offloads("offload_param"),
    )


def phases(layout: Layout, moments: Sequence[Moment], *, state: int, temporary: int) -> dict[str, Parts]:
    """Return what the device holds at the peak of each phase.

    ``load``: the whole model, as each worker reads it, before ZeRO takes it apart. ``backward``: forward and backward
    of the last micro-batch. ``exchange``: gradients go between ranks. ``update``: the optimizer's step. ``gather``:
    ZeRO-3 brings the first weights together, before there are activations. ``checkpoint``: what is saved is copied, on
    a GPU to the host's memory (see `on_host`).

    Args:
        layout: Where the tensors lie.
        moments: Of a micro-batch.
        state: Bytes of the optimizer's state on this rank.
        temporary: Bytes that the optimizer's step takes besides.
    """
    standing = Parts(
        weights=_resting_weights(layout),
        master_weights=0 if layout.offload_optimizer else FP32 * layout.masters,
        optimizer=0 if layout.offload_optimizer else state,
    )
    found = {
        "load": Parts(weights=layout.loaded),
        "backward": standing + max((_backward(layout, moment) for moment in moments), key=lambda parts: parts.total),
        "update": standing + _update(layout, temporary),
    }
    if layout.stage or layout.world > 1:
        found["exchange"] = standing + _exchange(layout)
    if layout.stage == 3:
        found["gather"] = standing + _gather(layout)
    if not layout.gpu:
        found["checkpoint"] = standing + _checkpoint(layout, state)
    return found


def on_host(layout: Layout, state: int) -> int:
    """Bytes that a rank with a GPU takes of its node's memory.

    They are what is offloaded (masters, state and their fp32 gradients), and the copy of a checkpoint.
    """
    if not layout.gpu:
        return 0
    weights = layout.width * (layout.share + layout.frozen // layout.world) if layout.offload_weights else 0
    weights += _copied(layout, state)
    if not layout.offload_optimizer:
        return weights
    return weights + state + FP32 * layout.masters + FP32 * layout.share + layout.width * layout.share


def _checkpoint(layout: Layout, state: int) -> Parts:
    """What copying a checkpoint adds; ZeRO-3's bucket and gradients stay from one step to the next."""
    if layout.stage < 3:
        return Parts(checkpoint=_copied(layout, state))
    return Parts(gradients=layout.width * layout.share, buffers=layout.bucket_bytes, checkpoint=_copied(layout, state))


def _copied(layout: Layout, state: int) -> int:
    """Bytes of what rank 0 saves: trained weights, masters and the optimizer's state; frozen weights are not saved."""
    weights = layout.trained if layout.stage < 3 else layout.share
    return layout.width * weights + FP32 * layout.masters + state


def _resting_weights(layout: Layout) -> int:
    if layout.stage < 3:
        return layout.width * (layout.trained + layout.frozen) + layout.packed_bytes
    return 0 if layout.offload_weights else layout.width * (layout.share + layout.frozen // layout.world)


def _backward(layout: Layout, moment: Moment) -> Parts:
    """What forward and backward add at one moment.

    Without ZeRO-2 every gradient stays where autograd left it, from the first micro-batch on. ZeRO-2 and 3 copy it
    into a bucket, and keep the earlier micro-batches' sum for their own share. ZeRO-3 has the weights of whatever is
    still to be computed gathered.
    """
    done = layout.trained if layout.accumulates else moment.gradients
    gathered, gradients, buffers = 0, layout.width * done, 0
    if layout.stage >= 2:
        buffers = layout.bucket_bytes if layout.gpu else layout.width * min(layout.bucket, moment.gradients)
        gradients = layout.width * layout.share if layout.accumulates or layout.stage == 3 else 0
    if layout.stage == 3:
        left = layout.trained + layout.frozen - moment.gradients
        coming = layout.prefetch if left > layout.live else 0
        buffers = layout.bucket_bytes + layout.width * coming  # the bucket stays from one step to the next
        gathered = layout.width * min(layout.live, left)
    return Parts(
        weights=gathered,
        gradients=gradients,
        activations=moment.activations,
        logits=moment.logits,
        buffers=buffers + layout.unpacked_bytes,
    )


def _gather(layout: Layout) -> Parts:
    """What gathering ahead adds: all ranks' shares of many weights in one tensor, and each weight cut out of it.

    gloo, on CPUs, gathers into a tensor of its own and copies from there.
    """
    weights = layout.width * min(layout.prefetch, layout.trained + layout.frozen)
    return Parts(
        weights=weights,
        gradients=layout.width * layout.share,
        buffers=layout.bucket_bytes + weights * (1 if layout.gpu else 2),
    )


def _exchange(layout: Layout) -> Parts:
    """What reducing gradients adds: they, and a flat copy of as many as fit a bucket."""
    flat = layout.width * min(layout.bucket, layout.trained)
    if layout.stage < 2:
        own = layout.bucket_bytes if layout.stage == 1 and layout.gpu else 0
        return Parts(gradients=layout.width * layout.trained, buffers=flat + own)
    kept = layout.width * layout.share if layout.accumulates or layout.stage == 3 else 0
    return Parts(gradients=kept, buffers=layout.bucket_bytes + flat)


def _update(layout: Layout, temporary: int) -> Parts:
    """What the optimizer's step adds: gradients in fp32, and what it computes with.

    Under ZeRO the share's gradients in the run's own precision stay beside them: matrices, norms and biases are two
    groups, updated one after the other, and their gradients lie in one buffer.
    """
    if layout.offload_optimizer:
        return Parts(gradients=layout.width * layout.share)
    in_fp32 = FP32 * layout.share
    if layout.stage == 0:
        own = layout.width * layout.trained
        return Parts(gradients=own + (in_fp32 if layout.width < FP32 else 0), buffers=temporary)
    bucket = layout.bucket_bytes if layout.stage == 3 else 0
    return Parts(gradients=in_fp32 + layout.width * layout.share, buffers=temporary + bucket)
