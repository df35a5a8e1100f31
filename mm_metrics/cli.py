"""``mm-metrics score | report | gate | leakage | merge``: what the library does, on files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from glob import glob
from itertools import chain
from typing import TYPE_CHECKING, Any

from mm_metrics.files import finite, write_whole

if TYPE_CHECKING:
    from mm_metrics.scorecard import Scorecard
    from mm_metrics.verdict import Finding

EXIT = {"good": 0, "bad": 1, "mixed": 2, "undecided": 3}
_FINDINGS = 10  # that gate prints
USAGE, REFUSED, CRASHED, INTERRUPTED = 4, 5, 6, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is returned and never raised.

    >>> main(["gate"]) >= 4
    True
    """
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # a file's words on a terminal without their letters
        from mm_metrics.cli_options import pairs_read, parser

        settings = parser().parse_args(pairs_read(sys.argv[1:] if arguments is None else arguments))
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *where: _said(str(message), 0)  # type: ignore[assignment]
            return COMMANDS[settings.command](settings[settings.command])
    except SystemExit as stop:
        return 0 if stop.code in (0, None) else USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads the output has gone; say no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return REFUSED
    except (ValueError, TypeError, OSError, ImportError) as error:
        return _said(str(error), REFUSED)
    except Exception as error:  # a crash must not look like the verdict "bad", which is Python's own exit code 1
        if os.environ.get("MM_METRICS_DEBUG"):
            import traceback

            traceback.print_exc()
        return _said(f"{type(error).__name__}: {error} (this is a bug; MM_METRICS_DEBUG=1 shows where)", CRASHED)


def score(settings: Any) -> int:
    """Files to a scorecard."""
    from mm_metrics.predictions import Predictions, cut

    options = settings.as_dict()
    files, output, config, engine, workers, run = _taken(
        options, "files", "output", "config", "engine", "workers", "run"
    )
    runs = list(_pairs(run, "--run COALITION=FILE, such as text-image=full.jsonl").items())
    options["threshold"], chosen = cut.read(
        _by_name(options["threshold"], "one number or file, or LABEL=NUMBER"), _file
    )
    with _written(output, [*files, *(path for _, path in runs), *(config or ())]) as (path, say):
        if len(files) == 1 and (card := _book(files[0], options["modalities"])):
            notes = ["The file is a book of samples: they are counted as they were, whatever else is asked for."]
        elif options["modalities"] is None:
            raise ValueError("--modalities NAME NAME … is due: their names, in order")
        else:
            predictions = Predictions(**options)
            if engine == "ray":
                if runs or "-" in files:
                    raise ValueError("--engine ray reads files: runs are joined, and input is read, by --engine local")
                from mm_metrics.predictions import engine as on_ray

                card, notes = on_ray.score_files(predictions, files, workers)
            else:
                card, notes = predictions.score_runs(runs, files) if runs else predictions.score_files(files)
        cut.note(card, chosen)
        if path:
            card.to_json(path)
        for text in (*notes, card.table()):
            say(text)
    return 0


def diff(settings: Any) -> int:
    """Two scorecards, or two books of samples, to what changed."""
    if all(path.endswith((".parquet", ".pq")) for path in (settings.old, settings.new)):
        from mm_metrics.predictions.diff import compare_books

        print(compare_books(_file(settings.old), _file(settings.new)))
    else:
        print((_card(settings.new) - _card(settings.old)).table())
    return 0


def threshold(settings: Any) -> int:
    """A scorecard to the threshold of probabilities at which a score reaches a bar; 1 where none does."""
    from mm_metrics.predictions import cut

    options = settings.as_dict()
    file, output, slice, label, _ = _taken(options, "card", "output", "slice", "label", "config")
    card, asked = _card(file), {name: value for name, value in options.items() if value is not None}
    if len(asked) != 1:
        raise ValueError(f"one bar is due, such as --recall 0.9: there are {len(asked)}")
    ((name, bar),) = asked.items()
    if not 0 <= bar <= 1:
        raise ValueError(f"--{name} {bar:g} is no fraction: expected a number in 0…1, such as 0.9")
    points = card.threshold(name, bar, slice, label)
    points = points if isinstance(points, dict) else {(label or "") if card.kind.by_label else "": points}
    with _written(output, [file]) as (path, say):
        for of, point in points.items():
            said = f"no threshold reaches {name} {bar:g}"
            if point is not None:
                scored = (f"{score} {value:.3f}" for score, value in point._asdict().items() if score != "threshold")
                said = f"threshold {point.threshold:.4f}: {', '.join(scored)}"
            say(f"{of}: {said}" if of else said)
        if path:
            cut.write(path, card, os.path.basename(file), name, bar, slice, points)
    return int(None in points.values())


