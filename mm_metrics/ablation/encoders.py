"""Find the encoders: the largest modules whose outputs depend on one modality alone.

Passes over a few rows follow first the modalities, which finds the encoders, and then the batch's tensors and the
encoders' outputs to the answer, which tells who writes into them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from mm_metrics.ablation.batch import Path, flatten, some_rows, tensors
from mm_metrics.ablation.calls import Call
from mm_metrics.ablation.plan import Axes, Plan, Site, Step
from mm_metrics.ablation.trace import Trace, trace
from mm_metrics.modalities import Modalities


def make_plan(
    run: Callable[[Any], Any],
    batch: Any,
    N: int,
    modality: Mapping[Path, int],
    M: int,
    presence: Iterable[Path],
    named: Mapping[Module, int] | None,
) -> Plan:
    """Follow ``run`` over a few rows of a batch of N samples.

    ``modality`` maps the inputs' paths to modalities; ``named`` the modules that the user named as encoders, None
    where they are to be found.
    """
    few, many = (2, 3) if N > 2 else (1, N)
    bits = {path: 1 << modality.get(path, M + 1) for path in tensors(batch)} | dict.fromkeys(presence, 1 << M)
    traced = trace(run, some_rows(batch, N, slice(few)), bits)
    twin = trace(run, some_rows(batch, N, slice(many)), bits)
    lasting = {id(call.module) for call in traced.calls} & {id(call.module) for call in twin.calls}
    calls, twins = _lasting(traced, lasting), _lasting(twin, lasting)
    encoders = _encoders(traced, calls, twins, few, many, M, named)

    own = {path: 1 << i for i, path in enumerate(bits)}
    place = {call: n for n, call in enumerate(traced.calls)}
    bit = {call: 1 << len(own) + j for j, call in enumerate(encoders)}
    last = trace(run, some_rows(batch, N, slice(few)), own, {place[call]: bit[call] for call in encoders})

    modules = {id(call.module) for call in encoders}
    sites: list[Site] = []
    counts: Counter = Counter()
    interest: set[int] = set()
    for call in calls:
        if id(call.module) not in modules:
            continue
        interest |= {id(outer.module) for outer in call.outwards()}
        if any(outer in encoders for outer in call.outwards()[1:]):
            continue  # a replay does not get here
        if call in encoders:
            m = _modality(traced.bits[call], M, call.module, named)
            axes, n = encoders[call], counts[id(call.module)]
            reaches, written = bool(last.answer & bit[call]), bool(last.written & bit[call])
            sites.append(Site(m, chain(call, traced.batch), axes, n, reaches, written))
        counts[id(call.module)] += 1
    roots = outer_calls([call for call in calls if call.parent is None], traced.batch)
    writes = any(last.written & bits for bits in own.values())
    share = sum(traced.work[call] for call in encoders) / max(traced.work[None], 1)
    looped = bool(last.escaped.get(None))
    return Plan(sites, roots, interest | {id(root.module) for root in roots}, counts, looped, writes, share)


def _lasting(traced: Trace, lasting: set[int]) -> list[Call]:
    """The calls of modules that last from pass to pass; those that a forward makes anew are taken out of the chains."""
    counts: Counter = Counter()
    calls = [call for call in traced.calls if id(call.module) in lasting]
    for call in calls:
        while call.parent is not None and id(call.parent.module) not in lasting:
            call.parent = call.parent.parent
        call.nth = counts[call.parent, id(call.module)]
        counts[call.parent, id(call.module)] += 1
    return calls


def _modality(bits: int, M: int, module: Module, named: Mapping[Module, int] | None) -> int:
    if bits.bit_count() == 1 and bits < 1 << M:
        return bits.bit_length() - 1
    return named[module] if named and module in named else -1


def _encoders(
    few: Trace,
    calls: list[Call],
    twins: list[Call],
    n_few: int,
    n_many: int,
    M: int,
    named: Mapping[Module, int] | None,
) -> dict[Call, Axes]:
    """The largest calls that qualify, in order, with the samples' axes of their outputs."""
    found: dict[Call, Axes] = {}
    if [call.module for call in calls] != [call.module for call in twins]:
        return found
    for call, twin in zip(calls, twins, strict=True):
        if any(outer in found for outer in call.outwards()) or (named is not None and call.module not in named):
            continue
        if _modality(few.bits.get(call, 0), M, call.module, named) < 0:
            continue
        given = {id(value) for value in tensors((call.args, call.kwargs)).values()}
        if any(id(value) in given for value in tensors((call.output,)).values()):
            continue  # it hands on its input, as nn.Identity does
        axes = sample_axes(call.output, twin.output, n_few, n_many)
        if axes and (n_few == n_many or any(axis is not None for axis in axes.values())):
            found[call] = axes
    return found


