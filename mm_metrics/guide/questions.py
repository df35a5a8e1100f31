"""What people ask.

**My model's forward takes other arguments than the batch.** Give the call: `predict=lambda model, batch:
model(batch["ids"], batch["pixels"])`. It returns logits, or a mapping of heads, `{"all": …, "text": …}`.

**Which F1 is it?** Macro: the mean over classes of each class's F1, leaving out classes that are neither in the targets
nor predicted; in binary tasks the positive class's. Another: `card.score("f1_weighted")` or `card.score("f1",
average="micro")`, `ModalityF1Score(modalities, num_classes=5, average="micro")`, or a function of `mm_metrics.scores`
over `metric.compute()`.

>>> import torch
>>> from mm_metrics import ModalityF1Score, scores
>>> metric = ModalityF1Score(("image",), num_classes=3)
>>> metric.update(torch.tensor([0, 0, 2, 1]), torch.tensor([0, 0, 1, 1]))
>>> confusion = torch.tensor([[2, 0, 0], [0, 1, 1], [0, 0, 0]])  # rows targets, columns predictions
>>> round(float(metric.compute()["all/f1"]), 3)
0.556
>>> [round(float(scores.f1(confusion, average=name)), 3) for name in ("macro", "micro", "weighted")]
[0.556, 0.75, 0.833]

**Some samples lack a modality.** `presence="presence"` names the batch's `(N, M)` bool entry; what is not there is
hidden always, and counts in no slice of its own.

**My audio events carry no flag, but I know where they are.** `slices=` names an `(N, M)` bool entry that says where a
sample counts, apart from what the model is shown.

**Is it weak where the sound is soft, or the text long?** No column is needed: `by={"audio.loudness": "auto", "text.length":
"auto", "missing": "auto"}` cuts `length`, `brightness`, `sharpness`, `loudness`, `snr` and `duration` of the inputs at the
thirds of the first validation, and keeps the cut points in checkpoints and in the card (`card.info["cuts"]`): slices
`audio.loudness/low`, `middle`, `high`, and `other` where a sample lacks the modality; `missing/1` lack one. That first
validation waits for its end to be counted, up to `max_bytes` of answers; beyond, slices begin with the second. What each
property is says `mm_metrics.properties`; `snr` is an estimate from the signal alone.

**It found no encoders**, or other ones than I know: `encoders={"image": "backbone.vision"}` names them; None runs the
whole model for each coalition.

**What does the drop depend on?** On what stands in for the hidden input: `mm_metrics.guide.baselines`.

**What does a drop mean?** What *this trained model* loses when an input is hidden at test time. Nothing is retrained: a
model trained without that modality may make up for it from the others, and two modalities that say the same can each have
a drop of nothing. That is why the Shapley value stands beside it: a modality's share over all orders of adding them; the
shares sum to what all of them give over none, and modalities that say the same share theirs (`mm_metrics.contributions`).

**Can I trust numbers from half a forward pass?** `mm_metrics.ablation` says what is proved, and what is left to faith;
`encoders=None` runs the whole model for each coalition, and `ablation.plan` tells what is kept and where.

**Is a difference of 0.4 points real?** `mm_metrics.guide.intervals`.

**I log in my own LightningModule.** `self.log_dict(collection.compute())`: the score classes give plain scalars.

**I have no Trainer.** `mm_metrics.logging.log_card(writer, card, "val", step)`; on several processes
`for batch, index in numbered(loader)` of `mm_metrics.sampler`.

**Two runs, which is better?** `card_a - card_b`: paired differences with intervals, where both saw the same samples.
"""
