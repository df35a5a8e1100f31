"""One modality of one sample: taken from tensor, array, list, picture or string; its kind; its digest.

Two inputs are the same when their canonical bytes are: floats as float32, integers as int64, strings in Unicode's
normal form C, with the shape, whatever container or width they came in.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TypeAlias

import numpy as np
from torch import Tensor

try:
    import xxhash  # 128 bits at memory speed
except ImportError:  # the standard library's answer is slower and as good
    xxhash = None  # type: ignore[assignment]

Input: TypeAlias = "np.ndarray | str | bytes"
KINDS = ("text", "image", "audio", "other")
NOTHING = np.zeros(2, dtype=np.uint64)  # the digest of an input that is not there


def plain(value: object) -> Input:
    """A numpy array, str or bytes from what data sets hold; raises TypeError for anything else."""
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Tensor):
        tensor = value.detach().to_dense() if value.is_sparse else value.detach()
        return np.asarray(
            (tensor if tensor.dtype.itemsize > 2 or not tensor.is_floating_point() else tensor.float()).cpu()
        )
    if isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value):
        return " ".join(value)
    if hasattr(value, "getbands"):  # a PIL image, without importing PIL
        value = value.convert("RGB") if value.mode in ("P", "CMYK", "YCbCr") else value  # type: ignore[attr-defined]
    try:
        array = np.asarray(value)
    except (ValueError, TypeError):
        array = np.asarray(None)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"an input is a tensor, array, list of numbers, picture or string, got {type(value).__name__}: "
            "name the key that holds one of these in modalities"
        )
    return array


def kind_of(value: Input) -> str:
    """text, image, audio or other, from type and shape alone.

    str and 1-D integers are text; 1-D floats, int16 and one or two channels of them, (1 or 2, T) or (T, 1 or 2), are
    audio; (H, W), (C, H, W) and (H, W, C) are images.

    >>> kind_of("help"), kind_of(np.zeros(8000)), kind_of(np.zeros((3, 32, 32))), kind_of(np.arange(12))
    ('text', 'audio', 'image', 'text')
    """
    if isinstance(value, str):
        return "text"
    if isinstance(value, bytes):
        return "other"
    samples = value.dtype.kind == "f" or value.dtype == np.int16
    if value.ndim == 1 or (value.ndim == 2 and min(value.shape) <= 2):
        return "audio" if samples else "text"
    return "image" if value.ndim in (2, 3) else "other"


def check_kind(value: Input, kind: str) -> None:
    """Raise ValueError for an input that cannot be of the kind that its modality is read as."""
    is_text = isinstance(value, str | bytes)
    shapes = {"text": (0, 1, 2), "image": (2, 3), "audio": (1, 2)}
    if kind == "other" or (kind == "text" and is_text):
        return
    if is_text or np.ndim(value) not in shapes[kind]:
        got = f"a {type(value).__name__}" if is_text else f"shape {np.shape(value)}"
        raise ValueError(f"read as {kind}, got {got}: one kind a modality, or say kinds={{…: 'other'}}")


def trimmed(value: Input, kind: str, mask: np.ndarray | None = None) -> Input | None:
    """The input without what its mask hides and without padding; None where nothing is left to compare.

    Zeros at the end of a text or a recording are padding: how much of it there is depends on the batch. A recording or
    a picture of one constant value (silence, a black frame) says nothing about where it came from.
    """
    if isinstance(value, str | bytes):
        return value if value.strip() else None
    array = value
    if mask is not None and mask.size == array.size:
        array = array.reshape(-1)[mask.reshape(-1) != 0]
    if kind in ("text", "audio"):
        array = array.reshape(-1) if kind == "text" or 1 in array.shape else array
        array = array.T if array.ndim == 2 and array.shape[0] > array.shape[1] else array  # channels, then time
        filled = np.flatnonzero(array if array.ndim == 1 else array.any(axis=0))
        array = array[..., : filled[-1] + 1] if len(filled) else array[..., :0]
    if not array.size or (kind != "text" and array.size > 1 and bool((array == array.flat[0]).all())):
        return None
    return array


def digest(value: Input) -> np.ndarray:
    """``(2,)`` uint64: 128 bits of the canonical bytes; never all zero, which stands for no input.

    >>> bool((digest(np.float64([1, 2])) == digest(np.float16([1, 2]))).all())
    True
    """
    if isinstance(value, str):
        data = b"s" + unicodedata.normalize("NFC", value).encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        data = b"b" + value
    else:
        with np.errstate(over="ignore"):
            flat = value.astype(np.float32) + np.float32(0) if value.dtype.kind == "f" else value.astype(np.int64)
        data = f"{flat.dtype.kind}{flat.shape}".encode() + flat.tobytes()
    bits = xxhash.xxh3_128_digest(data) if xxhash else hashlib.blake2b(data, digest_size=16).digest()
    found = np.frombuffer(bits, dtype=np.uint64)
    return found if found.any() else found + np.uint64(1)


def label_digest(value: object) -> np.ndarray:
    """``(2,)`` uint64 of a label or group: numbers compare as numbers, None, NaN and "" are no label.

    >>> bool((label_digest(3) == label_digest(np.array(3.0))).all()), label_digest(None)
    (True, array([0, 0], dtype=uint64))
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return NOTHING
    value = plain(value)
    if not isinstance(value, str | bytes):
        if not value.size or (value.dtype.kind == "f" and np.isnan(value).all()):
            return NOTHING
        value = value.astype(np.float64) if value.dtype.kind == "f" else value
        value = value.astype(np.int64) if (value == np.round(value)).all() else value
        value = value.reshape(()) if value.size == 1 else value
    return digest(value)
