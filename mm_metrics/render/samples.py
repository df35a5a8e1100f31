"""Samples behind a finding, as the page shows them: what each was, what was said, and its content where asked for."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from mm_metrics import words
from mm_metrics.render import draw, svg
from mm_metrics.render.draw import Mark, Sheet
from mm_metrics.render.pixels import png

SHOWN = 10  # of each finding
MOST_BYTES = 4_000_000  # of content, so that the page stays below 5 MB
_SIDE, _SECONDS, _LETTERS, _COLUMNS = 160, 1.0, 600, 120
_PNG = b"\x89PNG\r\n\x1a\n"


class Sound(NamedTuple):
    """A waveform as the page has room for it."""

    least: np.ndarray  # (T,), of each part of it
    most: np.ndarray  # (T,)
    first: np.ndarray  # (T,) int16, its first second
    rate: int  # of that
    seconds: float


class Unshown(NamedTuple):
    """A word on why there is nothing to see."""

    why: str


class Content(NamedTuple):
    """What a modality of a sample holds, as the page shows it: one of the three, or a word on why not."""

    modality: str
    text: str = ""
    image: str = ""  # data:image/png
    wave: str = ""  # <svg>
    sound: str = ""  # data:audio/wav
    missing: str = ""


class Shown(NamedTuple):
    """The samples of a finding, rows with their `contents`, and how many there are."""

    message: str
    of: int
    samples: list[SimpleNamespace]
    left_out: int  # contents that the page had no room for


def shown(findings: Iterable[Mapping[str, Any]], room: float = MOST_BYTES) -> list[Shown]:
    """The samples of each finding, ten at most, and content until `room` bytes are full.

    `findings` are ``{"message", "of", "rows"}`` each, `of` the number of samples that there are, a row
    ``{"number", "target", "prediction", "coalitions": {name: prediction}, "content": {modality: …}}`` with what `small`
    takes.
    """
    made = []
    for entry in findings:
        samples, left_out = [SimpleNamespace(**row, contents=[]) for row in entry["rows"]], 0
        for sample in samples[:SHOWN]:
            for modality, value in (getattr(sample, "content", None) or {}).items():
                content = _content(words.clean(modality), small(value))
                size = sum(map(len, content[1:]))
                if size > room:
                    left_out += 1
                    continue
                room -= size
                sample.contents.append(content)
        made.append(Shown(entry.get("message", ""), int(entry.get("of", len(samples))), samples[:SHOWN], left_out))
    return made


def plain(entry: Any, rate: int = 16_000) -> Any:
    """A sample's entry as content where it is plainly a string, an image or a waveform, else None.

    Images are ``(C, H, W)`` or ``(H, W, C)`` of one or three channels, uint8 or floats; waveforms ``(T,)`` or
    ``(1, T)`` of floats or int16, taken to have `rate` samples a second.

    >>> plain("a siren"), plain(np.zeros((3, 8, 8))).shape, plain(np.zeros(8000))[1], plain(np.zeros(8, int))
    ('a siren', (3, 8, 8), 16000, None)
    """
    if isinstance(entry, str):
        return entry
    values = _array(entry)
    if values is None or not (values.dtype.kind == "f" or values.dtype in (np.uint8, np.int16)):
        return None
    if values.dtype != np.uint8 and (values.ndim == 1 or (values.ndim == 2 and values.shape[0] == 1)):
        return (values.reshape(-1), rate) if values.size >= 400 else None
    channels = {values.shape[0], values.shape[-1]} & {1, 3} if values.ndim == 3 else ()
    return values if channels and min(values.shape[1:]) > 1 and values.dtype != np.int16 else None


def small(value: Any) -> str | bytes | np.ndarray | Sound | Unshown:
    """What a `show=` function gave, cut to what the page has room for: ``small(small(x))`` is ``small(x)``.

    Takes text; an image ``(H, W)``, ``(H, W, C)`` or ``(C, H, W)``, stretched to its range where floats leave 0…1 and
    integers 0…255; PNG bytes; or ``(waveform, rate)``, whose channels are averaged. What is none of these is `Unshown`.
    """
    if isinstance(value, Sound | Unshown) or (isinstance(value, bytes) and value.startswith(_PNG)):
        return value
    if isinstance(value, str):
        return value if len(value) <= _LETTERS else value[: _LETTERS - 2] + " …"
    if isinstance(value, tuple) and len(value) == 2:
        wave, rate = _array(value[0]), getattr(value[1], "item", lambda: value[1])()
        if wave is None or not wave.size or wave.ndim > 2 or not isinstance(rate, int | float) or not 1 <= rate < 1e7:
            return Unshown("no (waveform, rate)")
        return _sound(wave, int(rate))
    from PIL import Image

    values = _array(value)
    if values is None or values.ndim not in (2, 3) or min(values.shape) < 1:
        return Unshown(f"{type(value).__name__} is not shown")
    values = values[:, :, None] if values.ndim == 2 else values
    if values.shape[0] in (1, 3, 4) and values.shape[-1] not in (1, 3, 4):
        values = np.moveaxis(values, 0, -1)
    if values.shape[-1] not in (1, 3, 4):
        return Unshown(f"an array {values.shape} is no image")
    values = values[..., :3]
    if values.dtype != np.uint8:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        top = 255.0 if values.dtype.kind in "iu" else 1.0
        low, high = (0.0, top) if 0 <= low and high <= top else (low, high)
        values = np.nan_to_num((values - low) / ((high - low) or 1.0), nan=0.0, posinf=1.0, neginf=0.0)
        values = (255 * np.clip(values, 0, 1)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(values.repeat(3, axis=-1) if values.shape[-1] == 1 else values))
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(image)


def _array(value: Any) -> np.ndarray | None:
    """Numbers as an array, halves in single precision; None for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    if not (isinstance(value, list) or hasattr(value, "__array__") or hasattr(value, "__array_interface__")):
        return None
    try:
        values = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # ragged, or kept in a way that has no array
        return None
    return values if values.dtype.kind in "biuf" else None


