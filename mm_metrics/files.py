"""Files are written whole or not at all, and hold nothing that JSON does not know."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import Any


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` to `path` by a temporary file beside it, so that no reader ever sees half of it.

    Missing folders are made. A link stays one and its file is written; a device or a pipe is written to, as what else
    uses it must not find a file there. Raises OSError (no room, no permission) with nothing left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    if (given := Path(path)).exists() and not given.is_file() and not given.is_dir():
        given.write_bytes(data)
        return given
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)  # mkstemp's files are the owner's alone; ours are as any other
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return given


def finite(value: Any) -> Any:
    """The value with null for every NaN and infinity in it, neither of which JSON has.

    >>> finite({"loss": float("nan"), "steps": [1, 2.5]})
    {'loss': None, 'steps': [1, 2.5]}
    """
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
