"""One batch as the engine sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.baselines import Baselines, StandIn, is_lengths
from mm_metrics.ablation.batch import Path, at, flatten, rebuilt
from mm_metrics.ablation.hide import choose, choose_packed, hide, on_device
from mm_metrics.ablation.inputs import Found, Inputs
from mm_metrics.ablation.stamps import Checks
from mm_metrics.modalities import Modalities


@dataclass(eq=False)
class View:
    """A batch of N samples: where its inputs lie, which are there, and what stands in for each.

    ``there`` ``(N, M)`` bool is the presence, None that all is there; ``complete`` says that this is what the batch
    itself tells, too; ``form`` is equal for batches that a model takes alike.
    """

    batch: Any
    leaves: Mapping[Path, Any]
    modalities: Modalities
    N: int
    modality: dict[Path, int]
    presence: dict[Path, int | None]
    there: Tensor | None
    complete: bool
    stand_ins: dict[Path, StandIn]
    form: Hashable
    found: Found

    def __post_init__(self) -> None:
        listed = [path[:-1] for path in self.leaves if len(path) > 1 and isinstance(path[-1], int)]
        # Coalitions can't share a batch that holds a list of its samples.
        self.joint = not listed or self.N not in Counter(listed).values()

    def rows(self, path: Path) -> Any:
        """An input with its samples first: one sample of a list of tensors, all of a tensor or of a list of str."""
        leaf = self.leaves[path]
        if path[:-1] in self.found.lists:
            return leaf.unsqueeze(0)
        return leaf.movedim(self.found.axes[path], 0) if path in self.found.axes else leaf

    @property
    def device(self) -> torch.device:
        """Where its inputs lie."""
        held = (self.leaves[path] for path in self.modality if path not in self.found.texts)
        return next((x.device for x in held), torch.device("cpu"))

    def having(self, m: int) -> Tensor | None:
        """``(N,)`` bool: which samples have modality m; None where all have it."""
        return None if self.there is None else self.there[:, m]

    def hide(self, masks: tuple[int, ...], write: bool = True) -> Any:
        """A copy with k·N samples, what each coalition does not show hidden in it, for a model that may write."""
        M = range(len(self.modalities))
        flags = tuple(tuple(bool(mask >> m & 1) for m in M) for mask in masks)
        if self.found.whole and len(masks) == 1:
            return rebuilt(self.batch, partial(self._hidden, flags[0], write))
        return hide(self.batch, self.N, flags, self.there, self.modality, self.stand_ins, self.presence, write)

    def _hidden(self, flags: tuple[bool, ...], write: bool, path: Path, leaf: Any) -> Any:
        """A leaf under one coalition, whatever its form."""
        if path in self.presence or path not in self.modality:
            return hide(
                leaf,
                self.N,
                (flags,),
                self.there,
                {},
                {},
                {(): self.presence[path]} if path in self.presence else {},
                write,
            )
        m, stand_in = self.modality[path], self.stand_ins[path]
        there = self.having(m)
        if flags[m] and there is None:
            return leaf.clone() if isinstance(leaf, Tensor) and write else leaf
        shown = torch.zeros(self.N, dtype=torch.bool) if not flags[m] or there is None else there
        if path in self.found.texts:
            return [
                text if one else other
                for text, other, one in zip(leaf, stand_in.texts(leaf), shown.tolist(), strict=True)
            ]
        if path[:-1] in self.found.lists:
            return leaf.clone() if bool(shown[path[-1]]) else stand_in.of(leaf.unsqueeze(0))[0].expand_as(leaf).clone()
        if path[:-1] in self.found.packed:
            return choose_packed(at(self.batch, path[:-1]), shown.to(leaf.device), stand_in.of(leaf))
        axis = self.found.axes.get(path, 0)
        rows = leaf.movedim(axis, 0)
        return choose(shown.to(leaf.device).unsqueeze(0), rows, stand_in.of(rows)).movedim(0, axis).contiguous()

    def stand_ins_told(self, mask: int) -> str:
        """What stands in for what this coalition hides, and the line that changes it."""
        hidden = {path: m for path, m in self.modality.items() if not mask >> m & 1}
        told = ", ".join(f"{'/'.join(map(str, path))} is {self.stand_ins[path].told}" for path in hidden)
        if not hidden:
            return "some samples lack a modality"
        path, m = next(((p, m) for p, m in hidden.items() if is_lengths(p)), next(iter(hidden.items())))
        other = "'keep'" if is_lengths(path) else "..."
        return (
            f"{told}; show it another, baseline={{{self.modalities.names[m]!r}: {{{path[-1]!r}: {other}}}}}, a tensor, "
            "a function of the input such as mm_metrics.ablation.keeping(ids), or 'keep'"
        )


def form_of(batch: Any, leaves: Mapping[Path, Any]) -> Hashable:
    """Equal for batches of one structure: types, paths, numbers of axes."""
    return type(batch), *((path, x.dtype, x.ndim) for path, x in leaves.items() if isinstance(x, Tensor))


def look(batch: Any, inputs: Inputs, modalities: Modalities, baselines: Baselines, given: Any, checks: Checks) -> View:
    """Read a batch; ``given`` is a presence that takes the place of the batch's own. Raises as `Inputs` does."""
    leaves = flatten(batch)
    found = inputs.find(batch, leaves)
    paths, N, names = found.paths, found.N, modalities.names
    modality = {path: m for m, name in enumerate(names) for path in paths[name]}
    tensors = [leaves[path] for path in modality if path not in found.texts]
    device = tensors[0].device if tensors else torch.device("cpu")
    entry = inputs.presence_paths(batch, leaves)
    replaces = given is not None and bool(entry)
    if given is None and entry:
        table = next(iter(entry.values())) is None
        given = leaves[next(iter(entry))] if table else {name: leaves[path] for path, name in entry.items()}
    told = modalities.presence(given, N, device)
    there = None if told is None else told.bool()
    if told is not None and there is not None and told.dtype != torch.bool and not checks(torch.eq(told, there).all()):
        raise ValueError("presence holds values other than 0 and 1: it says which modalities a sample has")
    absent = tuple(not paths[name] for name in names)
    if there is not None and any(absent):
        there = there & ~on_device(absent, device)
    if there is not None and there.device.type == "cpu" and bool(there.all()):
        there = None  # elsewhere to ask would be to wait
    own = {path: None if name is None else names.index(name) for path, name in entry.items()}
    view = View(
        batch,
        leaves,
        modalities,
        N,
        modality,
        own,
        there,
        there is None and not replaces,
        {},
        form_of(batch, leaves),
        found,
    )
    for m, name in enumerate(names):
        for path, key in paths[name].items():
            apart = found.whole and path[:-1] in found.lists | found.packed
            if apart and (spec := baselines.spec(name, key, path)) in ("mean", "shuffle"):
                raise ValueError(
                    f"baseline={spec!r} can't be made of {key!r}, a list or a packed sequence: give a number"
                )
            view.stand_ins[path] = baselines.stand_in(name, key, path, view.rows(path), view.having(m))
    return view
