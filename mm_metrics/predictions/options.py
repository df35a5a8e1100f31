"""How files of predictions are read and scored: data alone, light to import, and so the command line's options."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from mm_metrics.cells import as_text
from mm_metrics.modalities import Modalities
from mm_metrics.predictions.answers import MAX_CLASSES, Answers, found_classes
from mm_metrics.predictions.columns import (
    Columns,
    Renamed,
    check_modalities,
    no_column,
    prediction_columns,
    presence_columns,
    shown,
)
from mm_metrics.predictions.harness import Log
from mm_metrics.tables.source import BLOCK_ROWS, FORMATS, FilePath, Source
from mm_metrics.tasks import JUDGED, Task, task_of

PREDICTION, PRESENCE, COALITION = "prediction", "presence_{modality}", "prediction_{coalition}"  # unless renamed


@dataclass(frozen=True)
class Options:
    """How files of predictions are read and scored. Every argument is an option of ``mm-metrics score``.

    Args:
        modalities: their names, in order
        task: "multiclass", "binary", "multilabel" or "ordinal"
        classes: names of the classes, or labels, as the files have them; one whole number N is 0 … N-1; left out, they
            are found in a first pass over the targets, and binary tasks take 0 and 1, false and true
        positive: the positive class of a binary task; the last one by default
        threshold: binary predictions are probabilities, positive above it; multilabel ones too, with scores: one
            for all labels, or by label, the others at .5
        ignore_case: "Yes" is "yes"
        extract: a regular expression for the part of an answer that counts: its first group that took
            part, or all that it matches
        multiple_choice: classes are letters of options that mean nothing by themselves: accuracy only
        correct: the column of a judge's marks, 1 right and 0 wrong: accuracy only, no target; coalitions' marks are in
            {correct}_{coalition}
        target: the column of the targets
        prediction: the column of the predictions from all modalities
        presence: the columns that say who has a modality, by a pattern or one by one (--presence.audio NAME)
        coalition: the columns of predictions from fewer modalities, by a pattern or one by one (--coalition.text
            NAME)
        group: the column whose equal cells are one speaker, patient or source, whose samples are not independent
        by: columns whose values are slices too; language=de,en names the values that matter, else they are found
        edges: of --task ordinal: rising numbers that cut the scale into classes, such as -1,0,1, or mosi
        id: the column that names a sample; its bootstrap weights follow from it, so that the order of rows does not
            matter and files scored apart are paired
        scores: what the card tells beside accuracy, precision, recall and F1, such as auroc brier top5; answers are
            probabilities then: of the positive class, or of each class or label in their order, 0.1|0.7|0.2
        headline: the score that drops and the table speak of
        always: modalities that every coalition shows, whatever its name says
        bootstrap: replicates that intervals come from
        seed: of the bootstrap; cards with other seeds do not add up
        shard: tells apart shards that are scored by themselves
        skip_bad: leave out rows that can't be read, and say how many; otherwise the first is refused
        format: "csv", "tsv", "jsonl" or "parquet", where the file's suffix does not say it
        delimiter: of a CSV file, such as ";" or "tab"; a comma by default
        encoding: of a text file, such as "latin-1" or "utf-16"
        block_rows: rows in memory at a time
        max_bytes: a bound on what is counted; where it is too little, intervals are left out first, and that is said

    Raises ValueError for arguments that do not go together.
    """

    modalities: Modalities
    task: str = "multiclass"
    classes: tuple[str, ...] | None = None
    positive: str | None = None
    threshold: float | Mapping[str, float] | None = None
    ignore_case: bool = False
    extract: str | None = None
    multiple_choice: bool = False
    correct: str | None = None
    target: str = "target"
    prediction: str = PREDICTION
    presence: Renamed = PRESENCE
    coalition: Renamed = COALITION
    group: str | None = None
    by: Sequence[str] | Mapping[str, Sequence[str]] = ()
    edges: str | Sequence[float] | None = None
    id: str | None = None
    scores: tuple[str, ...] = ()
    headline: str = "f1"
    always: tuple[str, ...] = ()
    bootstrap: int = 200
    seed: int = 0
    shard: int = 0
    skip_bad: bool = False
    format: str | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    block_rows: int = field(default=BLOCK_ROWS, repr=False)
    max_bytes: int = field(default=256 * 2**20, repr=False)  # as of a metric, whose module would wait for torch

    def __post_init__(self) -> None:
        """Check what can be checked without a file."""
        set_ = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731  (frozen)
        set_("modalities", Modalities(self.modalities))
        set_("always", (self.always,) if isinstance(self.always, str) else tuple(self.always))
        set_("scores", (self.scores,) if isinstance(self.scores, str) else tuple(self.scores))
        if self.scores and (self.kind.ordinal or self.judged or self.extract or self.ignore_case):
            raise ValueError(f"scores={list(self.scores)}: answers are then probabilities, not marks, texts or a scale")
        unknown = set(self.always) - set(self.modalities)
        if unknown:
            raise ValueError(f"always names {sorted(unknown)}, the modalities are {self.modalities.names}")
        if self.positive is not None and not self.kind.positive:
            raise ValueError(f"positive={self.positive!r} is for task=binary, this is {self.task}")
        cuts: Mapping[str, Any] = {} if self.threshold is None else {"": self.threshold}
        cuts = self.threshold if isinstance(self.threshold, Mapping) else cuts
        fits = self.scores if self.kind.by_label else self.kind.positive and not cuts.keys() - {""}
        if cuts and not (fits and all(isinstance(cut, int | float) and 0 <= cut <= 1 for cut in cuts.values())):
            need = "--task binary, or, by label too, --task multilabel with --scores"
            raise ValueError(f"threshold={self.threshold}: a fraction in 0…1, of probabilities with {need}")
        if self.multiple_choice and not (self.kind.by_class and self.correct is None):
            raise ValueError("multiple_choice is for task=multiclass, and needs no correct, which says as much")
        if self.correct is not None:
            if not self.kind.by_class or (self.classes or JUDGED[:1]) != JUDGED[:1] or self.extract:
                raise ValueError(f"correct={self.correct!r}: marks need no task, classes or extract, leave them out")
            set_("prediction", self.correct)
            if self.coalition == COALITION:
                set_("coalition", f"{self.correct}_{{coalition}}")
            set_("classes", JUDGED[:1])
        elif self.classes is not None:
            set_("classes", self._classes(tuple(self.classes)))
        elif self.kind.ordinal or (self.kind.positive and self.positive is None):
            set_("classes", ("0", "1"))  # of an ordinal task the edges make the classes
        if not isinstance(self.by, Mapping):
            named = (text.partition("=") for text in self.by)
            set_("by", {column: tuple(filter(None, values.split(","))) for column, _, values in named})
        if isinstance(self.edges, str) and self.edges != "mosi":
            try:
                set_("edges", tuple(map(float, self.edges.split(","))))
            except ValueError:
                raise ValueError(f"edges={self.edges!r}: rising numbers such as -1,0,1, or mosi") from None
        if self.kind.ordinal != (self.edges is not None):
            raise ValueError(f"edges={self.edges!r}: task=ordinal needs some, as -1,0,1 or mosi, and no other does")
        if self.block_rows < 1 or self.bootstrap < 0:
            raise ValueError(f"block_rows={self.block_rows}, bootstrap={self.bootstrap}: one or more, zero or more")
        self._check_reading()

    def _check_reading(self) -> None:
        delimiter = {"tab": "\t", "\\t": "\t"}.get(str(self.delimiter), self.delimiter)
        object.__setattr__(self, "delimiter", delimiter)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise ValueError(f"delimiter={self.delimiter!r}: one character such as ';', or tab")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"format={self.format!r}: one of {', '.join(FORMATS)}")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError(f"encoding={self.encoding!r}: {error}; such as latin-1, cp1252, utf-16") from None
        try:
            re.compile(self.extract or "")
        except re.error as error:
            raise ValueError(f"extract={self.extract!r} is no regular expression: {error}") from None

    def _classes(self, classes: tuple[Any, ...]) -> tuple[str, ...]:
        named = tuple(str(as_text(name)) for name in classes)
        if len(named) == 1 and named[0].isdecimal() and self.kind.by_class:
            if int(named[0]) > MAX_CLASSES:
                raise ValueError(f"classes={named[0]}: at most {MAX_CLASSES:,}")
            named = tuple(map(str, range(int(named[0]))))
        return found_classes(named, self.task, self.positive) if self.positive is not None else named

    @property
    def kind(self) -> Task:
        """What the task is, as a value."""
        return task_of(self.task)

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """The columns that slices are asked by, each with its values; empty ones are found in a first pass."""
        return dict(cast(Mapping[str, tuple[str, ...]], self.by))

    @property
    def complete(self) -> bool:
        """Whether classes and values of columns are known, so that no pass has to find them."""
        return self.classes is not None and all(self.values.values())

    @property
    def judged(self) -> bool:
        """Whether right and wrong are all that is counted."""
        return self.correct is not None or self.multiple_choice

    @property
    def cut(self) -> float | list[float]:
        """The threshold of probabilities, or one for each label."""
        if not isinstance(self.threshold, Mapping):
            return 0.5 if self.threshold is None else self.threshold
        if unknown := set(self.threshold) - set(self.classes or ()):
            raise ValueError(f"threshold names {sorted(unknown)}, the labels are {list(self.classes or ())[:20]}")
        return [self.threshold.get(label, 0.5) for label in self.classes or ()]

    @property
    def answers(self) -> Answers:
        """How cells become class numbers. Raises ValueError where no classes are known."""
        if self.classes is None:
            raise ValueError("classes=None: they are found in files only, name them to score rows")
        cut = None if isinstance(self.threshold, Mapping) else self.threshold
        return Answers(self.task, self.classes, cut, self.ignore_case, self.extract, bool(self.scores))

    def source(self, path: FilePath) -> Source:
        """A file that is read as these options say."""
        return Log.of(path, self.format, self.delimiter, self.encoding)

    def columns(self, header: Iterable[str], where: str = "the rows") -> Columns:
        """Which column is what. Raises ValueError where one is missing, or has blanks around its name."""
        header = list(header)
        clean = [name.strip() for name in header]
        if clean != header and len(set(clean)) == len(clean):
            read = {name for name, text in zip(clean, header, strict=True) if name != text}
            if blank := read & set(self._named(clean, where).wanted):
                blank_names = [name for name in header if name.strip() in blank]
                raise ValueError(f"{where}: blanks around the names {shown(blank_names)}: take them out of the header")
        return self._named(header, where)

    def _named(self, header: list[str], where: str) -> Columns:
        presence = presence_columns(header, self.modalities, self.presence)
        always = sum(self.modalities.mask(name) for name in self.always)
        predictions, unread = prediction_columns(header, self.modalities, self.prediction, self.coalition, always)
        target = None if self.correct else self.target
        for name, option in ((target, "target"), (self.id, "id"), (self.group, "group"), *((c, "by") for c in self.by)):
            if name is not None and name not in header:
                raise no_column(where, name, header, option)
        if self.prediction not in header and (self.prediction != PREDICTION or not predictions):
            raise no_column(where, self.prediction, header, "correct" if self.correct else "prediction")
        if not presence:
            self.check_presence(where, header)
        renamed = self.coalition not in (COALITION, f"{self.correct}_{{coalition}}")
        if renamed and not unread and set(predictions.values()) <= {self.prediction}:
            raise no_column(where, str(self.coalition), header, "coalition")
        columns = Columns(target, presence, predictions, self.id, self.group, tuple(self.by), unread)
        patterns = (self.presence, PRESENCE), (self.coalition, COALITION)
        named = [given if isinstance(given, str) else usual for given, usual in patterns]
        check_modalities(header, self.modalities, columns, (named[0], named[1]), always)
        return columns

    def check_presence(self, where: object, header: list[str]) -> None:
        """Raise ValueError where a pattern of columns was named and none of those is there."""
        if self.presence != PRESENCE:
            raise no_column(where, str(self.presence), header, "presence")
