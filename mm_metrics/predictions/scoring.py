"""Files or blocks of predictions to a scorecard: which columns and classes there are, then one pass that counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mm_metrics.cells import as_labels, as_text
from mm_metrics.counts.other import closed
from mm_metrics.modalities import Modalities
from mm_metrics.predictions.answers import MAX_CLASSES, Answers, check_label, found_classes
from mm_metrics.predictions.columns import Columns, Renamed, prediction_columns, presence_columns, shown
from mm_metrics.predictions.reading import BLOCK_ROWS, Block, FilePath, blocks, columns_of
from mm_metrics.predictions.rows import card_of, coded, count, distinct, metric
from mm_metrics.predictions.strays import BadRows, Outside
from mm_metrics.scorecard import Scorecard
from mm_metrics.tasks import JUDGED, task_of


class Scored(NamedTuple):
    """A scorecard, and what a reader of it has to know, one sentence each."""

    card: Scorecard
    notes: list[str]


@dataclass(frozen=True)
class Predictions:
    """How files of predictions are read and scored. Every argument is an option of ``mm-metrics score``.

    Args:
        modalities: their names, in order.
        task: "multiclass", "binary" or "multilabel".
        classes: names of the classes, or labels, as the files have them; one whole number N is 0 … N-1. Left out,
            they are found in a first pass over the targets; binary tasks take 0 and 1, false and true.
        positive: the positive class of a binary task; the last one by default.
        threshold: binary predictions are probabilities, positive above it.
        ignore_case: "Yes" is "yes".
        correct: the column of a judge's marks, 1 right and 0 wrong; coalitions' marks in ``{correct}_{coalition}``.
        target, prediction: names of the columns of targets and of predictions from all modalities.
        presence, coalition: names of the columns by a pattern, or a mapping from modality, coalition to name.
        id: the column that names a sample; its bootstrap weights follow from it, so that the order of rows does not
            matter and files scored apart are paired.
        always: modalities that every coalition shows, whatever its name says.
        bootstrap, seed, shard: as in the metrics.
        skip_bad: leave out rows that can't be read, and say how many; otherwise the first raises ValueError.

    >>> how = Predictions(("text", "audio"), classes=("flood", "siren"), bootstrap=0)
    >>> rows = {"target": ["flood", "siren"], "prediction": ["flood", "don't know"], "presence_audio": [0, 1]}
    >>> card = how.score_rows(rows)
    >>> card.score("accuracy"), card.score("accuracy", slice="audio"), card.score("recall")
    (0.5, 0.0, 0.5)
    """

    modalities: Modalities
    task: str = "multiclass"
    classes: tuple[str, ...] | None = None
    positive: str | None = None
    threshold: float | None = None
    ignore_case: bool = False
    correct: str | None = None
    target: str = "target"
    prediction: str = "prediction"
    presence: Renamed = "presence_{modality}"
    coalition: Renamed = "prediction_{coalition}"
    id: str | None = None
    always: tuple[str, ...] = ()
    bootstrap: int = 200
    seed: int = 0
    shard: int = 0
    skip_bad: bool = False
    block_rows: int = field(default=BLOCK_ROWS, repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for arguments that do not go together."""
        set_ = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (frozen)
        set_("modalities", Modalities(self.modalities))
        set_("always", (self.always,) if isinstance(self.always, str) else tuple(self.always))
        task_of(self.task)
        unknown = set(self.always) - set(self.modalities)
        if unknown:
            raise ValueError(f"always names {sorted(unknown)}, the modalities are {self.modalities.names}")
        if self.positive is not None and self.task != "binary":
            raise ValueError(f"positive={self.positive!r} is for task=binary, this is {self.task}")
        if self.correct is not None:
            if self.task != "multiclass" or self.classes or self.threshold is not None:
                raise ValueError(f"correct={self.correct!r}: marks need no task, classes or threshold, leave them out")
            set_("prediction", self.correct)
            if self.coalition == "prediction_{coalition}":
                set_("coalition", f"{self.correct}_{{coalition}}")
            set_("classes", JUDGED[:1])
        elif self.classes is not None:
            set_("classes", self._classes(tuple(self.classes)))
        elif self.task == "binary" and self.positive is None:
            set_("classes", ("0", "1"))
        if self.block_rows < 1 or self.bootstrap < 0:
            raise ValueError(f"block_rows={self.block_rows}, bootstrap={self.bootstrap}: one or more, zero or more")

    def _classes(self, classes: tuple[Any, ...]) -> tuple[str, ...]:
        named = tuple(str(as_text(name)) for name in classes)
        if len(named) == 1 and named[0].isdecimal() and self.task == "multiclass":
            if int(named[0]) > MAX_CLASSES:
                raise ValueError(f"classes={named[0]}: at most {MAX_CLASSES:,}")
            named = tuple(map(str, range(int(named[0]))))
        return found_classes(named, self.task, self.positive) if self.positive is not None else named

    @property
    def answers(self) -> Answers:
        """How cells become class numbers. Raises ValueError where no classes are known."""
        if self.classes is None:
            raise ValueError("classes=None: they are found in files only, name them to score rows")
        return Answers(self.task, self.classes, self.threshold, self.ignore_case)

    def columns(self, header: Iterable[str], where: str = "the rows") -> Columns:
        """Which column is what. Raises ValueError where one is missing."""
        header = list(header)
        presence = presence_columns(header, self.modalities, self.presence)
        always = sum(self.modalities.mask(name) for name in self.always)
        predictions, unread = prediction_columns(header, self.modalities, self.prediction, self.coalition, always)
        target = None if self.correct else self.target
        for name, option in ((target, "target"), (self.id, "id")):
            if name is not None and name not in header:
                raise ValueError(f"{where}: no column {name!r}, there are {shown(header)}: --{option} NAME says which")
        if not predictions:
            raise ValueError(
                f"{where}: no column {self.prediction!r}, there are {shown(header)}: "
                f"--{'correct' if self.correct else 'prediction'} NAME says which"
            )
        return Columns(target, presence, predictions, self.id, unread)

    def score_rows(self, rows: Any, first: int = 0) -> Scorecard:
        """A block of rows to a scorecard; cards of several blocks add up, so that any engine can map this.

        `rows` is a mapping from column to list, array or pyarrow array, or a pyarrow batch or table; `first` the
        number of its first row among all rows, so that blocks do not share bootstrap weights. Raises ValueError for
        cells that can't be read, `skip_bad` or not.
        """
        names = list(rows) if isinstance(rows, Mapping) else rows.schema.names
        table = {name: rows[name] for name in names}
        columns = self.columns(names)
        N = len(table[columns.wanted[0]])
        block = Block(np.arange(N), {name: table[name] for name in columns.wanted}, N)
        if any(len(cells) != N for cells in block.columns.values()):
            raise ValueError(f"rows: columns of {sorted({len(cells) for cells in block.columns.values()})} cells each")
        found, problems = coded(block, columns, self.answers, self.modalities, first)
        if problems:
            raise ValueError(f"row {problems[0].row}, column {problems[0].column!r}: {problems[0].reason}")
        counter = metric(self, tuple(columns.predictions))
        count(counter, found)
        # Blocks may well hold equal counts: what tells them apart is where they begin.
        card = card_of(counter, self.task, by_id=True)
        return closed(replace(card, added=frozenset(f"{first}:{N}:{part}" for part in card.parts)))

    def score_files(self, files: Sequence[FilePath]) -> Scored:
        """Files to one scorecard, in one pass, or two where the classes have to be found; rows are numbered through.

        Raises ValueError for what can't be read, naming file, line and column.
        """
        if not files:
            raise ValueError("files is empty: at least one is due")
        notes: list[str] = []
        columns = self._common_columns(files, notes)
        how = self.with_classes([(path, columns) for path in files], notes)
        bad, outside, first = BadRows(self.skip_bad), Outside(), 0
        counter = metric(how, tuple(columns.predictions))
        for path in files:
            end = 0
            for block in blocks(path, columns.wanted, bad.unreadable(path), self.block_rows):
                found, problems = coded(block, columns, how.answers, self.modalities, first, outside)
                bad.add(path, problems)
                count(counter, found)
                end = block.end
            first += end
        card = card_of(counter, self.task, self.id is not None, files=[Path(path).name for path in files], rows=first)
        return how.told(card, notes, bad, outside)

    def score_runs(self, runs: Iterable[tuple[str, FilePath]], files: Sequence[FilePath] = ()) -> Scored:
        """Runs that were each shown one coalition, ``(coalition, file)``, joined by `id` to one scorecard.

        Targets and presence come from the runs or from further `files`. Raises ValueError for what can't be read, an
        id twice in a file, and files that do not agree on a sample.
        """
        from mm_metrics.predictions.runs import score_runs

        return score_runs(self, runs, files)

    def told(self, card: Scorecard, notes: list[str], bad: BadRows, outside: Outside) -> Scored:
        """The card, closed where every answer was a class, with its notes; ValueError where nothing was counted."""
        if not card.samples:
            raise ValueError(f"no row was counted{'; ' + bad.said() if bad.rows else ': the files hold none'}")
        if bad.rows:
            notes = [bad.said(), *notes]
            card = replace(card, info={**card.info, "skipped_rows": bad.rows})
        strays = {} if card.judged else {name: card.outside(name) for name in card.coalitions}
        if any(strays.values()):
            notes = [outside.said(card), *notes]
            card = replace(card, info={**card.info, "answers_outside_the_classes": strays})
        return Scored(closed(card), notes)

    def _common_columns(self, files: Sequence[FilePath], notes: list[str]) -> Columns:
        columns = self.columns(columns_of(files[0]), str(files[0]))
        for path in files[1:]:
            other = self.columns(columns_of(path), str(path))
            if set(other.wanted) != set(columns.wanted):
                different = sorted(set(other.wanted) ^ set(columns.wanted))
                raise ValueError(
                    f"{path} and {files[0]} have different columns: {shown(different)} in one of them only"
                )
        self.note_columns(columns, notes)
        return columns

    def note_columns(self, columns: Columns, notes: list[str]) -> None:
        """Say what is missing and what is not read."""
        missing = [name for name in self.modalities if name not in columns.presence]
        if missing:
            notes.append(f"No presence column for {', '.join(missing)}: taken as present in every sample.")
        if columns.unread:
            notes.append(f"Not read, as they name no coalition of {self.modalities.names}: {shown(columns.unread)}.")

    def with_classes(self, sources: Iterable[tuple[FilePath, Columns]], notes: list[str]) -> Predictions:
        """The same with the classes that the targets hold, by a pass over them, where none are named."""
        if self.classes is not None:
            return self
        seen: dict[str, str] = {}
        plan = list(sources)
        for path, columns in plan:
            if columns.target is None:
                continue
            for block in blocks(path, [columns.target], lambda row, reason: None, self.block_rows):
                _, cells = distinct(block.columns[columns.target])
                for text in self._labels(cells):
                    seen.setdefault(text.casefold() if self.ignore_case else text, text)
                if len(seen) > MAX_CLASSES:
                    raise ValueError(
                        f"{path}: {columns.target!r} holds more than {MAX_CLASSES:,} different values: "
                        "is it the right column? Free text is marked by a judge: --correct COLUMN"
                    )
        if not seen:
            raise ValueError(f"no class was found, as no row has a target: {', '.join(str(path) for path, _ in plan)}")
        classes = found_classes(seen.values(), self.task, self.positive)
        listed = ", ".join(repr(name)[:60] for name in classes[:10]) + (", …" if len(classes) > 10 else "")
        notes.append(f"{len(classes)} classes were found in the targets: {listed}. --classes names them for good.")
        return replace(self, classes=classes)

    def _labels(self, cells: list[Any]) -> Iterator[str]:
        for cell in cells:
            try:
                labels = as_labels(cell) if self.task == "multilabel" else [as_text(cell)]
            except ValueError:
                continue  # said, with its line, when it is to be counted
            for text in labels:
                if text:
                    check_label(text)
                    yield text
