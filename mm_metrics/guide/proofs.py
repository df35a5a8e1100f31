"""What is proved of an ablation, and what is not.

An ablation of M modalities asks for the logits under K coalitions, up to 2**M. Running the model K times answers that
without any doubt. `ModalityAblation` gives the same logits for less: it keeps what each encoder gave for its modality
shown and hidden, and replays only what lies behind the encoders. When is that the same?

1. **Seen, not assumed.** On the first batch of each form (keys, dtypes, axes) a few rows run through the model while
   every operation is watched: which module's output depends on which modality. A module is kept only where its output
   depends on one modality alone.
2. **Compared, not believed.** On the same batch some samples are answered both ways, by parts and by running the whole
   model with hidden inputs, for all modalities, none, and all but each one. Only where the logits of each class agree, up
   to rounding and by how much that class varies, is the model run in parts from then on.
3. **Compared again.** At the first batch of every validation (`verify=1`; `verify=5`: of every fifth; `verify=0`: never
   again), and in a loop of one's own whenever the weights behind the encoders or the model's attributes have changed.
   Where the parts no longer give what the whole gives, the model is followed anew.
4. **Watched, always.** If a batch takes another way through the model (a call that was not there, another number of
   calls) the parts give up, say so, and the whole model runs. Where the model writes into a kept output each coalition
   gets a copy.

What this does not prove: a model whose branches depend on *values* in a way that no compared sample has shown, and that
makes the same calls either way, could differ on a batch between two comparisons. `encoders=None` runs the whole model
always; it costs K forwards, and on data that you doubt it is the check. `ablation.plan` tells what is kept of each
modality and where, or why nothing is.

>>> import torch
>>> from mm_metrics import ModalityAblation
>>> class Late(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.see, self.hear = torch.nn.Linear(4, 3), torch.nn.Linear(5, 3)
...     def forward(self, batch):
...         return self.see(batch["image"]) + self.hear(batch["audio"])
>>> model, batch = Late(), {"image": torch.randn(16, 4), "audio": torch.randn(16, 5)}
>>> inputs = {"image": "image", "audio": "audio"}
>>> kept, whole = ModalityAblation(model, inputs), ModalityAblation(model, inputs, encoders=None)
>>> all(torch.allclose(kept(batch), whole(batch), atol=1e-6) for _ in range(2))
True
>>> print(kept.plan)
image: kept at see
audio: kept at hear

**What a drop means.** It is what *this trained model* loses when an input is hidden at test time. Nothing is retrained:
a model trained without that modality may make up for it from the others, and two modalities that say the same thing can
each have a drop of nothing. That is why the Shapley value stands beside the drop: it is the modality's share over all
orders of adding them, the shares sum to what all of them give over none, and redundant modalities share theirs
(`mm_metrics.contributions`).

**What is not touched.** The model runs in evaluation mode, module by module as it was before; weights, buffers, random
streams, gradients, the batch and logged values are bit for bit those of a run without the ablation.
"""
