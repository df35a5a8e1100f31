"""One modality of one sample: taken from tensor, array, list, picture or string; its kind; its digest.

Two inputs are the same when their canonical bytes are: floats as float32, integers as int64, strings in Unicode's
normal form C, with the shape, whatever container or width they came in.
"""

from __future__ import annotations

import hashlib
import unicodedata
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from mm_metrics.cells import as_labels, as_list

try:
    from xxhash import xxh3_128 as hasher  # 128 bits at memory speed
except ImportError:  # the standard library's answer is slower and as good
    hasher = partial(hashlib.blake2b, digest_size=16)  # type: ignore[misc, assignment]

Input: TypeAlias = "np.ndarray | str | bytes"
KINDS = ("text", "image", "audio", "other")
NOTHING = np.zeros(2, dtype=np.uint64)  # the digest of an input that is not there
COLOURS = ("1", "L", "P", "CMYK", "YCbCr", "HSV", "LAB")  # modes of pictures whose content RGB holds


def plain(value: object) -> Input:
    """A numpy array, str or bytes from what data sets hold; raises TypeError for anything else."""
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Tensor):
        tensor = value.detach().to_dense() if value.is_sparse else value.detach()
        tensor = tensor.float() if tensor.is_floating_point() and tensor.dtype.itemsize <= 2 else tensor
        return np.asarray(tensor.cpu())
    if isinstance(value, list | tuple) and value and all(isinstance(word, str) for word in value):
        return " ".join(value)
    if hasattr(value, "getbands"):  # a PIL image, without importing PIL
        value = value.convert("RGB") if value.mode in COLOURS[2:] else value  # type: ignore[attr-defined]
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
    found = np.frombuffer(hasher(data).digest(), dtype=np.uint64)
    return found if found.any() else found + np.uint64(1)


def names_of(value: Any) -> list[str]:
    """Every label or group of an entry, read as in prediction files; none where it is None, NaN or "".

    >>> names_of(12.0), names_of(" 12"), names_of(np.int64(12)), names_of(["anna", "ben"]), names_of("anna|ben")
    (['12'], ['12'], ['12'], ['anna', 'ben'], ['anna', 'ben'])
    """
    if isinstance(value, Tensor | np.ndarray | np.generic):
        array = np.asarray(plain(value) if isinstance(value, Tensor) else value)
        # as a Python float, float32's 3.14 is 3.140000104…
        short = array.dtype in (np.float16, np.float32)
        value = [float(str(x)) for x in array.reshape(-1)] if short else array.reshape(-1).tolist()
    value = as_list(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [name for part in value for name in names_of(part)]
    names = as_labels(str(value) if isinstance(value, date | Decimal) else value)
    return [{"True": "true", "False": "false"}.get(name, name) for name in names]  # CSV's words for true and false


def label_digest(value: Any) -> np.ndarray:
    """``(2,)`` uint64 of a label, or of the set of them; a vector (one-hot, soft labels, values) has an order.

    >>> bool((label_digest(3) == label_digest(" 3.0")).all()), label_digest(None)
    (True, array([0, 0], dtype=uint64))
    >>> bool((label_digest(["smoke", "flood"]) == label_digest("flood|smoke")).all())
    True
    """
    value = as_list(value)
    several = isinstance(value, list | tuple | set | frozenset)
    numbers = isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")
    if numbers or (several and all(isinstance(part, int | float) for part in value)):
        array = np.asarray(plain(list(value) if several else value))
        a_set = several and not np.isin(array, (0, 1)).all() and (array == np.round(array)).all()
        if array.size > 1 and not a_set:
            return digest(array.astype(np.float32))
    names = names_of(value)
    return digest("|".join(sorted(set(names)))) if names or (several and not value) else NOTHING
