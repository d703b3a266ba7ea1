"""Count the bytes of all tensors that are alive, by what they are for; on real tensors and on tensors without memory.

The same tracker measures a training on a CPU and, on shapes alone, foretells one (see :mod:`.forecast`). It sees what
PyTorch's operations take and return. What kernels use inside themselves and give back, it does not see, nor the
allocator's fragments, nor the interpreter; on a device these come on top.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from bettersynth.models.layers.quantize import FrozenWeight

TRAINED, FROZEN, GRADIENTS, OPTIMIZER = "trained_weights", "frozen_weights", "gradients", "optimizer"
LOGITS, ACTIVATIONS, BUFFERS, AVERAGE, HOST = "logits", "activations", "buffers", "average", "host"
PARTS = (TRAINED, FROZEN, GRADIENTS, OPTIMIZER, AVERAGE, ACTIVATIONS, LOGITS, BUFFERS)
"""What a device's bytes are for. Buffers are inputs of the step and tables of the model; what was offloaded is HOST."""

_READ_NUMBER = torch.ops.aten._local_scalar_dense.default
_IS_ON_HOST = ContextVar("is_on_host", default=False)


@contextmanager
def on_host() -> Iterator[None]:
    """What operations make in this block is the host's: a tracker cannot tell where a CPU or shapes are the device."""
    before = _IS_ON_HOST.set(True)
    try:
        yield
    finally:
        _IS_ON_HOST.reset(before)


class LiveBytes(TorchDispatchMode):
    """While entered, keeps account of every storage that operations see.

    Args:
        device: kind of device to count (``cpu``, ``cuda``).
        logits_width: tensors with a last dimension of this size are logits; None: none are.
        is_shapes: the tensors have no values; a number read from one is true.

    Attributes:
        live: bytes alive now, by part.
        peak: bytes alive by part at the moment when the device's sum was largest, ``peak_bytes``.
        host_bytes: the most that was alive of what is kept on the host.
        flops: of matrix products, convolutions and attention, a multiply-add counted as two.
    """

    def __init__(self, device: str, *, logits_width: int | None = None, is_shapes: bool = False) -> None:
        super().__init__()
        self._device, self._width, self._is_shapes = device, logits_width, is_shapes
        self._part: dict[int, str] = {}
        self._size: dict[int, int] = {}
        self._watch: dict[int, weakref.ref[Any]] = {}
        self._total = 0
        self.live: Counter[str] = Counter()
        self.peak: dict[str, int] = {}
        self.peak_bytes = self.host_bytes = self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is _READ_NUMBER and self._is_shapes:
            return True  # there are no values; callers ask only whether all is as it should be
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(getattr(func, "_overloadpacket", None))
        if count is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=result)
        for value in tree_iter((result, args)):
            if isinstance(value, torch.Tensor):
                self._see(value)
        self._note_peak()
        return result

    def assign(self, tensors: Iterable[torch.Tensor], part: str) -> None:
        """Say what tensors are for; those not seen yet are counted from now on."""
        for tensor in tensors:
            key = self._see(tensor)
            if key is None or self._part[key] == part:
                continue
            size = self._size[key]
            self._add(self._part[key], -size)
            self._add(part, size)
            self._part[key] = part
        self._note_peak()

    def _see(self, tensor: torch.Tensor) -> int | None:
        if tensor.device.type != self._device:
            return None
        storage = tensor.untyped_storage()
        key: int = storage._cdata
        size = storage.nbytes()
        if key not in self._watch:
            is_logits = self._width is not None and tensor.ndim > 1 and tensor.shape[-1] == self._width
            self._part[key] = HOST if _IS_ON_HOST.get() else LOGITS if is_logits else ACTIVATIONS
            self._size[key] = 0
            self._watch[key] = weakref.ref(storage, lambda _: self._forget(key))
        if size != self._size[key]:
            self._add(self._part[key], size - self._size[key])
            self._size[key] = size
        return key

    def _forget(self, key: int) -> None:
        self._watch.pop(key, None)
        self._add(self._part.pop(key), -self._size.pop(key))

    def _add(self, part: str, size: int) -> None:
        self.live[part] += size
        if part != HOST:
            self._total += size

    def _note_peak(self) -> None:
        self.host_bytes = max(self.host_bytes, self.live[HOST])
        if self._total > self.peak_bytes:
            self.peak_bytes = self._total
            self.peak = {part: self.live[part] for part in PARTS}


