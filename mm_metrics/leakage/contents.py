"""What an entry stands for: itself, or what the file holds that it is the path of; nothing is fetched."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

import numpy as np

from mm_metrics.leakage.inputs import COLOURS, Input, digest, hasher, plain

MEDIA = (
    "wav flac mp3 ogg oga opus m4a m4b aac wma aif aiff aifc au caf amr w64 rf64 sph "
    "png jpg jpeg jpe jfif bmp gif webp tif tiff heic heif avif jp2 ppm pgm svg dcm nii "
    "mp4 webm mkv avi mov mpg mpeg m4v flv wmv 3gp npy npz pt pth safetensors h5 hdf5 mat pkl"
).replace(" ", "|")
ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*://|data:[a-z]+/)\S+", re.IGNORECASE)
LOCAL = re.compile(r"file:(?://(?:localhost(?=/))?)?", re.IGNORECASE)
PATH = re.compile(
    rf".*\.(?:{MEDIA})[\s\"'\])}}]*"  # ends like a file of media
    rf"|\S*\.(?:{MEDIA})(?![a-z0-9])\S*"  # names a part of one: talk.wav:800:1600
    r"|\S*[/\\]\S*\.[a-z]\w{0,7}"  # a folder and an ending: features/7.emb
    r"|(?:/|~/|\.{1,2}/|[a-z]:[/\\])\S+[/\\]\S+",  # a folder from the root: /data/clips/7
    re.IGNORECASE,
)
TEXTS, ARRAYS, TENSORS = (".txt", ".md", ".srt", ".vtt", ".lab"), (".npy", ".npz"), (".pt", ".pth")
PICTURES = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
SOUNDS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "RF64", "W64", "NIST", "VOC")
DECODED = re.compile(r"(?i)\.(?:txt|np[yz]|pth?|wav|flac|ogg|mp3|aiff|au|w64|png|jpe?g|gif|bmp|webp|tiff?|ppm)$")
LARGEST = 2**27  # numbers of one decoded file; a larger one is compared by its bytes
READ = 2**20  # bytes at a time
LONGEST = 4096  # letters of a path
PART = re.compile(r"[^\W_]")  # "." and ".." are words too
FRAMES = ("GIF", "WEBP", "TIFF", "PNG", "AVIF")


@dataclass(frozen=True)
class Entry:
    """An input; how it is compared, by ``value``, ``text``, ``content`` or ``bytes``; what its content tells."""

    value: Input
    how: str
    kind: str | None = None
    rate: float | None = None  # Hz
    odd: str = ""  # why it is not compared, or not by its content


def entry_of(value: Any, folder: Path | None = None, as_text: bool = False) -> Entry:
    """The input that an entry of a sample stands for; paths start at a manifest's ``folder``, else at the program's.

    A string or `Path` of a file is what the file holds, decoded where it can be; bytes are a file without a name, and
    a mapping is read as Hugging Face writes sounds and pictures (``array``, ``bytes``, ``path``). With ``as_text`` a
    string is its letters, whatever it names. Raises ValueError for a remote address, a folder, a path without a file,
    and for what is no input.

    >>> entry_of("smoke on the second floor")
    Entry(value='smoke on the second floor', how='text', kind=None, rate=None, odd='')
    >>> entry_of("clips/7.flac")
    Traceback (most recent call last):
    ValueError: 'clips/7.flac' looks like a file and there is none: mend the path, or say kinds={…: 'text'} to ...
    """
    if isinstance(value, os.PathLike):
        return _file(_found(os.fspath(value), folder) or _refuse(os.fspath(value), "is a path and there is no file"))
    if isinstance(value, Mapping):
        for key in ("array", "bytes", "path"):
            if value.get(key) is not None:
                found = entry_of(value[key], folder)
                return replace(found, rate=value.get("sampling_rate") or found.rate)
        raise ValueError(f"a mapping of {sorted(map(str, value))}, expected one of array, bytes, path")
    if isinstance(value, str) and not as_text:
        return _named(value, folder) or Entry(value, "text")
    if isinstance(value, bytes | bytearray | memoryview):
        return _file(bytes(value))
    if isinstance(value, list | tuple) and not as_text and value and all(_names(part, folder) for part in value):
        files = [entry_of(part, folder) for part in value]  # frames of a video
        how = "content" if all(file.how == "content" for file in files) else "bytes"
        return Entry(b"".join(digest(file.value).tobytes() for file in files), how)
    array = plain(value)
    return Entry(array, "text" if isinstance(array, str) else "value")


def _named(text: str, folder: Path | None) -> Entry | None:
    """The file that a string names; None where it names none and does not look as if it did."""
    if (path := _found(text, folder)) is not None:
        return _file(path)
    return _refuse(text, looks) if (looks := _looks(text, folder)) else None


def _names(part: object, folder: Path | None) -> bool:
    """Whether an entry of a list is or looks like a file."""
    text = os.fspath(part) if isinstance(part, os.PathLike) else part
    return isinstance(text, str) and bool(_found(text, folder) or _looks(text, folder))


def _looks(text: str, folder: Path | None) -> str | None:
    """What a string looks like that is no text."""
    if any(map(os.path.isdir, _places(text, folder))) and (folder is not None or "/" in text) and PART.search(text):
        return "is a folder: name the files in it, a list of them where they are frames"
    if ADDRESS.fullmatch(text.strip()):
        return "is an address, and nothing is fetched: give the path of a file"
    is_path = len(text) <= LONGEST and PATH.fullmatch(text.strip())
    return "looks like a file and there is none: mend the path" if is_path else None


def _refuse(text: str, what: str) -> Any:
    raise ValueError(f"{text.strip()[:200]!r} {what}, or say kinds={{…: 'text'}} to compare letters")


def _found(text: str, folder: Path | None) -> Path | None:
    return next((Path(path) for path in _places(text, folder) if os.path.isfile(path)), None)


def _places(text: str, folder: Path | None) -> dict[str, None]:
    """The paths that a string may mean: a file: address, ~, and an accented letter in either of Unicode's forms too."""
    name = text.strip()
    if not name or len(name) > LONGEST:
        return {}
    if local := LOCAL.match(name):
        name = unquote(name[local.end() :])
    name = os.path.expanduser(name)
    forms = [name] if name.isascii() else [name, normalize("NFC", name), normalize("NFD", name)]
    return dict.fromkeys(os.path.join(start, form) for start in (folder or "", "") for form in forms)


