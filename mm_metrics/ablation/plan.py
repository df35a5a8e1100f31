"""What is known of a model once it was followed: the calls that are kept, and how to find them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch.nn import Module

from mm_metrics.ablation.batch import Path

Axes = Mapping[Path, int | None]


@dataclass(frozen=True)
class Step:
    """One call on the way from an encoder to the outermost module.

    ``own`` maps the call's arguments to the batch's tensors, None where one of them was made on the way; ``constants``
    are its flags.
    """

    module: Module
    nth: int
    own: Mapping[Path, Path] | None
    constants: Mapping[Path, Any]


@dataclass(eq=False)
class Site:
    """One call of one encoder: its ``chain`` of calls from itself outwards, and what is known of its output.

    ``axes`` gives for each tensor of the output the axis that holds the samples; ``order`` counts the module's calls
    in a replay; ``reaches`` is False where only other encoders read the output; ``written``: somebody writes into it.
    """

    modality: int
    chain: tuple[Step, ...]
    axes: Axes
    order: int
    reaches: bool = True
    written: bool = False

    @cached_property
    def module(self) -> Module:
        """The encoder."""
        return self.chain[0].module


@dataclass(eq=False)
class Plan:
    """What a replay must know: the encoders' calls ``sites``.

    ``roots`` are the outermost calls, ``interest`` the ids of all modules to watch, ``calls`` how often a replay calls
    each encoder. ``looped``: the answer hangs on values that left torch, so that coalitions can't share one batch;
    ``writes``: the model writes into its inputs; ``share``: of the model's work, what the encoders do; ``ends``: a pass
    may be ended once the encoders ran, which a step that swaps weights and swaps them back would not survive.
    """

    sites: list[Site]
    roots: list[Site]
    interest: set[int]
    calls: Mapping[int, int]
    looped: bool
    writes: bool
    share: float
    ends: bool = True


@dataclass(eq=False)
class Form:
    """What is known of batches of one form, such as the types, paths and numbers of axes of their tensors.

    ``split`` answers them in parts, None where inputs are hidden and the whole model runs, ``why`` says why;
    ``decided``: both ways were compared on a batch that tells them apart, after ``tried`` batches, the ``largest`` of
    so many samples; ``due``: they are compared again on the next one. ``single``: seen with one sample only, which
    shows no axis of samples. ``failed`` counts the batches that could not be answered in parts.
    """

    split: Any = None
    why: str = ""
    decided: bool = False
    tried: int = 0
    largest: int = 0
    due: bool = False
    single: bool = False
    failed: int = 0
    writes: bool = True
    roots: list[Site] = field(default_factory=list)