def logits_width(model: nn.Module) -> int | None:
    """The largest vocabulary of a model's embeddings."""
    return max((part.num_embeddings for part in model.modules() if isinstance(part, nn.Embedding)), default=None)


class Training(Protocol):
    """What is looked at: the model, what it trains, what is optimised in its place if it is offloaded, and by what.

    ``average`` (of the weights) may be absent.
    """

    model: nn.Module
    trained: Sequence[tuple[str, nn.Parameter]]
    parameters: Sequence[tuple[str, nn.Parameter]]
    optimizer: torch.optim.Optimizer


@contextmanager
def attributed(tracker: LiveBytes, training: Training) -> Iterator[None]:
    """Tell a tracker what a training's tensors are for, now and as gradients and optimiser states appear."""
    trained, optimized = ([p for _, p in named] for named in (training.trained, training.parameters))
    is_offloaded = optimized[0] is not trained[0]
    owner = {id(copy): own for copy, own in zip(trained, optimized, strict=True)}
    tracker.assign(trained, TRAINED)
    tracker.assign((p for p in training.model.parameters() if id(p) not in owner), FROZEN)
    tracker.assign(training.model.buffers(), BUFFERS)
    tracker.assign(few_bit_buffers(training.model), FROZEN)
    if is_offloaded:
        tracker.assign(optimized, HOST)
    average = getattr(training, "average", None)
    if average is not None:
        tracker.assign(average.tensors.values(), HOST if average.is_on_host else AVERAGE)

    def note_gradient(parameter: torch.Tensor) -> None:
        grad = owner[id(parameter)].grad
        if grad is not None:
            tracker.assign([grad], HOST if is_offloaded else GRADIENTS)

    def begin_step(*_: Any) -> None:
        _IS_ON_HOST.set(is_offloaded)  # the first step makes the states; their part is known before they are seen

    def note_states(*_: Any) -> None:
        _IS_ON_HOST.set(False)
        states = [value for state in training.optimizer.state.values() for value in state.values()]
        found = (value for value in states if isinstance(value, torch.Tensor))
        tracker.assign(found, HOST if is_offloaded else OPTIMIZER)

    hooks = [parameter.register_post_accumulate_grad_hook(note_gradient) for parameter in trained]
    hooks.append(training.optimizer.register_step_pre_hook(begin_step))
    hooks.append(training.optimizer.register_step_post_hook(note_states))
    note_states()
    try:
        yield
    finally:
        _IS_ON_HOST.set(False)  # a step that failed has not come to its end
        for hook in hooks:
            hook.remove()


def few_bit_buffers(model: nn.Module) -> Iterator[torch.Tensor]:
    """Weights that are held as buffers because they have few bits."""
    for module in model.modules():
        if isinstance(module, FrozenWeight):
            yield from module.buffers()


@contextmanager
def measured(training: Training, *, is_tracked: bool) -> Iterator[dict[str, Any]]:
    """Peak bytes of a training: the allocator's on CUDA, the tracker's elsewhere if asked for (it takes time).

    Yields:
        A dictionary that is filled at the end of the block.
    """
    facts: dict[str, Any] = {}
    tensors = (*training.model.parameters(), *training.model.buffers())
    device = next((tensor.device for tensor in tensors if tensor.is_cuda), tensors[0].device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        try:
            yield facts
        finally:
            facts["peak_device_bytes"] = torch.cuda.max_memory_allocated(device)
        return
    if not is_tracked:
        yield facts
        return
    tracker = LiveBytes(device.type, logits_width=logits_width(training.model))
    with tracker, attributed(tracker, training):
        try:
            yield facts
        finally:
            facts |= {"peak_tensor_bytes": tracker.peak_bytes, "peak_tensor_parts": tracker.peak}
            facts |= {"offloaded_bytes": tracker.host_bytes, "flops": tracker.flops}
