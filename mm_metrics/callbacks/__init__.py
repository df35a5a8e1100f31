"""Lightning callbacks: `ModalityMonitor` counts and ablates the validation, `ModalityDynamics` watches the training."""

from mm_metrics.callbacks.dynamics import ModalityDynamics
from mm_metrics.callbacks.monitor import BadVerdictError, ModalityMonitor

__all__ = ["ModalityMonitor", "ModalityDynamics", "BadVerdictError"]
