"""Noise of a given strength on one modality, and on nothing else."""

import pytest
import torch

from mm_metrics.ablation.inputs import Inputs
from mm_metrics.ablation.noise import corrupt

INPUTS = Inputs({"text": ("tokens", "mask"), "audio": "waveform"})


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    return {
        "tokens": torch.randint(5, 50, (64, 20), generator=random),
        "mask": torch.ones(64, 20, dtype=torch.long),
        "waveform": 3 + 2 * torch.randn(64, 500, generator=random),
        "label": torch.arange(64),
    }


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0, 3.0])
def test_float_noise_is_as_strong_as_asked_relative_to_the_input(batch, strength):
    noise = corrupt(batch, INPUTS, "audio", strength)["waveform"] - batch["waveform"]
    assert noise.std().item() == pytest.approx(strength * 2, rel=0.02)
    assert noise.mean().abs().item() <= 0.05 * strength
    scaled = corrupt(batch | {"waveform": batch["waveform"] * 10}, INPUTS, "audio", strength)["waveform"]
    torch.testing.assert_close(scaled, 10 * (batch["waveform"] + noise))


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 5.0])
def test_words_are_replaced_by_words_of_the_batch(batch, strength):
    tokens = corrupt(batch, INPUTS, "text", strength)["tokens"]
    assert set(tokens.unique().tolist()) <= set(batch["tokens"].unique().tolist())
    changed = (tokens != batch["tokens"]).float().mean().item()
    assert changed == pytest.approx(min(strength, 1) * 44 / 45, abs=0.03)  # one draw in 45 hits the same word


def test_only_the_modality_changes_and_no_stream_moves(batch):
    before = {key: value.clone() for key, value in batch.items()}
    state = torch.get_rng_state()
    found = corrupt(batch, INPUTS, "text", 0.5, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(batch[key], before[key]) for key in batch)
    assert all(torch.equal(found[key], before[key]) for key in ("mask", "waveform", "label"))
    assert torch.equal(found["tokens"], corrupt(batch, INPUTS, "text", 0.5, seed=3)["tokens"])
    assert not torch.equal(found["tokens"], corrupt(batch, INPUTS, "text", 0.5, seed=4)["tokens"])


def test_what_makes_no_sense_is_refused(batch):
    with pytest.raises(ValueError, match="modality 'image' is not one of"):
        corrupt(batch, INPUTS, "image", 0.5)
    with pytest.raises(ValueError, match="strength=-1"):
        corrupt(batch, INPUTS, "audio", -1)
    with pytest.raises(ValueError, match="strength=nan"):
        corrupt(batch, INPUTS, "audio", float("nan"))
