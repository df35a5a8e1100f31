"""Emergency calls made by the program: a text, a small image and a second of sound, with known evidence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from models.samples import SPLITS, SamplesModule, hide_absent
from models.scenes import draw, sound, write

MODALITIES = ("text", "image", "audio")

# Each event, and the smallest sets of modalities that tell it. The truth that contributions are held against.
EVIDENCE: dict[str, tuple[tuple[str, ...], ...]] = {
    "nothing": ((),),  # what one says when nothing speaks against it, for it is the most frequent
    "flood": (("image",),),  # only seen
    "siren": (("audio",),),  # only heard
    "report": (("text",),),  # only read
    "fire": (("text",), ("image",)),  # read and seen: either is enough
    "intruder": (("text", "audio"),),  # the alarm's tone matches the code word: neither alone tells
}
EVENTS = tuple(EVIDENCE)
RECORDINGS = 1_000_000  # the first number of the next split's recordings
RATES = {"nothing": 0.30, "flood": 0.14, "siren": 0.14, "report": 0.14, "fire": 0.14, "intruder": 0.14}


def tells(event: str, shown: Iterable[str]) -> bool:
    """Whether the modalities shown are enough to know the event.

    >>> tells("fire", ["image"]), tells("intruder", ["text"]), tells("intruder", ["text", "audio"])
    (True, False, True)
    """
    return any(set(needed) <= set(shown) for needed in EVIDENCE[event])


def carriers(event: str) -> tuple[bool, ...]:
    """``(M,)``: which of text, image and audio hold evidence of the event.

    >>> carriers("intruder")
    (True, False, True)
    """
    return tuple(any(modality in needed for needed in EVIDENCE[event]) for modality in MODALITIES)


class EmergencyCalls(SamplesModule):
    """Six kinds of call, seeded and instant; every number that a story turns on is an argument.

    ``rates``: the share of each event. ``missing``: how often a call lacks its text, its image, its sound.
    ``siren_volume``: the faintest and the loudest siren (the street's noise is 0.1), spread evenly in decibels.
    ``written_sirens``: the share of sirens that the caller also writes about, in the words of a report.
    ``binary``: the label is only whether anything happened. ``shared_recordings``: the share of test calls whose
    sound is a copy of a training call's, half of them at another volume; a call's ``recording`` says which.

    Batches hold tokens (N, 16), mask (N, 16), pixels (N, 3, 24, 24), waveform (N, 4000), presence and carriers (N, 3)
    bool, label, event, recording and index (N,).
    """

    def __init__(
        self,
        train: int = 4000,
        val: int = 1200,
        test: int = 1200,
        rates: dict[str, float] = RATES,
        missing: float = 0.1,
        siren_volume: tuple[float, float] = (0.2, 0.5),
        written_sirens: float = 0.0,
        binary: bool = False,
        shared_recordings: float = 0.0,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers)
        if not set(rates) <= set(EVENTS) or abs(sum(rates.values()) - 1) > 1e-6:
            raise ValueError(f"rates={rates} must be shares of {EVENTS} that sum to 1: change rates in the config")
        self.sizes = {"train": train, "val": val, "test": test}
        self.rates, self.missing, self.seed = rates, missing, seed
        self.siren_volume, self.written_sirens = siren_volume, written_sirens
        self.binary, self.shared_recordings = binary, shared_recordings

    def make(self, split: str) -> dict[str, Tensor]:
        """The tensors of ``train``, ``val`` or ``test``, from the seed alone."""
        rng, event, code, presence = self._cast(split)
        source = np.full(len(event), -1)  # the training call that the sound is taken from
        if split == "test" and self.shared_recordings:
            source = self._share_recordings(rng, event, code, presence)
        tone = np.where(event == "intruder", code, 1 - code)  # each is a fair coin on its own, whatever the event
        faint, loud = self.siren_volume
        volume = np.float32(faint) * np.float32(loud / faint) ** rng.random(len(event), dtype=np.float32)  # (N,)
        sirens = np.flatnonzero(event == "siren")
        written = sirens[: round(len(sirens) * self.written_sirens)]
        text = event.copy()
        text[written] = "report"
        carried = np.array([carriers(name) for name in event], dtype=bool).reshape(-1, len(MODALITIES))
        carried[written, 0] = True

        tokens, mask = write(text, code, rng)
        pixels, waveform = draw(event, rng), sound(event, tone, volume, rng)
        recording = np.arange(len(event)) + RECORDINGS * SPLITS.index(split)
        if (source >= 0).any():
            shared = source >= 0
            waveform[shared] = self.make("train")["waveform"].numpy()[source[shared]]
            waveform[shared & (np.arange(len(event)) % 2 == 0)] *= 0.7
            recording[shared] = source[shared]
        number = np.array([EVENTS.index(name) for name in event])
        made = {
            "tokens": tokens,
            "mask": mask,
            "pixels": pixels,
            "waveform": waveform,
            "label": (number > 0).astype(np.int64) if self.binary else number,
            "event": number,
            "carriers": carried & presence,
            "recording": recording,
        }
        sample = {key: torch.from_numpy(array) for key, array in made.items()}
        return hide_absent(sample, torch.from_numpy(presence))

    def _cast(self, split: str) -> tuple[np.random.Generator, np.ndarray, np.ndarray, np.ndarray]:
        """The split's generator, its events (N,), code words (N,) and presence (N, 3)."""
        N = self.sizes[split]
        rng = np.random.default_rng([self.seed, SPLITS.index(split)])
        event = rng.permutation(np.repeat(EVENTS, counts(N, [self.rates.get(name, 0.0) for name in EVENTS])))
        return rng, event, rng.integers(0, 2, N), rng.random((N, len(MODALITIES))) >= self.missing

    def _share_recordings(
        self, rng: np.random.Generator, event: np.ndarray, code: np.ndarray, presence: np.ndarray
    ) -> np.ndarray:
        """``(N,)``: the training call with the same event whose sound a test call takes, or -1; makes the two agree."""
        _, train_event, train_code, train_presence = self._cast("train")
        source = np.full(len(event), -1)
        for row in rng.choice(len(event), round(len(event) * self.shared_recordings), replace=False):
            source[row] = rng.choice(np.flatnonzero((train_event == event[row]) & train_presence[:, 2]))
        shared = source >= 0
        code[shared], presence[shared, 2] = train_code[source[shared]], True
        return source


def counts(N: int, shares: list[float]) -> list[int]:
    """Whole numbers that sum to N, nearest to ``N * shares``: a story about 150 events has 150.

    >>> counts(7000, [0.9786, 0.0214])
    [6850, 150]
    """
    edges = np.rint(np.cumsum([0.0, *shares]) * N).astype(int)
    return np.diff(edges).tolist()
