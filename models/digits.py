"""Real data: a handwritten digit, the same digit spoken, and its word as somebody typed it in a hurry."""

from __future__ import annotations

import re
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from models.samples import SPLITS, SamplesModule, hide_absent

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # token = place in the alphabet from 1; 0 is padding
LONGEST = 10  # letters, typing errors included
RATE = 8000  # samples a second, as FSDD has them
SECONDS = 1.0  # of 3,000 recordings, 99% are shorter
TAKES = {"test": range(0, 5), "val": range(5, 10), "train": range(10, 10_000)}  # FSDD's own test set is takes 0-4
HOLDERS = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}  # shares of each digit's images


class Recording(NamedTuple):
    """One file of FSDD, ``{digit}_{speaker}_{take}.wav``."""

    path: Path
    digit: int
    speaker: str
    take: int


def find_recordings(fsdd: str | Path) -> list[Recording]:
    """The folder's recordings in order of their names; raises FileNotFoundError that says where to get them."""
    named = ((path, re.fullmatch(r"(\d)_([A-Za-z]+)_(\d+)", path.stem)) for path in sorted(Path(fsdd).glob("*.wav")))
    found = [Recording(path, int(name[1]), name[2], int(name[3])) for path, name in named if name]
    if not found:
        raise FileNotFoundError(
            f"fsdd={str(fsdd)!r} holds no recordings such as 0_george_0.wav: download the Free Spoken Digit Dataset "
            "(git clone https://github.com/Jakobovski/free-spoken-digit-dataset) and give its folder 'recordings', "
            "--data.init_args.fsdd=free-spoken-digit-dataset/recordings"
        )
    return found


def read_wav(path: Path, length: int = int(RATE * SECONDS)) -> np.ndarray:
    """``(length,)`` float32 in −1 … 1 from a 16-bit mono file of 8 kHz: cut at the end, or padded with silence."""
    with wave.open(str(path)) as file:
        got = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
        if got != (1, 16, RATE):
            raise ValueError(
                f"{path.name} has {got[0]} channels of {got[1]} bits at {got[2]} Hz, expected 1 of 16 at {RATE}: "
                "convert it, or leave it out of the folder"
            )
        frames = np.frombuffer(file.readframes(length), dtype="<i2")
    return np.pad(frames, (0, length - len(frames))).astype(np.float32) / 2**15


def mistype(word: str, errors: float, rng: np.random.Generator) -> str:
    """The word with each letter, at the rate ``errors``, missed, doubled, or another one.

    >>> mistype("seven", 0.0, np.random.default_rng(0))
    'seven'
    """
    typed = ""
    for letter in word:
        slips = ("", 2 * letter, rng.choice(list(LETTERS)))
        typed += slips[rng.integers(3)] if rng.random() < errors else letter
    return typed[:LONGEST]


class Digits(SamplesModule):
    """Ten digits: scikit-learn's images (N, 1, 8, 8), FSDD's recordings (N, 8000) and letters (N, 10).

    ``fsdd``: the folder of recordings. Its takes 0-4 are the test set, as its authors have it, and 5-9 validation.
    No image is in two splits. ``typing_errors``: slips a letter. ``missing``: how often a sample lacks its word, its
    image, its sound. Batches hold tokens, mask, pixels, waveform, presence, label, index, take, and ``speaker``, the
    place of the speaker's name in `speakers`. Raises FileNotFoundError where the folder holds none.
    """

    def __init__(
        self,
        fsdd: str = "data/fsdd/recordings",
        typing_errors: float = 0.3,
        missing: float = 0.1,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers)
        self.fsdd, self.typing_errors, self.missing, self.seed = fsdd, typing_errors, missing, seed
        self.speakers: tuple[str, ...] = ()

    def make(self, split: str) -> dict[str, Tensor]:
        """The tensors of ``train``, ``val`` or ``test``."""
        everything = find_recordings(self.fsdd)
        self.speakers = tuple(sorted({recording.speaker for recording in everything}))
        recordings = [recording for recording in everything if recording.take in TAKES[split]]
        if not recordings:
            raise FileNotFoundError(
                f"fsdd={self.fsdd!r} holds no recordings for {split}, takes {TAKES[split].start} to "
                f"{TAKES[split].stop - 1}: give the whole folder of the data set"
            )
        rng = np.random.default_rng([self.seed, SPLITS.index(split)])
        label = torch.tensor([recording.digit for recording in recordings])  # (N,)
        tokens = self._type(label, rng)  # (N, 10)
        sample = {
            "tokens": tokens,
            "mask": tokens > 0,
            "pixels": self._pictures(label, split, rng),
            "waveform": torch.from_numpy(np.stack([read_wav(recording.path) for recording in recordings])),
            "label": label,
            "speaker": torch.tensor([self.speakers.index(recording.speaker) for recording in recordings]),
            "take": torch.tensor([recording.take for recording in recordings]),
        }
        return hide_absent(sample, torch.from_numpy(rng.random((len(label), 3)) >= self.missing))

    def _type(self, label: Tensor, rng: np.random.Generator) -> Tensor:
        """``(N, 10)`` tokens of the digits' words with slips."""
        words = [mistype(NAMES[digit], self.typing_errors, rng) for digit in label.tolist()]
        return torch.tensor(
            [[LETTERS.index(letter) + 1 for letter in word] + [0] * (LONGEST - len(word)) for word in words]
        )

    def _pictures(self, label: Tensor, split: str, rng: np.random.Generator) -> Tensor:
        """``(N, 1, 8, 8)`` in 0 … 1: for each label one of the split's own images of that digit."""
        images, digits = load_digits(return_X_y=True)
        start, stop = HOLDERS[split]
        chosen = np.zeros(len(label), dtype=int)
        for digit in range(10):
            rows = np.flatnonzero(digits == digit)
            rows = rows[round(start * len(rows)) : round(stop * len(rows))]
            places = np.flatnonzero(label.numpy() == digit)
            chosen[places] = rng.permutation(np.resize(rows, len(places)))
        return torch.from_numpy(images[chosen].astype(np.float32) / 16).reshape(-1, 1, 8, 8)
