"""The predictions of any model under every coalition of its modalities."""

from mm_metrics.ablation.ablate import ModalityAblation
from mm_metrics.ablation.baselines import keeping

__all__ = ["ModalityAblation", "keeping"]
