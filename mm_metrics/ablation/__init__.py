"""The predictions of any model under every coalition of its modalities."""

from mm_metrics.ablation.ablate import ModalityAblation

__all__ = ["ModalityAblation"]
