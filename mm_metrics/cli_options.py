"""The options of ``mm-metrics`` and the help that teaches them; light to import."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mm_metrics import __version__
from mm_metrics.extras import needed
from mm_metrics.modalities import Modalities

CUT_AT = """binary predictions, or multilabel ones with --scores, are probabilities, positive above it; a number, one by
label, or what threshold --output wrote, or a scorecard"""
_PAIR = re.compile(r"^(--[\w.-]+=)?\(?([-+.\de]+\s*,\s*[-+.\de]+)\)?$")
SEVERAL = {Modalities, tuple, Sequence, Collection, Mapping}  # words on the command line
LEAKAGE: dict[str, Any] = {
    "type": str | None,
    "default": None,
    "metavar": "FILE",
    "help": "what leakage --output wrote: a card named after a split that shares samples, test.json, is no longer good",
}
OUTPUT = "the file to write; - is standard output"


def parser() -> Any:
    """What a multimodal model gets right on each modality, and what it would lose without it.

      mm-metrics score predictions.csv --modalities text image audio --output card.json
      mm-metrics gate card.json && echo ship it
      mm-metrics report card.json --output report.html

    Exit codes: 0 done (gate: good), 1 bad, 2 mixed, 3 undecided; every error is 4 or more.
    """
    with needed("jsonargparse", "the command line needs jsonargparse"):
        from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Help(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        def _get_help_string(self, action: Any) -> str:  # without Python's types and what is empty
            empty = action.default in (None, False, [], (), argparse.SUPPRESS)
            return (action.help or "") + ("" if empty else " (default: %(default)s)")

    main = ArgumentParser(prog="mm-metrics", description=inspect.getdoc(parser), formatter_class=Help)
    main.add_argument("--version", action="version", version=f"mm-metrics {__version__}")
    commands = main.add_subcommands(required=True, dest="command")
    for name, (options, what) in COMMANDS.items():
        command = ArgumentParser(description=inspect.getdoc(options), formatter_class=Help)
        command.add_argument("--config", action="config", help="read the options below from a YAML file")
        commands.add_subcommand(name, options(command), help=what)
    return main


def score_options(parser: Any) -> Any:
    r"""Predictions of any system, from CSV, JSON Lines or Parquet files, to a scorecard.

    A row is a sample, in these columns (each renamed by an option):
      target                  the class: a word or a number
      prediction              the answer with all modalities; one that is no class counts as a miss
      presence_{modality}     0 or 1: whether the sample has it; without the column, every sample has
      prediction_{coalition}  the answer of a run that was shown only these: prediction_text-image
    In --task multilabel a cell is a list of labels, or words joined with |.

      mm-metrics score test.csv --modalities text image audio --output card.json
      mm-metrics score meld.csv --modalities text audio --group speaker --by season language=de,en
      mm-metrics score mosi.csv --modalities text audio --task ordinal --edges=-1,1
      mm-metrics score part-*.parquet --modalities text image --classes cat dog --output card.json
      mm-metrics score spam.csv --modalities text image --task binary --threshold 0.5 --positive spam
      mm-metrics score spam.csv --modalities text image --task binary --threshold cut.json
      mm-metrics score calls.csv --modalities text audio --task multilabel --scores auroc --threshold speech=.3 siren=.6
      mm-metrics score part-*.parquet --modalities text image --classes 10 --engine ray --workers 4
      zcat test.csv.gz | mm-metrics score - --format csv --delimiter ';' --modalities text image --output -

    Runs with a modality taken away, each its own file, joined by the samples' ids; the question's text is in every run:
      mm-metrics score --modalities text image --always text --id qid \
          --run image=full.jsonl --run none=blind.jsonl --output card.json

    Answers of a language model, with the letter taken out of the text, as logged by lm-evaluation-harness or lmms-eval:
      mm-metrics score samples.jsonl --modalities text image --extract "answer is ([A-D])" --multiple_choice

    Answers in free text that a judge marked right (1) or wrong (0):
      mm-metrics score answers.jsonl --modalities text image --correct judged --output card.json
    """
    from mm_metrics.predictions.options import Options
    from mm_metrics.tables.source import SUFFIXES

    add = parser.add_argument
    files = f"{', '.join(SUFFIXES)}, packed as .gz too; - is standard input"
    add("files", nargs="*", default=[], metavar="FILE", help=files)
    add("--output", type=str | None, default=None, help=f"the scorecard as JSON: {OUTPUT}")
    add("--run", action="append", default=[], metavar="COALITION=FILE", help="a run that was shown only these")
    add("--engine", type=Literal["local", "ray"], default="local", help="ray: the same numbers from a cluster")
    add("--workers", type=int | None, default=None, help="local processes of --engine ray; all cores by default")
    add("--threshold", nargs="+", default=None, metavar="NUMBER|FILE|LABEL=NUMBER", help=CUT_AT)
    add_arguments(parser, Options, hidden=("block_rows", "threshold"), optional=("modalities",))  # a book names them
    return parser


def gate_options(parser: Any) -> Any:
    """Good, mixed, bad or undecided, and why; as an exit code too: 0 good, 1 bad, 2 mixed, 3 undecided.

    Bars are bad,good as fractions; one number is the good bar; per modality where wanted.
      mm-metrics gate card.json
      mm-metrics gate card.json --accuracy 0.6,0.8 --recall.audio 0.9 --critical siren
      mm-metrics gate mosi.json --mae 0.9,0.6 --pearson.audio 0.5,0.7     of errors the good bar is the lower
      mm-metrics gate card.json --by language channel/2 --recall.language/sw 0.7
      mm-metrics gate card.json --require mixed              mixed passes, with 0
      mm-metrics gate test.json --leakage leaks.json         what the training split holds too is no proof
      mm-metrics gate card.json --against last_week.json     and no score of any modality may have fallen
      mm-metrics gate new.json --against last.json --only recall.audio --tolerance 0.01 --json gate.json
      mm-metrics gate new_seed_*.json --against last_seed_*.json     what seeds differ by is no fall
    """
    from mm_metrics.verdict import QualityGate

    add = parser.add_argument
    add("card", nargs="+", metavar="CARD", help="a scorecard; several are of one data set, trained with other seeds")
    add(
        "--against",
        nargs="+",
        default=[],
        metavar="LAST_CARD",
        help="earlier scorecards: what surely fell since is bad",
    )
    add("--only", nargs="+", default=[], metavar="SCORE", help="judge these falls alone: recall.audio, or f1 anywhere")
    add("--tolerance", type=float, default=0.0, help="falls up to this, as a fraction, are none")
    add("--by", nargs="+", default=[], metavar="COLUMN[/VALUE]", help="of these, slices surely weaker than all are bad")
    add("--json", type=str | None, default=None, metavar="FILE", help=f"level, findings and changes as JSON: {OUTPUT}")
    add("--leakage", **LEAKAGE)
    add("--require", type=Literal["good", "mixed"], default="good", help="the worst level that exits with 0")
    add_arguments(parser, QualityGate)
    return parser


def diff_options(parser: Any) -> Any:
    """What changed: of two scorecards each score's difference, with an interval; of two books of samples, which
    samples became wrong, and which right, by modality and class.

      mm-metrics diff last.json card.json
      mm-metrics diff last/val.samples.parquet val.samples.parquet
    """
    for name in ("old", "new"):
        parser.add_argument(name, metavar=name.upper(), help="a scorecard, or a book of samples")
    return parser


def threshold_options(parser: Any) -> Any:
    """Where to cut probabilities so that a score reaches a bar, and what it then scores. The card keeps
    histograms where the metric or the monitor was made with scores=("auroc",). Exits with 1 where no threshold does.

      mm-metrics threshold card.json --recall 0.9
      mm-metrics threshold card.json --precision 0.8 --slice audio --label siren
      mm-metrics threshold val.json --recall 0.9 --output cut.json
    """
    add = parser.add_argument
    add("card", metavar="CARD", help="a scorecard that keeps histograms")
    for name in ("recall", "precision", "specificity", "f1"):
        add(f"--{name}", type=float | None, default=None, help="reach at least this")
    add("--slice", type=str, default="all", help="a modality, or another slice")
    add("--output", type=str | None, default=None, help=f"a JSON file that score --threshold takes: {OUTPUT}")
    add("--label", type=str | None, default=None, help="one class, or label; each of them by default")
    return parser


def report_options(parser: Any) -> Any:
    """Scorecards as one HTML page that needs no network.

    Several of one data set are compared, the last with the first.
      mm-metrics report card.json --output report.html
      mm-metrics report monday.json tuesday.json --output week.html
    """
    parser.add_argument("--leakage", **LEAKAGE)
    return _cards(parser, default="report.html")


def merge_options(parser: Any) -> Any:
    """Scorecards of shards, hosts or days added up to one.

    Parts that are the same, that count the same samples, or other samples under the same ids, or that do not belong
    together, are refused; of samples is known what --bootstrap replicates tell, so without 30 of them less is. Score
    the shards of one data set with --shard 0, --shard 1, … or with --id.
    Cards of several models, or seeds, on one data set are no shards: gate new.json --against last.json compares them.

      mm-metrics merge part-0.json part-1.json --output card.json
    """
    return _cards(parser, required=True)


def _cards(parser: Any, **output: Any) -> Any:
    parser.add_argument("cards", nargs="+", metavar="CARD", help="scorecards, as score and the monitor write them")
    parser.add_argument("--output", type=str, help=OUTPUT, **output)
    return parser


def leakage_options(parser: Any) -> Any:
    """What splits share, per modality: copies, near copies, groups (speakers), equal inputs under other labels.

    A split is a CSV, JSON Lines or Parquet file, or several (train=part-*.csv). A cell is a text, or the path of a file
    from the manifest's folder, which is compared by its content where it can be decoded (sound, pictures, arrays), else
    by its bytes. Exits with 1 where anything is shared.

      mm-metrics leakage train=train.csv test=test.csv --modalities text
      mm-metrics leakage train=train.csv test=test.csv --modalities text=report audio=recording --group speaker
      mm-metrics leakage all=all.csv --modalities audio                    copies within one split
      mm-metrics leakage train=train.csv test=test.csv --modalities text=said audio --kinds text=text --sample-rate sr
      mm-metrics leakage --datamodule package.module:Data --modalities text=tokens,mask image=pixels
    """
    from mm_metrics.leakage import find_leakage

    add = parser.add_argument
    add("splits", nargs="*", default=[], metavar="SPLIT=FILE", help="the split that is trained on comes first")
    add("--datamodule", type=str | None, default=None, metavar="MODULE:CLASS", help="a LightningDataModule instead")
    add_arguments(parser, find_leakage, hidden=("splits",))
    add("--output", type=str | None, default=None, help="a JSON file for what was found; report --leakage takes it")
    return parser


def add_arguments(parser: Any, of: Any, hidden: Collection[str] = (), optional: Collection[str] = ()) -> None:
    """Each argument of a class or function as an option, with its default, and what the docstring says of it.

    By its type it is a flag for yes and no, or words for what holds several; else a value that jsonargparse reads.
    """
    from jsonargparse import ActionYesNo

    hints, texts = get_type_hints(of), _arguments(of.__doc__)
    for name, argument in inspect.signature(of).parameters.items():
        if name in hidden:
            continue
        hint, default = hints[name], None if name in optional else argument.default
        parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds = {get_origin(part) or part for part in parts}
        options: dict[str, Any] = {"help": texts[name].replace("%", "%%"), "default": default}
        if default is argument.empty:
            options |= {"required": True, "default": None}
        if kinds & SEVERAL and not kinds & {str, float, bool}:
            options |= {"nargs": "+", "metavar": "NAME[=VALUE]" if Mapping in kinds else "NAME"}
        elif bool in kinds and str not in kinds:
            options["action"] = "store_true" if default is False else ActionYesNo
        else:
            options["type"] = str | None if Hashable in kinds else hint
        parser.add_argument(*dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")), **options)


def pairs_read(words: Sequence[str]) -> list[str]:
    """The words of a command line; the gate's pairs, ``0.5,0.9`` or ``(0.5,0.9)``, as jsonargparse reads them.

    >>> pairs_read(["gate", "card.json", "--recall", "(.5, .9)", "--f1.audio=.5,.9"])
    ['gate', 'card.json', '--recall', '[.5, .9]', '--f1.audio=[.5,.9]']
    """
    if not words or words[0] != "gate":
        return list(words)
    return [_PAIR.sub(r"\1[\2]", word) for word in words]


def _arguments(doc: str) -> dict[str, str]:
    """What a docstring's ``Args:`` say of each argument, as one line each."""
    section = inspect.cleandoc(doc).partition("Args:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): ((?:.|\n(?!    \w+: ))*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


COMMANDS = {
    "score": (score_options, "predictions to a scorecard"),
    "gate": (gate_options, "good, bad, mixed or undecided"),
    "diff": (diff_options, "what changed between two scorecards, or books of samples"),
    "threshold": (threshold_options, "the threshold at which a score reaches a bar"),
    "report": (report_options, "one HTML page"),
    "merge": (merge_options, "add scorecards up"),
    "leakage": (leakage_options, "what splits share"),
}
