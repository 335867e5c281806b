"""A pretended CUDA device: it counts what a program would cost on a GPU, on a machine without one.

Within `pretended_cuda()`, a tensor that is moved to "cuda" keeps its values on the CPU and says
that it is on cuda:0, so that a program takes the same branches as on a GPU, with true values.

    with pretended_cuda():
        model, x = model.to("cuda"), x.to("cuda")
        with Counts() as counts:
            model(x)
    assert counts.num_launches == 30 and not counts.waits and not counts.mixed

`record_graph` stands in for the capture of a CUDA graph: its replay repeats the recorded operations
on the recorded tensors, without running any Python code of the program again.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten

VIEWS = frozenset(
    [
        "_reshape_alias",
        "_unsafe_view",
        "_version",
        "alias",
        "as_strided",
        "chunk",
        "detach",
        "diagonal",
        "empty",
        "empty_like",
        "empty_strided",
        "expand",
        "is_pinned",
        "is_same_size",
        "lift_fresh",
        "narrow",
        "new_empty",
        "new_empty_strided",
        "numel",
        "permute",
        "reshape",
        "resize_",
        "result_type",
        "select",
        "set_",
        "size",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "stride",
        "sym_numel",
        "sym_size",
        "sym_stride",
        "t",
        "transpose",
        "unbind",
        "unfold",
        "unsqueeze",
        "view",
    ]
)
"""Operations that launch no kernel."""

KERNELS = {
    "native_batch_norm": 3,
    "native_batch_norm_backward": 3,
    "_batch_norm_with_update": 3,
    "batch_norm_backward": 3,
    "convolution_backward": 2,
    "index_copy": 2,
    "constant_pad_nd": 2,
    "eye": 2,
    "nll_loss_backward": 2,
    "nonzero": 3,
    "sort": 2,
    "argsort": 2,
    "topk": 2,
    "scatter": 2,
    "_linalg_svd": 20,
    "randperm": 4,
}
"""The number of kernels of the operations that launch more than one."""

WAITS = {
    "_local_scalar_dense": "reading a value",
    "is_nonzero": "reading a value",
    "equal": "reading a value",
    "nonzero": "nonzero",
    "masked_select": "nonzero",
    "_linalg_svd": "a decomposition",
    "_linalg_eigh": "a decomposition",
    "_linalg_check_errors": "a decomposition",
    "unique": "unique",
    "_unique2": "unique",
    "unique_dim": "unique",
    "bincount": "bincount",
    "repeat_interleave": "repeat_interleave",
}
"""The operations for which the host waits for the device."""

SILENTLY_MUTABLE = (aten.native_batch_norm, aten.cudnn_batch_norm, aten.miopen_batch_norm)
"""Operations that change their inputs, running statistics, although their schemas do not say."""

INDEXING = frozenset(("index", "index_put", "index_put_", "_index_put_impl_"))
MAY_MIX = INDEXING | {"copy_", "_to_copy", "lift_fresh", "set_data"}
"""The operations that take tensors of both devices."""

FACTORIES = frozenset(
    (
        torch.arange,
        torch.empty,
        torch.empty_strided,
        torch.eye,
        torch.full,
        torch.linspace,
        torch.ones,
        torch.rand,
        torch.randint,
        torch.randn,
        torch.randperm,
        torch.zeros,
    )
)
FROM_HOST = frozenset((torch.tensor, torch.as_tensor, torch.scalar_tensor))
NEW_LIKE = frozenset(
    getattr(torch.Tensor, f"new_{name}") for name in ("empty", "zeros", "full", "ones", "tensor")
)


class Counts:
    """What the pretended device has seen within the block; the innermost block counts.

    Attributes:
        launches: kernels by operation; a copy between the devices counts as one.
        waits: the reasons and places at which the host waits for the device.
        mixed: operations on tensors of both devices, which raise on a GPU.
    """

    active: ClassVar[list[Counts]] = []

    def __init__(self) -> None:
        self.launches, self.waits, self.mixed = Counter[str](), Counter[str](), Counter[str]()

    def __enter__(self) -> Counts:
        Counts.active.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        Counts.active.remove(self)

    @property
    def num_launches(self) -> int:
        """The number of kernels launched."""
        return self.launches.total()

    @property
    def num_waits(self) -> int:
        """The number of times that the host waits for the device."""
        return self.waits.total()


def _launch(name: str, kernels: int = 1) -> None:
    if Counts.active:
        Counts.active[-1].launches[name] += kernels


def _wait(reason: str) -> None:
    if Recording.active is not None:
        raise RuntimeError(f"{reason} at {_place()} is not permitted when stream is capturing")
    if Counts.active:
        Counts.active[-1].waits[f"{reason} at {_place()}"] += 1


def _mix(text: str) -> None:
    if Counts.active:
        Counts.active[-1].mixed[f"{text} at {_place()}"] += 1


def _place() -> str:
    """The innermost two lines of the package that are running."""
    frame, lines = sys._getframe(1), list[str]()
    while frame is not None and len(lines) < 2:
        _, inside, file = frame.f_code.co_filename.partition("/src/nuat/")
        if inside:
            lines.append(f"{file}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(lines) or "a test"


class PretendedTensor(torch.Tensor):
    """A tensor that says that it is on cuda:0 and keeps its values in `inner`, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    inner: torch.Tensor

    @staticmethod
    def __new__(cls: Any, inner: torch.Tensor, requires_grad: bool = False) -> PretendedTensor:
        tensor: PretendedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=inner.device,
            requires_grad=requires_grad,
        )
        tensor.inner = inner
        return tensor

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __repr__(self, **kwargs: Any) -> str:
        return f"PretendedTensor({self.inner!r})"

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            inner = self.inner.detach().clone(memory_format=torch.preserve_format)
            memo[id(self)] = _like(PretendedTensor(inner), self)
            _launch("clone")
        return memo[id(self)]

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, meta: Any, size: Any, stride: Any) -> PretendedTensor:
        return PretendedTensor(inner["inner"])

    @classmethod
    def __torch_dispatch__(
        cls, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        _count(op, args, kwargs)
        raw_args, raw_kwargs = tree_map(_inner, (args, kwargs))
        run = Recording.active.run if Recording.active is not None else _run
        out = run(op, raw_args, raw_kwargs)
        if not _tensors(out):
            return out
        if op is aten.copy_.default and not isinstance(args[0], PretendedTensor):
            return args[0]
        return return_and_correct_aliasing(op, args, kwargs, tree_map(_outer, out))


def _run(op: Any, args: Any, kwargs: Any) -> Any:
    return op(*args, **kwargs)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, PretendedTensor) else value


