"""Reviews made by the program: how glad somebody is, from what is said, how it is said, and the face."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.samples import SPLITS, SamplesModule, hide_absent
from models.scenes import FILLERS, LENGTH, RATE, SIZE

MODALITIES = ("text", "image", "audio")
# What each modality adds to the sentiment at most, either way. The best guess without one misses by its mean distance
# from 0: text 1.0, image 0.4, audio 0.2. The truth that drops of the mean absolute error are held against.
REACH = {"text": 1.8, "image": 0.8, "audio": 0.4}
GLAD, SORRY = ("lovely", "great", "superb", "moving"), ("dull", "awful", "poor", "boring")
WORDS = ("", *GLAD, *SORRY, *FILLERS)  # a word's number is its token; 0 is padding


def mean_distance(modality: str) -> float:
    """How far what a modality adds lies from 0 on average: the error of not knowing it.

    >>> [round(mean_distance(name), 2) for name in MODALITIES]
    [1.0, 0.4, 0.2]
    """
    steps = np.arange(-4, 5) / 4
    return float(REACH[modality] * (np.abs(steps).mean() if modality == "text" else 0.5))


class Reviews(SamplesModule):
    """Reviews with a sentiment in -3…3, the sum of what text, picture and sound add; seeded and instant.

    Batches hold tokens (N, 16), mask (N, 16), pixels (N, 3, 24, 24), waveform (N, 4000), presence (N, 3) bool,
    label (N,) float32, speaker and index (N,).
    """

    def __init__(
        self,
        train: int = 4000,
        val: int = 1000,
        test: int = 1000,
        speakers: int = 100,
        missing: float = 0.0,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers)
        self.sizes = {"train": train, "val": val, "test": test}
        self.speakers, self.missing, self.seed = speakers, missing, seed

    def make(self, split: str) -> dict[str, Tensor]:
        """The tensors of ``train``, ``val`` or ``test``, from the seed alone."""
        N, rng = self.sizes[split], np.random.default_rng([self.seed, SPLITS.index(split)])
        said = rng.integers(-4, 5, N)  # glad words less sorry ones
        seen, heard = rng.uniform(-1, 1, (2, N))
        tokens, mask = _write(said, rng)
        added = np.stack([REACH["text"] * said / 4, REACH["image"] * seen, REACH["audio"] * heard], axis=1)  # (N, 3)
        presence = rng.random((N, len(MODALITIES))) >= self.missing
        sample = {
            "tokens": tokens,
            "mask": mask,
            "pixels": _draw(seen, rng),
            "waveform": _speak(heard, rng),
            "label": added.sum(1).astype(np.float32),
            "speaker": rng.integers(self.speakers, size=N),
        }
        return hide_absent({key: torch.from_numpy(array) for key, array in sample.items()}, torch.from_numpy(presence))


def _write(said: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens ``(N, 16)`` and their mask: small talk and as many glad, or sorry, words as were ``said`` (N,)."""
    N = len(said)
    tokens = rng.choice([WORDS.index(word) for word in FILLERS], size=(N, LENGTH))
    places = rng.random((N, LENGTH)).argsort(axis=1)[:, :4]  # (N, 4)
    evidence = np.where(
        said[:, None] > 0,
        rng.choice([WORDS.index(word) for word in GLAD], size=(N, 4)),
        rng.choice([WORDS.index(word) for word in SORRY], size=(N, 4)),
    )
    spoken = np.arange(4) < np.abs(said)[:, None]  # (N, 4)
    there = np.take_along_axis(tokens, places, axis=1)
    np.put_along_axis(tokens, places, np.where(spoken, evidence, there), axis=1)
    return tokens, np.ones((N, LENGTH), dtype=bool)


def _draw(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels ``(N, 3, 24, 24)``: a picture the warmer the gladder."""
    noise = 0.15 * rng.standard_normal((len(seen), 3, SIZE, SIZE), dtype=np.float32)
    warmth = np.array([0.25, 0.0, -0.25], dtype=np.float32)[:, None, None]
    return (0.5 + seen.astype(np.float32)[:, None, None, None] * warmth + noise).clip(0, 1).astype(np.float32)


def _speak(heard: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Waveforms ``(N, 4000)``: a tone in the street's noise, the louder the gladder."""
    t = np.arange(RATE, dtype=np.float32) / RATE
    volume = 10 ** (0.7 * heard.astype(np.float32) - 0.9)  # 0.025 … 0.63
    phase = rng.uniform(0, 2 * np.pi, (len(heard), 1)).astype(np.float32)
    noise = 0.02 * rng.standard_normal((len(heard), RATE), dtype=np.float32)
    return (volume[:, None] * np.sin(2 * np.pi * 440 * t + phase) + noise).astype(np.float32)
