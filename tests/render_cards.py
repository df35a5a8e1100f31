"""Scorecards that the rendering's tests draw: made by counting, as users make them."""

from __future__ import annotations

import itertools

import torch

from mm_metrics import CoalitionConfusionMatrix, Scorecard

HOSTILE = "<script>alert(1)</script>&\"'{{7*7}}$x^2$]]>"


def card(
    modalities: tuple[str, ...] = ("text", "image", "audio"),
    classes: int = 4,
    samples: int = 400,
    *,
    task: str = "multiclass",
    bootstrap: int = 100,
    coalitions: object = "all",
    class_names: list[str] | None = None,
    seed: int = 0,
    skill: float = 0.9,
    absent: tuple[str, ...] = (),
    info: dict | None = None,
    scores: tuple[str, ...] = (),
) -> Scorecard:
    """Each modality gives less than the one before it; what is not in a coalition is guessed.

    Beyond a confusion `scores` are of binary and multilabel tasks, whose answers are probabilities then.
    """
    random = torch.Generator().manual_seed(seed)
    arguments = {"num_labels": classes} if task == "multilabel" else {"num_classes": 2 if task == "binary" else classes}
    metric = CoalitionConfusionMatrix(
        modalities,
        task=task,
        coalitions=coalitions,
        bootstrap=bootstrap,
        class_names=class_names,
        scores=scores,
        **arguments,
    )
    shape = (samples, classes) if task == "multilabel" else (samples,)
    high = 2 if task in ("binary", "multilabel") else classes
    target = torch.randint(high, shape, generator=random)
    luck = torch.rand(shape, generator=random)
    guess = torch.randint(high, shape, generator=random)
    rows = []
    for shown in metric.modalities.table(metric.layout.masks or ()):
        known = skill * sum(0.5**m for m, is_shown in enumerate(shown) if is_shown) / 2 + 0.05
        rows.append(torch.where(luck < known, target, guess))
    presence = torch.rand(samples, len(modalities), generator=random) < 0.7
    for name in absent:
        presence[:, modalities.index(name)] = False
    answers = torch.stack(rows)
    metric.update(0.1 + 0.8 * answers if scores else answers, target, presence, index=torch.arange(samples))
    return metric.scorecard(**(info or {}))


def paradox(samples: int = 5000) -> Scorecard:
    """98% accurate, and misses 88% of the audio events."""
    random = torch.Generator().manual_seed(1)
    metric = CoalitionConfusionMatrix(
        ("text", "image", "audio"), task="binary", bootstrap=200, class_names=["no event", "event"]
    )
    source = torch.full((samples,), -1)
    source[:450] = 0
    source[450:550] = 1
    source[-150:] = 2
    target = (source >= 0).long()
    slices = torch.ones(samples, 3, dtype=torch.bool)
    for m in range(3):
        slices[target == 1, m] = source[target == 1] == m
    reach = torch.tensor([0.96, 0.75, 0.12])
    luck = torch.rand(samples, generator=random)
    rows = []
    for shown in itertools.product((False, True), repeat=3):
        seen = torch.tensor(shown[::-1])
        found = (source >= 0) & seen[source.clamp(min=0)] & (luck < reach[source.clamp(min=0)])
        rows.append(found.long())
    metric.update(torch.stack(rows), target, slices, index=torch.arange(samples))
    return metric.scorecard(model="ResNet-18 + BERT", data="paradox", baseline="zero", seed=0)
