"""One batch as the engine sees it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mm_metrics.ablation.baselines import Baselines, StandIn
from mm_metrics.ablation.batch import Inputs, Path, flatten, tensors
from mm_metrics.ablation.replay import hide
from mm_metrics.modalities import Modalities


@dataclass(eq=False)
class View:
    """A batch of N samples: where its inputs lie, which are there, and what stands in for each.

    ``there`` ``(N, M)`` bool is the presence, ``everywhere`` that it is all True; ``complete`` says that it is what the
    batch itself tells, too; ``form`` is equal for batches that a model takes alike.
    """

    batch: Any
    modalities: Modalities
    N: int
    modality: dict[Path, int]
    presence: dict[Path, int | None]
    there: Tensor
    everywhere: bool
    complete: bool
    stand_ins: dict[Path, StandIn]
    form: Hashable

    def __post_init__(self) -> None:
        self.leaves = flatten(self.batch)

    def shown(self, masks: tuple[int, ...]) -> Tensor:
        """``(k, N, M)`` bool: what each coalition shows of what each sample has."""
        table = torch.from_numpy(self.modalities.table(masks)).to(self.there.device)
        return table[:, None] & self.there

    def having(self, m: int) -> Tensor | None:
        """``(N,)`` bool: which samples have modality m; None where all have it."""
        return None if self.everywhere else self.there[:, m]

    def hide(self, masks: tuple[int, ...], needed: set[Path] | None = None) -> Any:
        """A copy with k·N samples, what each coalition does not show hidden in it."""
        return hide(self.batch, self.N, self.shown(masks), self.modality, self.stand_ins, self.presence, needed)


def form_of(batch: Any) -> Hashable:
    """Equal for batches of one structure: types, paths, numbers of axes."""
    return type(batch), *((path, x.dtype, x.ndim) for path, x in tensors(batch).items())


def look(batch: Any, inputs: Inputs, modalities: Modalities, baselines: Baselines, given: Any) -> View:
    """Read a batch; ``given`` is a presence that takes the place of the batch's own. Raises as `Inputs` does."""
    paths = inputs.paths(batch)
    modality = {path: m for m, name in enumerate(modalities) for path in paths[name]}
    N = inputs.size(batch, modality)
    found = tensors(batch)
    device = found[next(iter(modality))].device
    entry = inputs.presence_paths(batch)
    names = modalities.names
    replaces = given is not None and bool(entry)
    if given is None and entry:
        given = found[entry[0]] if len(entry[0]) == 1 else {path[-1]: found[path] for path in entry}
    told = modalities.presence(given, N, device)
    there = torch.ones(N, len(names), dtype=torch.bool, device=device) if told is None else told.bool()
    if told is not None and told.dtype != torch.bool and not torch.equal(told, there.to(told.dtype)):
        raise ValueError("presence holds values other than 0 and 1: it says which modalities a sample has")
    stand_ins = {
        path: baselines.stand_in(name, key, path, found[path], there[:, names.index(name)])
        for name, keys in paths.items()
        for path, key in keys.items()
    }
    own = {path: None if len(path) == 1 else names.index(path[-1]) for path in entry}
    everywhere = told is None or bool(there.all())
    complete = everywhere and not replaces
    return View(batch, modalities, N, modality, own, there, everywhere, complete, stand_ins, form_of(batch))
