"""Lightning callbacks: `ModalityMonitor` counts and ablates the validation, `ModalityDynamics` watches the training."""

from mm_metrics.callbacks.monitor import BadVerdictError, ModalityMonitor

__all__ = ["ModalityMonitor", "BadVerdictError"]