def _file(file: Path | bytes) -> Entry:
    name = file.name if isinstance(file, Path) else "a file"
    for decode in (_by_ending, _picture, _sound):
        try:
            if (found := decode(file)) is not None:
                return found if np.size(found.value) else replace(found, odd=f"{name} is empty")
        except Exception:  # each decoder has its own ways to say that these bytes are none of its kind
            continue
    hashed, size = hasher(), 0
    with io.BytesIO(file) if isinstance(file, bytes) else file.open("rb") as stream:
        while part := stream.read(READ):
            hashed.update(part)
            size += len(part)
    if not size:
        return Entry(b"", "bytes", odd=f"{name} is empty")
    odd = f"{name} is cut off, damaged or too large, so its bytes are compared" if DECODED.search(name) else ""
    return Entry(hashed.digest() + size.to_bytes(8, "little"), "bytes", odd=odd)


def _by_ending(file: Path | bytes) -> Entry | None:
    """A text; an array or a tensor; or several of these under names, as one input."""
    ending = file.suffix.lower() if isinstance(file, Path) else ""
    if isinstance(file, bytes) or ending not in TEXTS + ARRAYS + TENSORS:
        return None
    if ending in TEXTS:
        return Entry(file.read_text("utf-8-sig"), "content")
    if ending in ARRAYS:
        found = np.load(file, allow_pickle=False)
    else:
        import torch

        found = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping) or len(found) == 1:
        return Entry(plain(next(iter(found.values())) if isinstance(found, Mapping) else found), "content")
    parts = (str(name).encode() + digest(plain(found[name])).tobytes() for name in sorted(found, key=str))
    return Entry(b"".join(parts), "content")


@cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in PICTURES if name in Image.OPEN)


def _picture(file: Path | bytes) -> Entry:
    """(H, W) or (H, W, colours); the frames of an animation lie one below the other."""
    from PIL import Image, ImageSequence

    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_formats()) as picture:
        number = getattr(picture, "n_frames", 1) if picture.format in FRAMES else 1
        if number * picture.width * picture.height > LARGEST:
            raise ValueError("too large")
        if number == 1:
            return Entry(_pixels(picture), "content", "image")
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    return Entry(np.concatenate(frames), "content", "image")


def _pixels(picture: Any) -> np.ndarray:
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        array = np.asarray(picture.convert("RGBA"))
        return array if (array[..., 3] != 255).any() else array[..., :3]
    return np.asarray(picture.convert("RGB") if picture.mode in COLOURS else picture)


def _sound(file: Path | bytes) -> Entry:
    """(T,), or (channels, T), with its rate."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(file) if isinstance(file, bytes) else file) as sound:
        if sound.format not in SOUNDS or sound.frames * sound.channels > LARGEST:
            raise ValueError("no sound, or too long")
        return Entry(sound.read(dtype="float32").T, "content", "audio", float(sound.samplerate))
