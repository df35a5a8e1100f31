"""Samples behind a finding, as the page shows them: what each was, what was said, and its content where asked for."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mm_metrics import words
from mm_metrics.render import draw, svg
from mm_metrics.render.draw import Mark, Sheet

SHOWN = 10  # of each finding
MOST_BYTES = 4_000_000  # of content, so that the page stays below 5 MB
_SIDE, _SECONDS, _LETTERS, _COLUMNS = 160, 1.0, 600, 120
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass
class Content:
    """What a modality of a sample holds, as the page shows it: one of the three, or a word on why not."""

    modality: str
    text: str = ""
    image: str = ""  # data:image/png
    wave: str = ""  # <svg>
    sound: str = ""  # data:audio/wav
    missing: str = ""


@dataclass
class Sample:
    """A sample: what it was, what was said, and what each coalition said, with whether that was right."""

    number: str
    target: str
    prediction: str
    coalitions: list[tuple[str, str, bool]] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)


@dataclass
class Shown:
    """The samples of a finding, and how many there are."""

    message: str
    of: int
    samples: list[Sample]
    left_out: int = 0  # contents that the page had no room for


def shown(findings: Iterable[Mapping[str, Any]] | None) -> list[Shown]:
    """The samples of each finding, ten at most, and content until the page is full.

    `findings` are ``{"message", "of", "rows"}`` each, `of` the number of samples that there are, a row
    ``{"number", "target", "prediction", "coalitions": {name: prediction}, "content": {modality: …}}`` with text,
    PNG bytes, an image ``(H, W, 3)`` uint8 or ``(waveform, rate)``, where the waveform is ``(T,)`` in −1…1.
    """
    room, made = MOST_BYTES, []
    for entry in findings or ():
        rows = list(entry["rows"])
        part = Shown(words.clean(entry.get("message", "")), int(entry.get("of", len(rows))), [])
        for row in rows[:SHOWN]:
            target = words.clean(row["target"])
            said = [(words.clean(name), words.clean(value)) for name, value in (row.get("coalitions") or {}).items()]
            sample = Sample(words.clean(row["number"]), target, words.clean(row["prediction"]))
            sample.coalitions = [(name, value, value == target) for name, value in said]
            for modality, value in (row.get("content") or {}).items():
                content = _content(words.clean(modality), value)
                size = sum(map(len, (content.image, content.sound, content.wave, content.text)))
                if size > room:
                    part.left_out += 1
                    continue
                room -= size
                sample.contents.append(content)
            part.samples.append(sample)
        made.append(part)
    return made


def plain(entry: Any, rate: int = 16_000) -> Any:
    """A sample's entry as content where it is plainly a string, an image or a waveform, else None.

    Images are ``(C, H, W)`` or ``(H, W, C)`` of one or three channels, stretched to their range where floats leave
    0…1; waveforms ``(T,)`` or ``(1, T)`` of floats, taken to have `rate` samples a second.

    >>> plain("a siren"), plain(np.zeros((3, 8, 8))).shape, plain(np.zeros(8000))[1], plain(np.zeros(8, int))
    ('a siren', (8, 8, 3), 16000, None)
    """
    if isinstance(entry, str):
        return entry
    values = np.asarray(entry.detach().cpu() if hasattr(entry, "detach") else entry)
    floats = values.dtype.kind == "f"
    if not floats and values.dtype != np.uint8:
        return None
    if values.ndim == 2 and values.shape[0] == 1 and floats:
        values = values[0]
    if values.ndim == 1:
        return (values, rate) if floats and len(values) >= 400 else None
    if values.ndim != 3 or min(values.shape[1:]) < 2:
        return None
    if values.shape[0] in (1, 3) and values.shape[2] not in (1, 3):
        values = np.moveaxis(values, 0, -1)
    if values.shape[-1] not in (1, 3):
        return None
    if floats:
        low, high = (float(np.nanmin(values)), float(np.nanmax(values))) if values.size else (0.0, 1.0)
        low, high = (0.0, 1.0) if 0 <= low and high <= 1 else (low, high)
        values = (255 * np.clip(np.nan_to_num(values - low) / ((high - low) or 1.0), 0, 1)).astype(np.uint8)
    return np.repeat(values, 3, axis=-1) if values.shape[-1] == 1 else values


def _content(modality: str, value: Any) -> Content:
    if isinstance(value, str):
        text = words.clean(value)
        return Content(modality, text=text if len(text) <= _LETTERS else text[:_LETTERS] + " …")
    if isinstance(value, bytes) and value.startswith(_PNG):
        return Content(modality, image=_uri("image/png", value))
    if isinstance(value, tuple) and len(value) == 2:
        return _wave(modality, np.asarray(value[0], dtype=np.float32).reshape(-1), int(value[1]))
    image = np.asarray(value) if hasattr(value, "__array__") else None
    if image is not None and image.ndim == 3 and image.shape[-1] == 3 and image.dtype == np.uint8 and image.size:
        return Content(modality, image=_uri("image/png", _png(image)))
    return Content(modality, missing=f"{type(value).__name__} is not shown")


def _wave(modality: str, wave: np.ndarray, rate: int) -> Content:
    """The waveform drawn, and its first second to play."""
    if not len(wave) or rate < 1:
        return Content(modality, missing="no sound")
    wave = np.nan_to_num(wave, nan=0.0, posinf=0.0, neginf=0.0)
    parts = np.array_split(wave, min(_COLUMNS, len(wave)))
    most = max(float(np.abs(wave).max()), 1e-9)
    upper = [(2.0 * i, 18 - 17 * float(part.max()) / most) for i, part in enumerate(parts)]
    lower = [(2.0 * i, 18.5 - 17 * float(part.min()) / most) for i, part in enumerate(parts)]
    sheet = Sheet(2.0 * _COLUMNS, 37)
    sheet.marks.append(Mark("area", upper + lower[::-1], draw.RIGHT))
    drawn = svg.inline(sheet, f"Waveform of {modality}, {len(wave) / rate:.1f} seconds, largest value {most:.3g}")
    first = wave[: int(_SECONDS * rate)]
    step = max(1, rate // 16_000)
    pcm = (32767 * np.clip(first[::step] / max(1.0, most), -1, 1)).astype("<i2").tobytes()
    rate //= step
    form = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
    body = form + b"data" + struct.pack("<I", len(pcm)) + pcm
    return Content(modality, wave=drawn, sound=_uri("audio/wav", b"RIFF" + struct.pack("<I", len(body)) + body))


def _png(image: np.ndarray) -> bytes:
    """An image ``(H, W, 3)`` uint8 as a PNG of at most 160 pixels a side, each the mean of those that it stands for."""
    for axis in (0, 1):
        step = -(-image.shape[axis] // _SIDE)
        if step > 1:
            starts = np.arange(0, image.shape[axis], step)
            counts = np.diff([*starts, image.shape[axis]])
            sums = np.add.reduceat(image.astype(np.float32), starts, axis=axis)
            image = sums / counts.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    image = np.ascontiguousarray(image.astype(np.uint8))
    height, width = image.shape[:2]
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)  # no filter
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    return _PNG + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
