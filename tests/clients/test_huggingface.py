"""Towers of transformers in a LightningModule, with their flat mapping of inputs: found, and ablated as by hand."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import default_collate

from mm_metrics.callbacks import ModalityMonitor
from tests.toys import loader, seeded, trainer

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

from models.huggingface import WIDTH, Towers  # noqa: E402  (it imports transformers)

SPEECH = {
    "wav2vec2": {},
    "whisper": {
        "speech": transformers.WhisperConfig(
            d_model=16,
            encoder_layers=2,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=32,
            num_mel_bins=8,
            max_source_positions=20,
            vocab_size=10,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=1,
            begin_suppress_tokens=None,
            suppress_tokens=None,
        )
    },
    "hubert": {
        "speech": transformers.HubertConfig(
            **WIDTH,
            **{
                "conv_dim": (16, 16),
                "conv_kernel": (32, 8),
                "conv_stride": (16, 4),
                "num_conv_pos_embeddings": 8,
                "num_conv_pos_embedding_groups": 4,
                "mask_time_prob": 0.0,
                "layerdrop": 0.0,
            },
        )
    },
}


class Calls(torch.utils.data.Dataset):
    """What a tokenizer, an image processor and a feature extractor give, with paddings of every length."""

    def __init__(self, key, n=20, seed=0):
        random = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, 13, (n,), generator=random)
        heard = (n, 8, 40) if key == "input_features" else (n, 1000)
        self.columns = {
            "input_ids": torch.randint(1, 60, (n, 12), generator=random),
            "attention_mask": (torch.arange(12) < lengths[:, None]).long(),
            "pixel_values": torch.randn(n, 3, 24, 24, generator=random),
            key: torch.randn(*heard, generator=random),
            "label": torch.randint(0, 4, (n,), generator=random),
        }

    def __len__(self):
        return len(self.columns["label"])

    def __getitem__(self, i):
        return {name: column[i] for name, column in self.columns.items()}


def encoding(rows):
    return transformers.BatchEncoding(default_collate(rows))


@torch.no_grad()
def by_hand(model, data, inputs, stand_ins):
    """``(8, N)`` answers: every input of a hidden modality exchanged, the whole model run."""
    model.eval()
    batch = next(iter(loader(data, batch_size=len(data))))
    rows = []
    for mask in range(8):
        hidden = [key for m, keys in enumerate(inputs.values()) if not mask >> m & 1 for key in keys]
        shown = {
            key: torch.full_like(batch[key], stand_ins.get(key, 0)) if key in hidden else batch[key] for key in batch
        }
        rows.append(model(shown).argmax(-1))
    return batch["label"], torch.stack(rows)


@pytest.mark.parametrize("speech", SPEECH)
def test_the_towers_are_found_and_the_numbers_are_those_of_hiding(speech, tmp_path):
    model = seeded(Towers, num_classes=4, **SPEECH[speech])
    key = model.speech.main_input_name
    inputs = {"text": ("input_ids", "attention_mask"), "image": ("pixel_values",), "speech": (key,)}
    stand_ins = {"input_ids": 1, "attention_mask": 1, key: -1.5}
    watcher = ModalityMonitor(inputs, num_classes=4, bootstrap=0, baseline={"input_ids": 1, key: -1.5})
    data = Calls(key, seed=1)
    run = trainer(tmp_path, watcher, max_epochs=1)
    run.fit(model, loader(Calls(key), collate_fn=encoding), loader(data, batch_size=8, collate_fn=encoding))
    card = watcher.scorecards["val"]
    assert {name: {found.split(".")[0] for found in found} for name, found in card.info["encoders"].items()} == {
        "text": {"text"},
        "image": {"image"},
        "speech": {"speech"},
    }
    label, answers = by_hand(model, data, inputs, stand_ins)
    for k, name in enumerate(card.coalitions):
        confusion = torch.zeros(4, 4, dtype=torch.int64)
        confusion.index_put_((label, answers[k]), torch.ones_like(label), accumulate=True)
        assert torch.equal(torch.as_tensor(card.confusion(name)), confusion), name
    assert float(run.callback_metrics["val/all/accuracy"]) == pytest.approx(float((answers[7] == label).float().mean()))


@pytest.mark.filterwarnings("ignore:.*samples leave:UserWarning")
def test_the_example_runs_without_names_and_without_a_network(tmp_path, capsys):
    from scripts.huggingface import main

    watcher = main(["--samples=96", "--epochs=1", f"--output={tmp_path}"])
    card = json.loads((tmp_path / "modality" / "val.json").read_text())
    assert card["info"]["model"] == "Towers"
    assert set(card["info"]["encoders"]) == {"text", "image", "audio"}
    assert watcher.scorecards["val"].samples == 24
    assert "Shapley" in capsys.readouterr().out