def gate(settings: Any) -> int:
    """Scorecards to a verdict, the worst of theirs, and its exit code."""
    from mm_metrics.counts.compare import Comparison
    from mm_metrics.render import phrases, tables
    from mm_metrics.verdict import QualityGate, explain, regression
    from mm_metrics.verdict.rules import LEVELS
    from mm_metrics.words import count

    options = settings.as_dict()
    paths, against, only, tolerance = _taken(options, "card", "against", "only", "tolerance")
    require, output, config, by, leaks = _taken(options, "require", "json", "config", "by", "leakage")
    bars = QualityGate(**{**options, "critical": tuple(options["critical"])})
    if (only or tolerance) and not against:
        raise ValueError("--only and --tolerance are about falls: say --against LAST_CARD too")
    cards, lasts = [_card(path) for path in paths], [_card(path) for path in against]
    extra, said, found = [], [], []
    if lasts:
        comparison = Comparison(cards[0], lasts[0], tuple(cards[1:]), tuple(lasts[1:]))
        found = regression.changes(comparison, bars.confidence, only, tolerance)
        extra, said = regression.losses(comparison, found, tolerance), regression.notes(comparison, found)
    if by:
        extra += [finding for card in cards for finding in explain.weak_slices(card, bars, by, "bad")]
    shared, _ = _leaks(leaks, paths)
    if only:
        verdict, next_step = regression.verdict(extra + [finding for own in shared for finding in own], said), ""
    else:
        verdicts = [card.verdict(bars, extra=extra + own) for card, own in zip(cards, shared, strict=True)]
        card, verdict = min(zip(cards, verdicts, strict=True), key=lambda pair: LEVELS.index(pair[1].level))
        next_step = phrases.next_step(tables.of(card, verdict))
        verdict = replace(verdict, notes=(*verdict.notes, *said))
    code = 0 if verdict.level == require else EXIT[verdict.level]
    told = [found for found in verdict.findings if found.level == verdict.level] or verdict.findings
    lines = [verdict.headline, *(f"- {finding.message}" for finding in told[:_FINDINGS])]
    if more := len(verdict.findings) - len(told[:_FINDINGS]):
        lines.append(f"- and {count(more, 'more finding')}: --json FILE keeps all")
    lines += [*filter(None, [next_step if code else ""]), *verdict.notes]
    with _written(output, [*paths, *against, *(config or ()), leaks]) as (path, say):
        if path:
            write_whole(path, json.dumps(finite(verdict.as_dict(code, found)), indent=1, ensure_ascii=False) + "\n")
        say("\n".join(lines))
    return code


def report(settings: Any) -> int:
    """Scorecards to a page."""
    from mm_metrics.render import page

    stems = [os.path.basename(path).removesuffix(".json") for path in settings.cards]
    names = stems if len(set(stems)) == len(stems) else settings.cards
    if len(set(names)) < len(names):
        raise ValueError(f"cards {list(names)}: every one once")
    cards = {name: _card(path) for name, path in zip(names, settings.cards, strict=True)}
    shared, leaks = _leaks(settings.leakage, settings.cards)
    verdicts = {name: card.verdict(extra=own) for (name, card), own in zip(cards.items(), shared, strict=True)}
    with _written(settings.output, [*settings.cards, settings.leakage]) as (path, say):
        page.write(path, cards, verdicts=verdicts, leakage=leaks)
        say(f"wrote {settings.output}")
    return 0


def leakage(settings: Any) -> int:
    """Manifests, or a data module, to what they share; 1 where it is anything."""
    from mm_metrics.leakage import find_leakage
    from mm_metrics.leakage.modules import named

    options = settings.as_dict()
    given, module, output, _ = _taken(options, "splits", "datamodule", "output", "config")
    if bool(given) == bool(module):
        raise ValueError("expected SPLIT=FILE, such as train=train.csv test=test.csv, or --datamodule module:Class")
    modalities = dict(text.split("=", 1) if "=" in text else (text, text) for text in options["modalities"])
    options["progress"] &= sys.stderr.isatty()
    options["kinds"] = _pairs(options["kinds"] or (), "NAME=KIND, such as text=text")
    options["sample_rate"] = _by_name(options["sample_rate"], "one rate, or NAME=RATE")
    splits = _pairs(given, "SPLIT=FILE, such as train=train.csv")
    files = {name: sorted(glob(path)) or [_file(path)] for name, path in splits.items()}
    if module:
        modalities = {name: tuple(key.split(",")) for name, key in modalities.items()}
    else:
        options["batched"] = False
    found = find_leakage(named(module)() if module else files, **options | {"modalities": modalities})
    with _written(output, chain(*files.values())) as (path, say):
        say(str(found))
        if path:
            found.to_json(path)
    return 1 if found.findings else 0


