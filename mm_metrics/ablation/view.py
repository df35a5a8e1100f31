"""One batch as the engine sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.baselines import Baselines, StandIn, is_lengths
from mm_metrics.ablation.batch import Path, at, flatten, rebuilt
from mm_metrics.ablation.hide import choose, choose_packed, on_device
from mm_metrics.ablation.inputs import Found, Inputs
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

    def having(self, m: int) -> Tensor | None:
        """``(N,)`` bool: which samples have modality m; None where all have it."""
        return None if self.there is None else self.there[:, m]

    def hide(self, masks: tuple[int, ...], write: bool = True) -> Any:
        """A copy with k·N samples, what each of k coalitions does not show hidden in it.

        Tensors that nobody is to ``write`` to may be the batch's own.
        """
        k, N, M, there = len(masks), self.N, range(len(self.modalities)), self.there
        odd = bool(self.found.whole)  # then k is 1

        def change(path: Path, leaf: Any) -> Any:
            if path in self.presence:
                flags = on_device(tuple(tuple(bool(mask >> m & 1) for m in M) for mask in masks), leaf.device)
                table = flags.unsqueeze(1).expand(k, N, len(M)) if there is None else flags.unsqueeze(1) & there
                m = self.presence[path]
                return (table if m is None else table[:, :, m]).flatten(0, 1).to(leaf.dtype)
            m = self.modality.get(path)
            if odd and m is not None:
                return self._odd(path, leaf, m, bool(masks[0] >> m & 1), write)
            if not isinstance(leaf, Tensor):
                return leaf * k if isinstance(leaf, list) and len(leaf) == N else leaf
            if not leaf.ndim or leaf.shape[0] != N:
                return leaf.clone() if write else leaf
            if m is None:
                return torch.cat([leaf] * k) if write or k > 1 else leaf
            hidden = self.stand_ins[path].of(leaf)
            shown = leaf if there is None else choose(there[:, m], leaf, hidden)
            if k == 1 and masks[0] >> m & 1 and not (write and shown is leaf):
                return shown
            hidden = hidden.expand_as(leaf)
            return torch.cat([shown if mask >> m & 1 else hidden for mask in masks])

        return rebuilt(self.batch, change)

    def _odd(self, path: Path, leaf: Any, m: int, shown: bool, write: bool) -> Any:
        """An input of whatever form, shown or hidden."""
        stand_in, there = self.stand_ins[path], self.having(m)
        if shown and there is None:
            return leaf.clone() if isinstance(leaf, Tensor) and write else leaf
        mine = torch.zeros(self.N, dtype=torch.bool) if not shown or there is None else there
        if path in self.found.texts:
            texts = zip(leaf, stand_in.texts(leaf), mine.tolist(), strict=True)
            return [text if one else other for text, other, one in texts]
        if path[:-1] in self.found.lists:
            return leaf.clone() if bool(mine[path[-1]]) else stand_in.of(leaf.unsqueeze(0))[0].expand_as(leaf).clone()
        if path[:-1] in self.found.packed:
            return choose_packed(at(self.batch, path[:-1]), mine.to(leaf.device), stand_in.of(leaf))
        axis = self.found.axes.get(path, 0)
        rows = leaf.movedim(axis, 0)
        return choose(mine.to(leaf.device), rows, stand_in.of(rows)).movedim(0, axis).contiguous()

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


def look(batch: Any, inputs: Inputs, modalities: Modalities, baselines: Baselines, given: Any) -> View:
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
    if told is not None and there is not None:
        on_cpu = told.device.type == "cpu"  # elsewhere to ask would be to wait
        if on_cpu and not torch.equal(there.to(told.dtype), told):
            raise ValueError("presence holds values other than 0 and 1: it says which modalities a sample has")
        absent = tuple(not paths[name] for name in names)
        if any(absent):
            there = there & ~on_device(absent, device)
        if on_cpu and bool(there.all()):
            there = None
    own = {path: None if name is None else names.index(name) for path, name in entry.items()}
    complete, form = there is None and not replaces, form_of(batch, leaves)
    view = View(batch, leaves, modalities, N, modality, own, there, complete, {}, form, found)
    for m, name in enumerate(names):
        for path, key in paths[name].items():
            apart = found.whole and path[:-1] in found.lists | found.packed
            if apart and (spec := baselines.spec(name, key, path)) in ("mean", "shuffle"):
                raise ValueError(
                    f"baseline={spec!r} can't be made of {key!r}, a list or a packed sequence: give a number"
                )
            view.stand_ins[path] = baselines.stand_in(name, key, path, view.rows(path), view.having(m))
    return view