def _sound(wave: np.ndarray, rate: int) -> Sound:
    """The range of each part of a waveform, and its first second."""
    if wave.dtype.kind in "iu":
        info = np.iinfo(wave.dtype)
        middle = 0 if info.min else (info.max + 1) / 2
        wave = (wave - middle) / (info.max + 1 - middle)
    wave = wave.mean(axis=int(np.argmin(wave.shape))) if wave.ndim == 2 else wave.reshape(-1)
    wave = np.nan_to_num(wave.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    parts = np.array_split(wave, min(_COLUMNS, len(wave)))
    least, most = (np.array([pick(part) for part in parts]) for pick in (np.min, np.max))
    step = max(1, rate // 16_000)
    first = wave[: max(1, int(_SECONDS * rate)) : step] / max(1.0, -float(least.min()), float(most.max()))
    return Sound(least, most, (32767 * first).astype(np.int16), max(1, rate // step), len(wave) / rate)


def _content(modality: str, value: Any) -> Content:
    """What `small` gave, as the page holds it."""
    if isinstance(value, str):
        return Content(modality, text=words.clean(value))
    if isinstance(value, Unshown):
        return Content(modality, missing=words.clean(value.why))
    if isinstance(value, Sound):
        return _wave(modality, value)
    return Content(modality, image=_uri("image/png", value if isinstance(value, bytes) else png(value)))


def _wave(modality: str, sound: Sound) -> Content:
    """The waveform drawn, and its first second to play."""
    largest = max(-float(sound.least.min()), float(sound.most.max()), 1e-9)
    upper = [(2.0 * i, 18 - 17 * float(y) / largest) for i, y in enumerate(sound.most)]
    lower = [(2.0 * i, 18.5 - 17 * float(y) / largest) for i, y in enumerate(sound.least)]
    sheet = Sheet(2.0 * _COLUMNS, 37)
    sheet.marks.append(Mark("area", upper + lower[::-1], draw.RIGHT))
    drawn = svg.inline(sheet, f"Waveform of {modality}, {sound.seconds:.1f} seconds, largest value {largest:.3g}")
    return Content(modality, wave=drawn, sound=_uri("audio/wav", wav(sound)))


def wav(sound: Sound) -> bytes:
    """A sound's first second as a WAV file."""
    pcm = sound.first.astype("<i2").tobytes()
    form = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, sound.rate, 2 * sound.rate, 2, 16)
    body = form + b"data" + struct.pack("<I", len(pcm)) + pcm
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
