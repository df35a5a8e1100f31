"""What an emergency call is made of: words, a small picture, a second of telephone sound (seeded, vectorised)."""

from __future__ import annotations

import numpy as np

SIZE = 24  # pixels a side
RATE = 4000  # samples a second: a poor telephone line
LENGTH = 16  # words at most

CODES = ("amber", "violet")  # the code word; the alarm answers in the tone of the same number
TONES = (350.0, 560.0)  # hertz
PAPERS = ("stolen", "burgled", "forged", "vandals")  # what a report is about
SMOKES = ("smoke", "burning", "flames")
FILLERS = (
    *("hello", "please", "come", "quickly", "we", "are", "at", "the", "old", "bridge", "market", "station", "school"),
    *("my", "name", "is", "near", "park", "street", "corner", "house", "and", "i", "see", "people", "cars", "nobody"),
)
WORDS = ("", *CODES, *PAPERS, *SMOKES, *FILLERS)  # a word's number is its token; 0 is padding


def write(kind: np.ndarray, code: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tokens ``(N, 16)`` and their mask: small talk, the code word, and the evidence of ``kind`` (N,) of words.

    >>> tokens, mask = write(np.array(["report"]), np.array([1]), np.random.default_rng(0))
    >>> " ".join(WORDS[token] for token in tokens[0] if token)
    'i park violet the violet forged violet hello we and park people my'
    """
    N = len(kind)
    tokens = rng.choice([WORDS.index(word) for word in FILLERS], size=(N, LENGTH))
    lengths = rng.integers(8, LENGTH + 1, size=N)
    places = rng.random((N, 8)).argsort(axis=1)  # within the first eight words, so that none is cut off
    spoken = np.array([WORDS.index(word) for word in CODES])[code]  # (N,)
    tokens[np.arange(N)[:, None], places[:, :3]] = spoken[:, None]  # said three times
    for name, evidence in (("report", PAPERS), ("fire", SMOKES)):
        rows = np.flatnonzero(kind == name)
        tokens[rows, places[rows, 3]] = rng.choice([WORDS.index(word) for word in evidence], size=len(rows))
    mask = np.arange(LENGTH) < lengths[:, None]
    return tokens * mask, mask


def draw(kind: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels ``(N, 3, 24, 24)``: a grey street; under a flood it is blue below, in a fire something glows."""
    N = len(kind)
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)  # (24, 24) each
    pixels = rng.uniform(0.3, 0.7, (N, 1, 1, 1)) + 0.2 * rng.standard_normal((N, 3, SIZE, SIZE), dtype=np.float32)

    wet = np.flatnonzero(kind == "flood")
    surface = rng.uniform(10, 18, (len(wet), 1, 1)) + np.sin(x + rng.uniform(0, 6, (len(wet), 1, 1)))
    water = (y > surface)[:, None] * np.array([-0.2, 0.0, 0.3])[:, None, None]  # less red, more blue
    pixels[wet] += water

    hot = np.flatnonzero(kind == "fire")
    top, left = rng.uniform(6, 18, (2, len(hot), 1, 1))
    glow = np.exp(-((y - top) ** 2 + (x - left) ** 2) / 18)[:, None]
    pixels[hot] += glow * np.array([0.6, 0.2, -0.2])[:, None, None]
    return pixels.clip(0, 1).astype(np.float32)


def sound(kind: np.ndarray, tone: np.ndarray, volume: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Waveforms ``(N, 4000)``: street noise, an alarm (low or high), a wailing siren as loud as ``volume``."""
    N = len(kind)
    t = np.arange(RATE, dtype=np.float32) / RATE  # seconds
    waveform = 0.1 * rng.standard_normal((N, RATE), dtype=np.float32)

    start = rng.uniform(0.0, 0.4, (N, 1)).astype(np.float32)
    hertz = np.array(TONES, dtype=np.float32)[tone][:, None]
    waveform += 0.4 * np.sin(2 * np.pi * hertz * t) * (t > start)

    rows = np.flatnonzero(kind == "siren")
    phase = rng.uniform(0, 2 * np.pi, (len(rows), 1)).astype(np.float32)
    swing = -75 * np.cos(4 * np.pi * t + phase)  # the integral of 300 Hz up and down, twice a second
    waveform[rows] += volume[rows, None] * np.sin(2 * np.pi * 1200 * t + swing)
    return waveform.astype(np.float32)
