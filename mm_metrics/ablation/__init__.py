"""The predictions of any model under every coalition of its modalities.

>>> import torch
>>> model = torch.nn.ModuleDict({"text": torch.nn.Linear(4, 2), "image": torch.nn.Linear(5, 2)})
>>> sum_of_both = lambda model, batch: model["text"](batch["text"]) + model["image"](batch["image"])
>>> ablation = ModalityAblation(model, {"text": "text", "image": "image"}, predict=sum_of_both)
>>> ablation({"text": torch.randn(8, 4), "image": torch.randn(8, 5)}).shape  # K, N, C
torch.Size([4, 8, 2])
>>> print(ablation.plan)
text: kept at text
image: kept at image

**What it gives.** For each of K coalitions the logits ``(N, C)`` that the model gives in evaluation mode when every
input that the coalition does not show, or that a sample has not, is exchanged for its stand-in. That is the definition;
running the model K times on hidden inputs is the reference, and is what is done wherever the cheaper way is not proved.

**The cheaper way.** A pass over a few rows follows which tensor hangs on which input, and finds the largest modules
that hang on one modality alone: the encoders. Their outputs are kept, shown and hidden, and only what lies behind them
runs for each coalition. `ModalityAblation.plan` says what is kept of which modality and where, or why nothing is.

**What is proved, and when**

- *On the first batch*, and on the first of every ``verify``-th validation that `ModalityAblation.begin` announces, some
  samples are answered both ways, with all, none, and all but one of the modalities; all samples and coalitions where
  those do not agree. Each class is measured by how much its own logits vary (`verify.agree`). Parts that fail are
  dropped and said, and what is returned is the whole model's. It is done again for a batch larger than any before; and
  in loops that call no `begin`, where weights behind the encoders or the model's own flags and numbers changed.
- *On every batch* what was kept is used only for the very tensors it was made from, if nobody wrote into them since,
  under the very weights and precision. Where coalitions share larger batches, the coalition of all is replayed with
  them, and must give the model's own answer; else the whole model runs. Every input is hidden in every replay, whether
  or not the model was seen to read it. An exception in the parts is said, and the whole model runs.
- *The coalition of all* is the model's own forward pass, or was compared with it.
- *No trace.* Modes, buffers, attributes, containers, generators, metrics and random streams of the model, of what hangs
  on it and of modules outside that it calls are as before, and the batch is never written to.

**What is left to faith**

- That a model which is the same on the first batch is the same until the next one that is compared, where it changes by
  something other than weights, batch size or an attribute, and not for the coalition of all.
- A write through ``.data`` that spares the values that are looked at: 16 of each of up to 256 weights.
- On an accelerator, between two validations' first batches: a large buffer, or one written through ``.data``, that a
  forward did not change before; what a model keeps in C++ or in closures is never seen,
  and an iterator that it draws from goes on.
- In a tuple, that its first entry holds the logits, where no other entry could; in a mapping, that ``logits`` does.
- That rows are samples: a model that lets one sample's row reach another's is compared on whole batches, no others.
- What stands in for a hidden input says little where the model never met the like: see ``baseline``.
"""

from mm_metrics.ablation.ablate import ModalityAblation
from mm_metrics.ablation.baselines import keeping

__all__ = ["ModalityAblation", "keeping"]
