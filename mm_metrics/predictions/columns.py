"""Which column is what: from a header and the options that rename."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mm_metrics.modalities import Modalities, meant

Renamed = str | Mapping[str, str]  # a pattern such as "presence_{modality}", or a name for each


@dataclass(frozen=True)
class Columns:
    """The columns that are read, and what they hold."""

    target: str | None
    presence: dict[str, str]  # modality → column; empty: every sample has every modality
    predictions: dict[int, str]  # mask of a coalition → column
    id: str | None = None
    group: str | None = None
    by: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()  # look like predictions of a coalition, and of none that there is

    @property
    def wanted(self) -> list[str]:
        """Every column once."""
        named = [self.id, self.group, self.target, *self.by, *self.presence.values(), *self.predictions.values()]
        return list(dict.fromkeys(name for name in named if name is not None))


def presence_columns(header: Iterable[str], modalities: Modalities, renamed: Renamed) -> dict[str, str]:
    """The column of each modality's presence; all or none. Raises ValueError where only some are there."""
    header, given = list(header), dict(renamed) if isinstance(renamed, Mapping) else {}
    if unknown := set(given) - set(modalities):
        raise ValueError(f"presence names {sorted(unknown)}, the modalities are {modalities.names}")
    head, _, tail = _pattern("presence_{modality}" if isinstance(renamed, Mapping) else renamed, "modality")
    # A modality without a column is always there, as text is where every sample is a question; a typo must not pass.
    if lost := [column for column in given.values() if column not in header]:
        raise no_column("presence", lost[0], header, "presence.MODALITY")
    named = {name: head + name + tail for name in modalities} | given
    return {name: column for name, column in named.items() if column in header}


def prediction_columns(
    header: Iterable[str], modalities: Modalities, whole: str, renamed: Renamed, always: int = 0
) -> tuple[dict[int, str], tuple[str, ...]]:
    """The column of each coalition's predictions, coalitions in any order of their modalities; and what is unread.

    `whole` is the column of all modalities; `always` a mask of those in every coalition, named or not.
    """
    found: dict[int, list[str]] = {}
    unread = []
    header = list(header)
    if isinstance(renamed, Mapping):
        pairs = list(renamed.items())
        for coalition, column in pairs:
            if column not in header:
                raise no_column("coalition", column, header, f"coalition.{coalition}")
    else:
        head, _, tail = map(re.escape, _pattern(renamed, "coalition"))
        fits = (re.fullmatch(f"{head}(.+){tail}", name, re.DOTALL) for name in header)
        pairs = [(match[1], match[0]) for match in fits if match]
    for coalition, column in pairs:
        try:
            found.setdefault(modalities.mask(coalition) | always, []).append(column)
        except ValueError:
            if isinstance(renamed, Mapping):
                raise
            unread.append(column)
    if whole in header:
        found.setdefault(modalities.full, []).append(whole)
    for mask, names in found.items():
        if len(set(names)) > 1:
            raise ValueError(f"columns {names} are all predictions of {modalities.name(mask)}: one is due")
    return {mask: found[mask][0] for mask in sorted(found)}, tuple(name for name in unread if name != whole)


def no_column(where: object, name: str, header: Iterable[str], option: str) -> ValueError:
    """That a column is not there, which are, and the option that names one."""
    header = list(header)
    told = f"{where}: no column {name!r}, there are {shown(header)}: --{option} NAME says which"
    return ValueError(told + meant(name, header))


def check_modalities(
    header: Iterable[str], modalities: Modalities, columns: Columns, patterns: tuple[str, str], always: int = 0
) -> None:
    """Raise ValueError for a modality without any column beside columns of one that is none: one of them is mistyped.

    `patterns` are those of presence and of coalitions; `always` a mask of modalities that need none.
    """
    held = always | sum(1 << modalities.names.index(name) for name in columns.presence)
    for mask in columns.predictions:
        held |= mask if mask != modalities.full else 0
    lost = [name for m, name in enumerate(modalities) if not held >> m & 1]
    strange: dict[str, str] = {}
    for pattern, key in zip(patterns, ("modality", "coalition"), strict=True):
        head, _, tail = _pattern(pattern, key)
        for column in header:
            parts = column[len(head) : len(column) - len(tail)].split("-") if column.startswith(head) else []
            new = [
                part for part in parts if part and column.endswith(tail) and part not in (*modalities, "all", "none")
            ]
            sure = key == "modality" or len(new) < len(parts) or any(meant(part, lost) for part in new)
            strange |= dict.fromkeys(new, column) if sure else {}
    if lost and strange:
        part, column = next(iter(strange.items()))
        raise ValueError(
            f"--modalities {' '.join(modalities)}: {lost[0]!r} has no column, and {column!r} is of none of them"
            f"{meant(lost[0], strange) or f': is it {part!r}?'} (--always {lost[0]} says that every sample has it)"
        )


def shown(names: Iterable[str]) -> str:
    """Column names fit for a message."""
    names = list(names)
    return ", ".join(repr(name[:60]) for name in names[:20]) + (", …" if len(names) > 20 else "")


def _pattern(renamed: str, key: str) -> tuple[str, str, str]:
    if renamed.count(f"{{{key}}}") != 1:
        raise ValueError(f"{renamed!r} is no pattern of column names: it holds {{{key}}} once")
    return renamed.partition(f"{{{key}}}")