def merge(settings: Any) -> int:
    """Scorecards to their sum."""
    from mm_metrics.words import count

    cards = [_card(path) for path in settings.cards]
    total = cards[0]
    for path, card in zip(settings.cards[1:], cards[1:], strict=True):
        try:
            total = total + card
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    with _written(settings.output, settings.cards) as (path, say):
        total.to_json(path)
        say(f"wrote {settings.output}: {count(total.samples, 'sample')} of {count(len(cards), 'scorecard')}")
    return 0


COMMANDS = {command.__name__: command for command in (score, gate, diff, threshold, report, leakage, merge)}


@contextmanager
def _written(output: str | None, inputs: Iterable[Any]) -> Iterator[tuple[str, Callable[[str], None]]]:
    """Where to write, and how to speak: ``-`` is standard output, whose reader wants nothing else there."""
    for path in filter(None, inputs):
        if output and os.path.exists(output) and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(f"{output} is one of the files that are read: it would be lost")
    if output != "-":
        yield output or "", print
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "output")
        yield path, partial(print, file=sys.stderr)
        with open(path, encoding="utf-8") as file:
            shutil.copyfileobj(file, sys.stdout)


def _taken(options: dict[str, Any], *names: str) -> list[Any]:
    return [options.pop(name) for name in names]


def _pairs(texts: Sequence[str], expected: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value) or name in pairs:
            raise ValueError(f"{text!r}: expected {expected}, each once")
        pairs[name] = value
    return pairs


def _by_name(given: Any, expected: str) -> Any:
    """What words say: one value for all, or NAME=VALUE for each of some; numbers as such; None for nothing."""
    words = given if isinstance(given, list) else [given]
    if given is None or isinstance(given, dict):
        return given
    if len(words) == 1 and ("=" not in str(words[0]) or os.path.exists(words[0])):
        return _number(words[0])
    return {name: _number(text) for name, text in _pairs(words, expected).items()}


def _number(text: Any) -> Any:
    """A float where it is one, else as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def _book(path: str, modalities: Sequence[str] | None) -> Scorecard | None:
    """The card of a book of samples; None for any other file."""
    if not path.endswith((".parquet", ".pq")) or not os.path.isfile(path):
        return None
    from mm_metrics.predictions import book

    try:
        header = book.header_in(path)
    except (json.JSONDecodeError, AttributeError) as error:
        raise ValueError(f"{path} is a damaged book of samples: {error}") from None
    except (ImportError, OSError, ValueError):  # said where the file is read
        return None
    if header and modalities and list(modalities) != header.get("modalities"):
        raise ValueError(f"--modalities {' '.join(modalities)}: {path} is a book of {header.get('modalities')}")
    try:
        return book.score_book(path) if header else None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} is a damaged book of samples: {error!r}") from None


def _leaks(path: str | None, cards: Sequence[str]) -> tuple[list[list[Finding]], list[dict[str, Any]] | None]:
    """Findings for each card's verdict, of the split that its file is named after, else of any; and the rows of all."""
    if path is None:
        return [[] for _ in cards], None
    from mm_metrics.leakage import Leakage
    from mm_metrics.verdict import explain

    found, where = Leakage.from_json(path), os.path.basename(path)
    splits = [os.path.basename(card).removesuffix(".json") for card in cards]
    rows = found.summary()
    return [explain.leaks(rows, split if split in found.sizes else None, where) for split in splits], rows


def _card(path: str) -> Scorecard:
    from mm_metrics.scorecard import Scorecard

    return Scorecard.from_json(_file(path))


def _file(path: str) -> str:
    """A path and never the JSON text itself, which `from_json` would take too."""
    if not os.path.isfile(path):
        raise ValueError(f"{path}: there is no such file")
    return os.path.join(os.curdir, path) if path.lstrip().startswith("{") else path


def _said(sentence: str, code: int) -> int:
    print(f"mm-metrics: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