def _outer(value: Any) -> Any:
    return PretendedTensor(value) if isinstance(value, torch.Tensor) else value


def _like(tensor: PretendedTensor, other: torch.Tensor) -> Any:
    """The tensor as a parameter if `other` is one, with its `requires_grad`."""
    if isinstance(other, torch.nn.Parameter):
        return torch.nn.Parameter(tensor, other.requires_grad)
    return tensor.requires_grad_(other.requires_grad)


def _count(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = op.overloadpacket.__name__
    if name in WAITS:
        _wait(WAITS[name])
    if name in INDEXING:
        _count_indexing(name, args)
    elif name == "copy_":
        blocking = not (len(args) > 2 and args[2] and id(args[1]) in _pinned)
        if _on_host(args[0]) != _on_host(args[1]) and blocking:
            _wait("a copy between the devices")
    elif name == "scatter" and _on_host(args[0]):
        # the derivative of topk creates zeros in C++, where the device is a CPU (torch 2.11)
        _launch("zeros")
    elif name not in MAY_MIX and any(
        _on_host(leaf) and leaf.dim() for leaf in _tensors((args, kwargs))
    ):
        _mix(f"{name} of tensors on both devices")
    kernels = KERNELS.get(name, 1)
    if name == "convolution_backward":
        kernels = sum(map(bool, args[-1][:2]))
    if name not in VIEWS:
        _launch(name, kernels)


def _count_indexing(name: str, args: tuple[Any, ...]) -> None:
    indices = [index for index in args[1] if index is not None]
    masks = [index for index in indices if index.dtype in (torch.bool, torch.uint8)]
    fills = name != "index" and len(masks) == len(indices) == 1 and args[2].numel() == 1
    if masks and not fills:
        _wait("indexing by a mask")
    if _on_host(args[0]):
        if not all(map(_on_host, indices)):
            _mix("indexing a CPU tensor by CUDA indices")
    elif any(_on_host(index) and index.dim() for index in indices):
        _wait("indexing by a CPU tensor")
    if name != "index" and _on_host(args[2]) and not _on_host(args[0]):
        if args[2].dim():
            _mix("CPU values put into a CUDA tensor")
        elif not masks:
            _wait("a number put at indices")


def _on_host(tensor: torch.Tensor) -> bool:
    return not isinstance(tensor, PretendedTensor)


class Recording:
    """The operations of a pretended CUDA graph, with their input and output tensors."""

    active: ClassVar[Recording | None] = None

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.created: set[int] = set()
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def run(self, op: Any, args: Any, kwargs: Any) -> Any:
        """Run and record an operation; a view needs no replay, since it shares the memory."""
        schema = getattr(op, "_schema", None)
        inputs = {leaf.untyped_storage() for leaf in _tensors((args, kwargs))}
        addresses = {storage.data_ptr() for storage in inputs}
        mutable = schema is not None and (
            schema.is_mutable or op.overloadpacket in SILENTLY_MUTABLE
        )
        for storage in inputs if mutable else ():
            if storage.data_ptr() not in self.created:
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        out = op(*args, **kwargs)
        of_outputs = {leaf.untyped_storage().data_ptr() for leaf in _tensors(out)}
        if mutable or not of_outputs & addresses:
            self.operations.append((op, args, kwargs, out))
            self.created |= of_outputs - addresses
        return out

    def undo(self) -> None:
        """Restore what the recording has changed, since a capture runs nothing."""
        for _, _, _, out in self.operations:
            for leaf in _tensors(out):
                if leaf.untyped_storage().data_ptr() in self.created:
                    is_float = leaf.is_floating_point() or leaf.dtype == torch.bool
                    leaf.fill_(torch.nan if is_float else torch.iinfo(leaf.dtype).max)
        for storage, values in self.before.values():
            storage.copy_(values)

    @torch.no_grad()
    def replay(self) -> None:
        """Repeat the operations; one launch."""
        for op, args, kwargs, out in self.operations:
            again = op(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old is not new:
                    old.copy_(new)
        _launch("graph")


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def record_graph(work: Callable[[], None]) -> Callable[[], None]:
    """Record what `work` does on the pretended device; the replay does it again.

    As on a GPU, the recording itself changes nothing: tensors that it creates hold NaN, or the
    largest whole number, until the first replay. Work for which the host would have to wait raises
    RuntimeError.
    """
    if Recording.active is not None:
        raise RuntimeError("a graph is recorded within another one")
    Recording.active = recording = Recording()
    random_state = torch.get_rng_state()
    try:
        with Counts() as counts:
            work()
    finally:
        Recording.active = None
        torch.set_rng_state(random_state)
        with torch.no_grad():
            recording.undo()
        if Counts.active:
            Counts.active[-1].mixed.update(counts.mixed)
    return recording.replay


_pinned: dict[int, torch.Tensor] = {}


def _up(tensor: torch.Tensor, pinned: bool = False) -> PretendedTensor:
    """Copy a tensor from the host to the device."""
    if isinstance(tensor, PretendedTensor):
        return tensor
    _launch("copy to the device")
    if not pinned:
        _wait("a pageable copy to the device")
    return PretendedTensor(tensor.detach().clone())


def _down(tensor: PretendedTensor) -> torch.Tensor:
    """Copy a tensor from the device to the host."""
    _launch("copy to the host")
    _wait("a copy to the host")
    return tensor.inner.detach().clone()


def _is_cuda(device: object) -> bool:
    return isinstance(device, torch.device | str) and torch.device(device).type == "cuda"


class _Calls(TorchFunctionMode):
    """Calls that name a device or that copy between devices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in FACTORIES | FROM_HOST and _is_cuda(kwargs.get("device")):
            return self._create(func, args, kwargs)
        if func in NEW_LIKE:
            kwargs.pop("device", None)
        first = args[0] if args else None
        if func is torch.Tensor.to:
            return self._to(first, list(args[1:]), kwargs)
        if func is torch.Tensor.pin_memory:
            pinned = first.clone()
            _pinned[id(pinned)] = pinned  # kept, so that no other tensor gets its id
            return pinned
        if func is torch.Tensor.cuda:
            return _up(first)
        if isinstance(first, PretendedTensor):
            if func is torch.Tensor.cpu:
                return _down(first)
            if func is torch.Tensor.tolist:
                return _down(first).tolist()
            if func is torch.Tensor.numpy:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return func(*args, **kwargs)

    @staticmethod
    def _create(func: Any, args: Any, kwargs: dict[str, Any]) -> PretendedTensor:
        del kwargs["device"]
        if any(isinstance(arg, PretendedTensor) for arg in args):
            return func(*args, **kwargs)
        pinned = kwargs.pop("pin_memory", False)
        if func in FROM_HOST:
            return _up(func(*args, **kwargs), pinned)
        if func not in (torch.empty, torch.empty_strided):
            _launch(func.__name__, KERNELS.get(func.__name__, 1))
        run = Recording.active.run if Recording.active is not None else _run
        return PretendedTensor(run(func, args, kwargs))

    @staticmethod
    def _to(tensor: torch.Tensor, rest: list[Any], kwargs: dict[str, Any]) -> torch.Tensor:
        original = list(rest), dict(kwargs)
        device, non_blocking = kwargs.pop("device", None), kwargs.pop("non_blocking", False)
        if rest and isinstance(rest[0], torch.device | str):
            device = rest.pop(0)
        elif rest and isinstance(rest[0], torch.Tensor):
            device, rest[0] = rest[0].device, rest[0].dtype
        if device is None or (_on_host(tensor) and not _is_cuda(device)):
            return torch.Tensor.to(tensor, *original[0], **original[1])
        if _on_host(tensor):
            tensor = _up(tensor, pinned=non_blocking and id(tensor) in _pinned)
        elif not _is_cuda(device):
            tensor = _down(tensor)
        return torch.Tensor.to(tensor, *rest, **kwargs) if rest or kwargs else tensor


def _move_module(module: torch.nn.Module) -> torch.nn.Module:
    """Move the parameters and buffers of a module to the pretended device, in place."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and _on_host(tensor):
                    inner = tensor.detach().clone(memory_format=torch.preserve_format)
                    tensors[name] = _like(PretendedTensor(inner), tensor)
    return module


def _convert_module(module: torch.nn.Module, memory_format: torch.memory_format) -> None:
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if isinstance(tensor, PretendedTensor) and tensor.dim() == 4:
                    inner = tensor.inner.contiguous(memory_format=memory_format)
                    tensors[name] = _like(PretendedTensor(inner), tensor)


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *args: Any, **kwargs: Any):
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


@contextmanager
def pretended_cuda() -> Iterator[None]:
    """There is a CUDA device within the block, cuda:0."""
    module_to, load, save = torch.nn.Module.to, torch.load, torch.save

    def to(module: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        values = (*args, *kwargs.values())
        if any(map(_is_cuda, values)):
            return _move_module(module)
        memory_format = kwargs.get("memory_format")
        if memory_format and any(isinstance(p, PretendedTensor) for p in module.parameters()):
            _convert_module(module, memory_format)
            return module
        return module_to(module, *args, **kwargs)

    def save_from_host(value: Any, *args: Any, **kwargs: Any) -> None:
        save(tree_map(lambda v: v if _on_host(v) else _down(v), value), *args, **kwargs)

    def load_to(file: Any, map_location: Any = None, **kwargs: Any) -> Any:
        if not _is_cuda(map_location):
            return load(file, map_location=map_location, **kwargs)
        return tree_map(_outer, load(file, map_location="cpu", **kwargs))

    sgd = sys.modules["torch.optim.sgd"]
    patches = (
        mock.patch.object(torch, "autocast", _Autocast),
        mock.patch.object(torch, "load", load_to),
        mock.patch.object(torch, "save", save_from_host),
        mock.patch.object(torch.nn.Module, "to", to),
        mock.patch.object(sgd, "_default_to_fused_or_foreach", lambda *a, **k: (False, True)),
        mock.patch.object(torch.cuda, "is_available", lambda: True),
        mock.patch.object(torch.cuda, "current_device", lambda: 0),
        mock.patch.object(torch.cuda, "empty_cache", lambda: None),
        mock.patch.object(torch.cuda, "synchronize", lambda *a: _wait("synchronize")),
        mock.patch.object(torch.cuda, "get_device_capability", lambda *a: (9, 0)),
        mock.patch.object(torch.cuda, "get_rng_state", lambda *a: torch.get_rng_state()),
        mock.patch.object(torch.cuda, "set_rng_state", lambda *a: None),
    )
    for patch in patches:
        patch.start()
    try:
        with _Calls():
            yield
    finally:
        _pinned.clear()
        for patch in reversed(patches):
            patch.stop()
