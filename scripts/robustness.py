"""A score against the strength of noise in each modality: the table that ``ablate.py --noise`` prints."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from tqdm import tqdm

from mm_metrics import ModalityConfusionMatrix
from mm_metrics.ablation.inputs import Inputs
from mm_metrics.ablation.noise import corrupt
from mm_metrics.contributions import relative_robustness
from mm_metrics.scores import f1

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)  # in standard deviations of the input; of words, the share exchanged


@torch.no_grad()
def noise_table(
    model: Callable[[Any], torch.Tensor], loader: Iterable, modalities: Mapping[str, Any], target: str, task: dict
) -> str:
    """A line a modality: macro F1 at each strength, and the area under it; ``task`` is a metric's arguments."""
    inputs = Inputs(modalities)
    lines = [
        "",
        "macro F1 at noise " + "".join(f"{strength:7.2f}" for strength in STRENGTHS) + "   relative robustness",
    ]
    for modality in tqdm(modalities, desc="corrupting", leave=False):
        metrics = [ModalityConfusionMatrix([modality], **task) for _ in STRENGTHS]
        for seed, batch in enumerate(loader):
            for metric, strength in zip(metrics, STRENGTHS, strict=True):
                metric.update(model(corrupt(batch, inputs, modality, strength, seed)), batch[target])
        scores = torch.stack([f1(metric.compute()[0], average="macro") for metric in metrics])  # (strengths,)
        area = relative_robustness(scores, torch.tensor(STRENGTHS))
        lines.append(f"{modality:18}" + "".join(f"{score:7.2f}" for score in scores.tolist()) + f"{area.item():22.2f}")
    return "\n".join([*lines, ""])
