"""Loops without Lightning's Trainer.

A loop needs three things: `ModalityAblation` gives the logits of every coalition, a `CoalitionConfusionMatrix` counts them,
and `mm_metrics.logging.log_card` takes the scorecard where the other numbers go. Below `model` maps a batch to logits.

>>> import torch
>>> from torch.utils.data import DataLoader
>>> from mm_metrics import CoalitionConfusionMatrix, ModalityAblation
>>> from mm_metrics.sampler import numbered
>>> class Model(torch.nn.Module):
...     def __init__(self):
...         super().__init__()
...         self.text, self.audio, self.head = torch.nn.Linear(8, 4), torch.nn.Linear(8, 4), torch.nn.Linear(8, 3)
...     def forward(self, batch):
...         return self.head(torch.cat([self.text(batch["tokens"]), self.audio(batch["waveform"])], 1))
>>> calls = [{"tokens": torch.randn(8), "waveform": torch.randn(8), "label": i % 3} for i in range(20)]
>>> modalities = {"text": "tokens", "audio": "waveform"}
>>> def validate(model, loader, device="cpu"):
...     ablation = ModalityAblation(model, modalities)
...     metric = CoalitionConfusionMatrix(tuple(modalities), num_classes=3, bootstrap=200).to(device)
...     for batch, index in numbered(loader, device):
...         metric.update(ablation(batch), batch["label"], index=index)
...     return metric.scorecard()  # on every rank, of the samples of all

**Plain PyTorch**, on one process or many. `numbered` gives each batch with its samples' numbers in the whole data set, and
−1 for the copies that a `DistributedSampler` adds so that all ranks get equally many: those count nowhere.

>>> validate(Model(), DataLoader(calls, batch_size=8)).samples
20

**Fabric.** Set up the model and the loaders as ever; the ablation takes the module that `setup` gives.

>>> from lightning.fabric import Fabric
>>> fabric = Fabric(accelerator="cpu", devices=1)
>>> model, loader = fabric.setup(Model()), fabric.setup_dataloaders(DataLoader(calls, batch_size=8))
>>> validate(model, loader, fabric.device).samples
20

**Accelerate.** The same with what `prepare` gives; an `Accelerator` is also something that `log_card` logs to.

>>> from accelerate import Accelerator
>>> accelerator = Accelerator(cpu=True)
>>> model, loader = accelerator.prepare(Model(), DataLoader(calls, batch_size=8))
>>> validate(model, loader, accelerator.device).samples
20

**In a training loop** validate in between as often as you like: the ablation answers as in evaluation mode, leaves the
module's mode, weights and random streams as they were, and keeps nothing that a training step would need.
"""
