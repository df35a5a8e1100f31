"""A pretend accelerator: tensors that say they lie on ``cuda:0``, compute on the CPU, and count what a device would do.

Operations over two devices are refused; each kernel, and each operation for which a host would have to wait, is
counted. Everything runs inside `pretending`, which also makes ``device="cuda"`` of factories such tensors.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
WAITS = {"_local_scalar_dense", "item", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "bincount"}
COPIES = {"_to_copy", "copy_", "copy"}
FREE = {"detach", "alias", "is_same_size", "_unsafe_view"}


class Log:
    """How many kernels ran, and where the host waited."""

    def __init__(self) -> None:
        self.kernels: list[str] = []
        self.waits: list[str] = []

    def wait(self, name: str) -> None:
        frames = [f for f in traceback.extract_stack() if "/mm_metrics/" in f.filename]
        self.waits.append(f"{name} at {frames[-1].filename.split('/')[-1]}:{frames[-1].lineno}" if frames else name)


LOG = Log()


class OnDevice(torch.Tensor):
    """A tensor of the pretend device, around the one that holds its numbers."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device="meta", requires_grad=False, **layout)
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE

    def tolist(self) -> list:
        LOG.wait("tolist")
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def numpy(self, *args, **kwargs):
        raise TypeError("a tensor of cuda:0 is no numpy array")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Everywhere(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _inner(x):
    return x.inner if isinstance(x, OnDevice) else x


def _run(func, args, kwargs):
    name = func._schema.name.split("::")[1]
    if name != "item" and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
        with _Everywhere():
            out = func.decompose(*args, **kwargs)
        if out is not NotImplemented:
            return out
    leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    here = [x for x in leaves if isinstance(x, OnDevice)]
    target = None if kwargs.get("device") is None else torch.device(kwargs["device"]).type
    if here and name not in COPIES:
        apart = [tuple(x.shape) for x in leaves if not isinstance(x, OnDevice) and x.ndim]
        if apart:
            raise RuntimeError(f"{name}: all tensors on one device, got cuda:0 and cpu {apart}")
        if name in WAITS or (name.startswith("index") and any(_inner(x).dtype == torch.bool for x in leaves[1:])):
            LOG.wait(name)
    if (target == "cuda" and leaves and not here) or (here and target == "cpu"):
        LOG.wait(f"copy {tuple(leaves[0].shape)}")
    if name == "copy_" and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
        LOG.wait("copy_")
    moved = {**{key: tree_map(_inner, x) for key, x in kwargs.items()}, **({"device": "cpu"} if target else {})}
    if target == "cuda":
        moved.pop("pin_memory", None)
    out = func(*tree_map(_inner, args), **moved)
    on_device = target != "cpu" and (here or target == "cuda")
    if not on_device or name == "_local_scalar_dense":
        return out
    returns = [r.alias_info for r in func._schema.returns]
    if not any(alias is not None for alias in returns) and name not in FREE:
        LOG.kernels.append(name)
    if any(alias is not None and alias.is_write for alias in returns):
        LOG.kernels.append(name)
        same = {id(_inner(x)): x for x in leaves}
        return tree_map(lambda x: same.get(id(x), x), out)
    view = any(alias is not None for alias in returns) and leaves and not leaves[0].is_inference()
    with torch.inference_mode(False if view else torch.is_inference_mode_enabled()):
        return tree_map(lambda x: OnDevice(x) if isinstance(x, torch.Tensor) else x, out)


@contextmanager
def pretending() -> Iterator[Log]:
    """Inside, ``device="cuda"`` gives tensors of the pretend device; the log counts from here."""
    LOG.__init__()  # type: ignore[misc]
    lazy, make = torch.cuda._lazy_init, torch.tensor

    def tensor(data, *args, device=None, **kwargs):
        if device is None or torch.device(device).type != "cuda":
            return make(data, *args, device=device, **kwargs)
        LOG.wait("tensor")
        return OnDevice(make(data, *args, **kwargs))

    torch.cuda._lazy_init, torch.tensor = (lambda: None), tensor
    try:
        with _Everywhere():
            yield LOG
    finally:
        torch.cuda._lazy_init, torch.tensor = lazy, make


def to_device(thing):
    """A module, a batch or a tensor on the pretend device; a module is changed in place."""
    if isinstance(thing, torch.nn.Module):
        for part in thing.modules():
            for name, x in part._parameters.items():
                part._parameters[name] = (
                    None if x is None else torch.nn.Parameter(OnDevice(x.data), requires_grad=False)
                )
            for name, x in part._buffers.items():
                part._buffers[name] = None if x is None else OnDevice(x)
        return thing
    return tree_map(lambda x: OnDevice(x.clone()) if isinstance(x, torch.Tensor) else x, thing)
