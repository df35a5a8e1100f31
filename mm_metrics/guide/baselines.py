"""What stands in for a hidden modality, and which one to take.

To hide a modality from a model one has to show it something else. `baseline=` of `ModalityAblation` and
`ModalityMonitor` says what; the answer depends on it, so the scorecard keeps its name.

| `baseline=` | a hidden sample shows | good for |
|---|---|---|
| `"zero"` (the default) | 0 in floats, 0 in integers, an open mask | normalised inputs, where 0 is the mean; models trained with modality dropout |
| `"mean"` | the mean over the training batches (before there are any, of the validation batch) | inputs whose 0 is far from the data, such as log-mel spectrograms |
| `"shuffle"` | another sample's input of the same batch | models that break on anything unlike data (Gat et al. 2021); it keeps the modality's own statistics |
| `"presence"` | the input as it is; the batch's `presence` entry says that it is not there | models that read a presence mask |
| `"keep"` | the input as it is | lengths, positions and ids that belong to all modalities |
| `mm_metrics.ablation.baselines.keeping(101, 102)` | the special ids where they are, 0 elsewhere | tokens of models that pool at `[CLS]` or at the end of text |
| a number | that number | silence of about −1.5 in Whisper's features |
| a tensor of one sample's shape | that tensor | a blank picture, an empty prompt's token ids |
| a function of the input `(N, ...)` | what it gives, one row or N rows | lengths that vary |
| a mapping by modality or key | each its own | most real models |

Token ids are integers, and id 0 may be a word: the ablation says so once, and names the line to write. Masks (bool, or
a key that ends in `mask`) are shown wholly open, because a wholly closed one makes a softmax NaN.

>>> import torch
>>> from mm_metrics import ModalityAblation
>>> class Sum(torch.nn.Module):
...     def forward(self, batch):
...         return batch["image"] + batch["audio"]
>>> batch = {"image": torch.tensor([[1.0, 2.0]]), "audio": torch.tensor([[10.0, 20.0]])}
>>> asked = {"inputs": {"image": "image", "audio": "audio"}, "encoders": None, "coalitions": ["image"]}
>>> ModalityAblation(Sum(), **asked)(batch)[0].tolist()
[[1.0, 2.0]]
>>> ModalityAblation(Sum(), **asked, baseline={"audio": -1.5})(batch)[0].tolist()
[[-0.5, 0.5]]

**Which one?** Take the one that the model knows from its training: with modality dropout what the dropout showed; with
missing data what stands for it. Otherwise a model that never saw the stand-in answers a question it was not asked, and
the drop says as much about the stand-in as about the modality: compare two baselines, and believe what both say.
Missing data and ablation are one thing here: the model is shown a modality where the sample has it *and* the coalition
holds it, so name `presence=` where some samples lack some.
"""