def sample_axes(small: Any, large: Any, few: int, many: int) -> Axes | None:
    """The axis of each tensor that grows with the samples, from outputs for few and for many of them.

    None where a tensor grows otherwise: its rows are not the samples'.

    >>> import torch
    >>> sample_axes(torch.zeros(5, 2, 3), torch.zeros(5, 3, 3), 2, 3)
    {(): 1}
    """
    before, after = tensors(small), tensors(large)
    if before.keys() != after.keys():
        return None
    axes: dict[Path, int | None] = {}
    for path, a in before.items():
        b = after[path]
        grown = [d for d in range(a.ndim) if a.ndim != b.ndim or a.shape[d] != b.shape[d]]
        if a.ndim != b.ndim or len(grown) > 1 or any(a.shape[d] * many != b.shape[d] * few for d in grown):
            return None
        axes[path] = grown[0] if grown else None
    return axes


def chain(call: Call, batch: Any) -> tuple[Step, ...]:
    """The calls from this one outwards, each with the batch's own tensors among its arguments."""
    names = {id(tensor): path for path, tensor in tensors(batch).items()}
    steps = []
    for at in call.outwards():
        given = flatten((at.args, at.kwargs))
        own = {path: names.get(id(value)) for path, value in given.items() if isinstance(value, Tensor)}
        known = {path: name for path, name in own.items() if name is not None}
        steps.append(Step(at.module, at.nth, known if own and len(known) == len(own) else None, constants(given)))
    return tuple(steps)


def constants(given: Mapping[Path, Any]) -> dict[Path, Any]:
    """The flags among a call's arguments: plain values that are arguments themselves, not parts of one."""
    return {
        path: value
        for path, value in given.items()
        if len(path) == 2 and (value is None or isinstance(value, bool | int | float | str))
    }


def outer_calls(calls: Iterable[Call], batch: Any) -> list[Site]:
    """The outermost calls of a forward pass over a batch, as sites without a modality."""
    counts: Counter = Counter()
    sites = []
    for call in calls:
        sites.append(Site(-1, chain(call, batch), {}, counts[id(call.module)]))
        counts[id(call.module)] += 1
    return sites


def named_encoders(model: Module, encoders: Any, modalities: Modalities) -> dict[Module, int] | None:
    """The modules that the user names with their modalities, None where they are to be found."""
    if encoders is None or encoders == "auto":
        return None
    if not isinstance(encoders, Mapping) or not set(encoders) <= set(modalities):
        raise ValueError(f"encoders={encoders!r}: 'auto', None, or module names by modality of {modalities.names}")
    modules = dict(model.named_modules())
    found = {}
    for name, named in encoders.items():
        for one in named if isinstance(named, tuple | list) else (named,):
            module = modules.get(one) if isinstance(one, str) else one
            if not isinstance(module, Module):
                raise ValueError(f"encoders[{name!r}]={one!r} is no module of the model: it has {list(modules)[1:]}")
            found[module] = modalities.names.index(name)
    return found
