"""Small, randomly initialised transformers models: their towers are found, and the parts answer as the whole."""

import pytest
import torch
from torch import nn

from mm_metrics.ablation import ModalityAblation
from tests.ablation_models import Runs, by_hand

transformers = pytest.importorskip("transformers")

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
INPUTS = {"text": ("input_ids", "attention_mask"), "image": "pixel_values", "speech": "input_values"}
SMALL = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def clip():
    vision = SMALL | {"image_size": 16, "patch_size": 8}
    text = SMALL | {"vocab_size": 50, "max_position_embeddings": 12, "eos_token_id": 49, "bos_token_id": 0}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))


def speech():
    return transformers.Wav2Vec2Model(
        transformers.Wav2Vec2Config(
            **SMALL,
            conv_dim=(8, 8),
            conv_stride=(4, 4),
            conv_kernel=(8, 4),
            num_feat_extract_layers=2,
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
            mask_time_prob=0.0,
            vocab_size=8,
        )
    )


class Towers(nn.Module):
    """CLIP's own forward, which overwrites an output of its vision tower in place, with speech joined to it."""

    def __init__(self):
        super().__init__()
        self.clip, self.speech = clip(), speech()
        self.head = nn.Linear(48, 4)

    def forward(self, input_ids, attention_mask, pixel_values, input_values, labels=None):
        out = self.clip(input_ids=input_ids, attention_mask=attention_mask, pixel_values=pixel_values)
        heard = self.speech(input_values).last_hidden_state.mean(1)
        logits = self.head(torch.cat([out.text_embeds, out.image_embeds, heard], -1))
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=logits)


class CrossModal(nn.Module):
    """BERT reads the text, then attends to the image's patches and the speech's frames."""

    def __init__(self):
        super().__init__()
        self.text = transformers.BertModel(transformers.BertConfig(**SMALL, vocab_size=50), add_pooling_layer=False)
        vit = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8)
        self.image = transformers.ViTModel(vit, add_pooling_layer=False)
        self.speech = speech()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, batch):
        text = self.text(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        image = self.image(pixel_values=batch["pixel_values"]).last_hidden_state
        heard = self.speech(batch["input_values"]).last_hidden_state
        context = torch.cat([image, heard], 1)
        seen, _ = self.attention(text, context, context)
        weights = batch["attention_mask"].unsqueeze(-1)
        return {"logits": self.head((seen * weights).sum(1) / weights.sum(1))}


def make_batch(seed, N=4, T=8):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, T + 1, (N,), generator=random)
    ids = torch.randint(1, 49, (N, T), generator=random)
    ids[torch.arange(N), lengths - 1] = 49
    return transformers.BatchEncoding(
        {
            "input_ids": ids,
            "attention_mask": (torch.arange(T) < lengths[:, None]).long(),
            "pixel_values": torch.randn(N, 3, 16, 16, generator=random),
            "input_values": torch.randn(N, 400, generator=random),
            "label": torch.randint(0, 4, (N,), generator=random),
        }
    )


def answer(model):
    def run(batch):
        if isinstance(model, Towers):
            return model(**{key: value for key, value in batch.items() if key != "label"}).logits
        return model(batch)["logits"]

    return run


@pytest.mark.parametrize(
    ("kind", "towers"),
    [
        (Towers, {"text": ("clip",), "image": ("clip",), "speech": ("speech",)}),
        (CrossModal, {"text": ("text",), "image": ("image",), "speech": ("speech",)}),
    ],
)
def test_towers_are_found_and_run_once(kind, towers):
    torch.manual_seed(0)
    model = kind().eval()
    ablation = ModalityAblation(model, INPUTS, baseline={"input_values": -1.5})
    told = []
    ablation.say = told.append
    zeroed = {"input_values": -1.5}

    def expected(batch):
        shifted = {**batch, "input_values": batch["input_values"] - zeroed["input_values"]}
        run = answer(model)
        return by_hand(lambda b: run({**b, "input_values": b["input_values"] - 1.5}), shifted, INPUTS)

    for seed, N, T in ((0, 4, 8), (1, 4, 8), (2, 3, 6), (3, 1, 8)):
        batch = make_batch(seed, N, T)
        torch.testing.assert_close(ablation(batch), expected(batch), **CLOSE)
        ablation.watch()
        with torch.no_grad():
            own = answer(model)(batch)
        ablation.unwatch()
        torch.testing.assert_close(ablation(batch), expected(batch), **CLOSE)
        assert torch.equal(ablation.predict(batch), own)
    assert not [message for message in told if "whole model" in message]
    assert {name: tuple(m.split(".")[0] for m in modules) for name, modules in ablation.encoders.items()} == towers

    runs = Runs(model, *{"clip.text_model", "clip.vision_model"} if kind is Towers else {"text", "image"}, "speech")
    ablation(make_batch(4))
    assert set(runs.take().values()) == {1}
    ablation.watch()
    batch = make_batch(5)
    answer(model)(batch)
    ablation.unwatch()
    runs.take()
    ablation(batch)
    assert set(runs.take().values()) == {0}


def test_a_classifier_of_transformers_as_it_is():
    torch.manual_seed(0)
    config = transformers.BertConfig(**SMALL, vocab_size=50, num_labels=3)
    model = transformers.BertForSequenceClassification(config).eval()
    ablation = ModalityAblation(model, {"text": ("input_ids", "attention_mask")})
    ablation.say = lambda message: None
    for seed in range(2):
        batch = make_batch(seed)
        flat = {key: batch[key] for key in ("input_ids", "attention_mask")} | {"label": batch["label"]}
        found = ablation(transformers.BatchEncoding(flat))
        expected = by_hand(
            lambda b: model(b["input_ids"], attention_mask=b["attention_mask"]).logits,
            flat,
            {"text": ("input_ids", "attention_mask")},
        )
        torch.testing.assert_close(found, expected, **CLOSE)
