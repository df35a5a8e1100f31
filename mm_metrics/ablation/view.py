"""One batch as the engine sees it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.baselines import Baselines, StandIn, is_lengths
from mm_metrics.ablation.batch import Inputs, Path, flatten
from mm_metrics.ablation.hide import hide
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

    def having(self, m: int) -> Tensor | None:
        """``(N,)`` bool: which samples have modality m; None where all have it."""
        return None if self.there is None else self.there[:, m]

    def hide(self, masks: tuple[int, ...], write: bool = True) -> Any:
        """A copy with k·N samples, what each coalition does not show hidden in it, for a model that may write."""
        M = range(len(self.modalities))
        flags = tuple(tuple(bool(mask >> m & 1) for m in M) for mask in masks)
        return hide(self.batch, self.N, flags, self.there, self.modality, self.stand_ins, self.presence, write)

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
    paths = inputs.paths(batch, leaves)
    modality = {path: m for m, name in enumerate(modalities) for path in paths[name]}
    N = inputs.size(leaves, modality)
    device = leaves[next(iter(modality))].device
    entry = inputs.presence_paths(batch, leaves)
    names = modalities.names
    replaces = given is not None and bool(entry)
    if given is None and entry:
        given = leaves[entry[0]] if len(entry[0]) == 1 else {path[-1]: leaves[path] for path in entry}
    told = modalities.presence(given, N, device)
    there = None if told is None else told.bool()
    if told is not None and there is not None and told.dtype != torch.bool and not checks(torch.eq(told, there).all()):
        raise ValueError("presence holds values other than 0 and 1: it says which modalities a sample has")
    if there is not None and there.device.type == "cpu" and bool(there.all()):
        there = None  # elsewhere to ask would be to wait
    stand_ins = {
        path: baselines.stand_in(name, key, path, leaves[path], None if there is None else there[:, m])
        for m, name in enumerate(names)
        for path, key in paths[name].items()
    }
    own = {path: None if len(path) == 1 else names.index(path[-1]) for path in entry}
    complete = there is None and not replaces
    return View(batch, leaves, modalities, N, modality, own, there, complete, stand_ins, form_of(batch, leaves))
