"""``mm-metrics`` on the command line: what it prints, what it writes and how it exits."""

import dataclasses
import functools
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, QualityGate, Scorecard, __version__, cli, cli_options, leakage
from mm_metrics.callbacks.book import Book
from mm_metrics.callbacks.truth import Rows
from mm_metrics.cli import main
from mm_metrics.counts.plan import MAX_BYTES
from mm_metrics.extras import install
from mm_metrics.predictions import Predictions
from mm_metrics.predictions.diff import compare_books
from tests.test_book import OneProcess

pytest.importorskip("jsonargparse")
pytest.importorskip("pyarrow")
from pyarrow import parquet


def predictions(right=0.95, n=600, seed=0, audio=None) -> pandas.DataFrame:
    """Two classes; the share of hits, apart for samples that have audio where given. Equal seeds: the same samples."""
    draw = np.random.default_rng(seed)
    target, has_audio, luck = draw.integers(2, size=n), draw.random(n) < 0.5, draw.random(n)
    hit = luck < np.where(has_audio & (audio is not None), audio or 0.0, right)
    names = np.array(["flood", "siren"], dtype=object)
    return pandas.DataFrame(
        {
            "target": names[target],
            "prediction": names[np.where(hit, target, 1 - target)],
            "presence_text": 1,
            "presence_audio": has_audio.astype(int),
        }
    )


def scored(folder, name="card", **more) -> str:
    predictions(**more).to_csv(folder / f"{name}.csv", index=False)
    card = folder / f"{name}.json"
    how = ["score", str(folder / f"{name}.csv"), "--modalities", "text", "audio", "--classes", "flood", "siren"]
    assert main([*how, "--output", str(card), "--bootstrap", "100"]) == 0
    return str(card)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# score


def test_score_writes_the_card_and_prints_the_table(tmp_path, capsys):
    card = Scorecard.from_json(scored(tmp_path))
    assert (
        card == Predictions(("text", "audio"), classes=("flood", "siren"), bootstrap=100).score_files(["card.csv"]).card
    )
    printed = capsys.readouterr()
    assert "GOOD: accuracy 0.9" in printed.out
    assert printed.err == ""
    assert sorted(os.listdir()) == ["card.csv", "card.json"]


def test_every_option_of_score_reaches_the_reader(monkeypatch):
    seen = {}

    def caught(self, files):
        seen.update(how=self, files=files)
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictions, "score_files", caught)
    arguments = (
        "score a.csv b.pq --modalities text audio --task binary --classes no yes --positive no --threshold 0.3 "
        "--ignore-case --target y --prediction p --presence.audio has_sound --coalition run_{coalition} --id qid "
        "--always text --bootstrap 7 --seed 3 --shard 2 --skip-bad --delimiter tab --encoding latin-1 --format csv "
        "--extract x(.) --group g --by language=de,en loud"
    )
    assert main(arguments.split()) == cli.INTERRUPTED
    assert seen["files"] == ["a.csv", "b.pq"]
    assert seen["how"] == Predictions(
        ("text", "audio"),
        task="binary",
        classes=("no", "yes"),
        positive="no",
        threshold=0.3,
        ignore_case=True,
        target="y",
        prediction="p",
        presence={"audio": "has_sound"},
        coalition="run_{coalition}",
        id="qid",
        always=("text",),
        bootstrap=7,
        seed=3,
        shard=2,
        skip_bad=True,
        delimiter="\t",
        encoding="latin-1",
        format="csv",
        extract="x(.)",
        group="g",
        by={"language": ("de", "en"), "loud": ()},
    )
    options = {field.name for field in dataclasses.fields(Predictions)} - {"block_rows"}
    named = {action.dest for action in cli_options.score_options(_Plain()).actions}
    assert named == options | {"files", "output", "run", "engine", "workers"}


def test_stray_answers_are_the_first_thing_said(tmp_path, capsys):
    data = predictions()
    data.loc[:29, "prediction"] = "\x1b[31mI can't tell"
    data.to_json("a.jsonl", orient="records", lines=True)
    assert main(["score", "a.jsonl", "--modalities", "text", "audio", "--output", "out/card.json"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Answers that are no class and count as a miss: 5.0% of text-audio (30 of 600)")
    assert "\x1b" not in first
    assert Scorecard.from_json("out/card.json").names == ("flood", "siren")


def test_runs_of_one_coalition_each(tmp_path):
    data = predictions().reset_index(names="qid")
    data.to_json("full.jsonl", orient="records", lines=True)
    data[["qid", "prediction"]].sample(frac=1).to_csv("blind.csv", index=False)
    runs = ["--run", "audio=full.jsonl", "--run", "none=blind.csv"]
    how = ["score", *runs, "--modalities", "text", "audio", "--always", "text", "--id", "qid", "--output", "c.json"]
    assert main(how) == 0
    card = Scorecard.from_json("c.json")
    assert card.coalitions == ("text", "text-audio")
    assert card.contributions("accuracy")["audio"].drop.value == 0
    assert main(["score", "--run", "full.jsonl", "--modalities", "text", "audio", "--id", "qid"]) == cli.REFUSED


def test_marks_of_a_judge(capsys):
    pandas.DataFrame({"ok": [1] * 90 + [0] * 10}).to_csv("a.csv", index=False)
    assert main(["score", "a.csv", "--modalities", "text", "--correct", "ok", "--output", "card.json"]) == 0
    assert main(["gate", "card.json"]) == 0
    assert "Only accuracy is judged" in capsys.readouterr().out
    assert main(["gate", "card.json", "--accuracy", "[0.92,0.95]"]) == 1


def test_marks_of_a_judge_tell_what_is_lost_without_a_modality(capsys):
    pandas.DataFrame({"ok": [1] * 90 + [0] * 10, "ok_audio": [1] * 49 + [0] * 51}).to_csv("a.csv", index=False)
    how = ["score", "a.csv", "--modalities", "text", "audio", "--correct", "ok", "--output", "card.json"]
    assert main(how) == 0
    said = capsys.readouterr().out
    assert "Without text −41 points of accuracy" in said
    assert "What each modality gives, in points of accuracy" in said
    assert main(["report", "card.json", "--output", "report.html"]) == 0
    page = Path("report.html").read_text()
    assert "Lost without each modality, in points of accuracy: " in page
    assert "points of F1" not in page.lower()


def test_options_may_stand_in_a_file(tmp_path):
    predictions().to_csv("a.csv", index=False)
    (tmp_path / "score.yaml").write_text("modalities: [text, audio]\nclasses: [flood, siren]\noutput: card.json\n")
    assert main(["score", "a.csv", "--config", "score.yaml"]) == 0
    assert Scorecard.from_json("card.json").names == ("flood", "siren")


# gate


@pytest.mark.parametrize(("right", "level", "code"), [(0.97, "GOOD", 0), (0.6, "BAD", 1), (0.8, "MIXED", 2)])
def test_gate_exits_by_the_level(right, level, code, tmp_path, capsys):
    card = scored(tmp_path, right=right, n=2000)
    capsys.readouterr()
    assert main(["gate", card]) == code
    assert capsys.readouterr().out.startswith(f"{level}: ")
    assert main(["gate", card, "--require", "mixed"]) == (0 if level == "MIXED" else code)


def test_thin_support_is_undecided(tmp_path, capsys):
    card = scored(tmp_path, right=1.0, n=50)
    assert main(["gate", card, "--min-support", "60"]) == 3
    assert "only 50 of 60 samples" in capsys.readouterr().out
    assert main(["gate", card, "--min-support", "5", "--min_positives", "1"]) == 0


def test_bars_per_modality(tmp_path):
    card = scored(tmp_path, right=0.97, n=2000)
    assert main(["gate", card, "--recall.audio", "[0.98,0.99]"]) == 1
    assert main(["gate", card, "--recall.audio", "0.99"]) == 2
    assert main(["gate", card, "--recall.text", "0.9", "--recall.audio", "0.9"]) == 0
    assert main(["gate", card, "--recall.video", "0.9"]) >= 4
    assert main(["gate", card, "--recall", "[0.9,0.5]"]) >= 4
    assert main(["gate", card, "--critical", "flood"]) == 0
    assert main(["gate", card, "--critical", "fire"]) >= 4


class _Plain:
    """A parser that only remembers its arguments."""

    def __init__(self):
        from jsonargparse import ArgumentParser

        self.parser, self.actions = ArgumentParser(), []

    def add_argument(self, *names, **options):
        self.actions.append(self.parser.add_argument(*names, **options))


def test_a_pair_of_bars_may_be_written_as_people_do(tmp_path):
    card = scored(tmp_path, right=0.8, n=2000)
    for pair in ("0.9,0.95", "(0.9,0.95)", "(.9, .95)", "[0.9,0.95]", "[0.9, 0.95]"):
        assert main(["gate", card, "--accuracy", pair, "--json", "a.json"]) == 1, pair
        assert main(["gate", card, f"--accuracy.all={pair}"]) == 1, pair
        assert json.loads(Path("a.json").read_text())["findings"][0]["threshold"] == 0.9
    assert main(["gate", card, "--accuracy", "0.9,0.95,1"]) >= 4


def test_a_gate_that_fails_prints_what_set_its_level_and_a_next_step(tmp_path, capsys):
    draw, names = np.random.default_rng(0), [f"c{i}" for i in range(18)]
    target = draw.integers(18, size=4000)
    wrong = draw.random(4000) < np.where(target < 12, 0.7, 0.3)
    table = {"target": target, "prediction": np.where(wrong, (target + 1) % 18, target)}
    pandas.DataFrame({name: [names[i] for i in column] for name, column in table.items()}).to_csv("a.csv")
    assert main(["score", "a.csv", "--modalities", "text", "--output", "card.json"]) == 0
    capsys.readouterr()
    assert main(["gate", "card.json", "--json", "all.json"]) == 1
    said = capsys.readouterr().out.splitlines()
    findings = json.loads(Path("all.json").read_text())["findings"]
    assert {part["level"] for part in findings} == {"bad", "mixed"}
    listed = [line for line in said if line.startswith("- ")]
    assert listed[:-1] == [f"- {part['message']}" for part in findings if part["level"] == "bad"][:10]
    assert listed[-1].startswith(f"- and {len(findings) - 10} more findings")
    assert sum(line.startswith("Next: ") for line in said) == 1


def test_what_does_not_fit_is_said_in_a_line_that_names_an_option(tmp_path):
    data = predictions().assign(speaker=np.arange(600) % 60)
    data.to_csv("a.csv", index=False)
    root = os.path.dirname(os.path.dirname(os.path.abspath(cli.__file__)))
    how = ["score", "a.csv", "--modalities", "text", "audio", "--by", "speaker", "--max-bytes", "1000000"]
    done = run(*how, env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == 0
    assert re.fullmatch(r"mm-metrics: max_bytes=1000000: [^\n]+\n", done.stderr)
    assert inspect.signature(Predictions).parameters["max_bytes"].default == MAX_BYTES


def test_the_gates_options_are_its_arguments_with_their_defaults():
    actions = {action.dest: action.default for action in cli_options.gate_options(_Plain()).actions}
    for name in ("card", "against", "only", "tolerance", "by", "json", "require", "leakage"):
        del actions[name]
    default = {field.name: getattr(QualityGate(), field.name) for field in dataclasses.fields(QualityGate)}
    assert actions == default


def test_retraining_that_cost_a_modality_something_is_bad(tmp_path, capsys):
    last = scored(tmp_path, "last", right=0.97, audio=0.97, n=3000)
    card = scored(tmp_path, "card", right=0.97, audio=0.93, n=3000)
    capsys.readouterr()
    assert main(["gate", card]) == 0
    assert main(["gate", card, "--against", last]) == 1
    said = capsys.readouterr().out
    assert re.search(
        r"audio recall −[34]\.\d \[−\d\.\d, −\d\.\d\] against last: 0\.\d\d, was 0\.9\d", said.replace(" points", "")
    )
    assert "unpaired" not in said
    assert main(["gate", last, "--against", card]) == 0
    assert "no score of any modality has surely fallen" in capsys.readouterr().out


def test_what_ci_reads_of_falls_alone(tmp_path):
    last = scored(tmp_path, "last", right=0.97, audio=0.97, n=3000)
    card = scored(tmp_path, "card", right=0.97, audio=0.93, n=3000)
    assert main(["gate", card, "--against", last, "--json", "all.json"]) == 1
    said = json.loads(Path("all.json").read_text())
    falls = [part for part in said["findings"] if part["kind"] == "regression" and part["score"] == "accuracy"]
    assert [part["modality"] for part in falls] == ["all", "audio"]  # every sample has text: said once, of the whole
    assert all(part["level"] == "bad" and part["low"] < part["value"] < part["high"] < 0 for part in falls)
    assert (said["level"], said["code"], len(said["changes"])) == ("bad", 1, 8)
    only = ["gate", card, "--against", last, "--only", "recall.audio", "--json", "one.json"]
    assert main(only) == 1
    said = json.loads(Path("one.json").read_text())
    assert [(part["score"], part["slice"], part["fell"]) for part in said["changes"]] == [("recall", "audio", True)]
    assert main([*only, "--tolerance", "0.1"]) == 0
    assert main(["gate", card, "--against", last, "--only", "recall.text", "--recall", "[0.98,0.99]"]) == 1  # all rows
    assert main(["gate", last, "--against", card, "--only", "f1", "--recall", "[0.98,0.99]"]) == 0  # no bar is asked
    assert main(["gate", card, "--only", "recall.audio"]) >= 4
    assert main(["gate", card, "--against", last, "--only", "recall.video"]) >= 4
    assert main([*only[:-1], card]) >= 4  # a file that is read


def test_seeds_of_one_training_are_no_fall(tmp_path):
    news = [scored(tmp_path, f"new{i}", right=right, n=3000) for i, right in enumerate((0.97, 0.90))]
    olds = [scored(tmp_path, f"old{i}", right=right, n=3000) for i, right in enumerate((0.98, 0.91))]
    assert main(["gate", news[1], "--against", olds[0], "--only", "accuracy"]) == 1
    assert main(["gate", *news, "--against", *olds, "--only", "accuracy"]) == 0


def test_a_paired_fall_is_seen_where_an_unpaired_one_is_not(tmp_path, capsys):
    last = scored(tmp_path, "last", right=0.95, n=1500)
    card = scored(tmp_path, "card", right=0.93, n=1500)
    how = ["--modalities", "text", "audio", "--classes", "flood", "siren", "--bootstrap", "100", "--seed", "1"]
    assert main(["score", "card.csv", *how, "--output", "other.json"]) == 0  # the same rows, under other weights
    assert main(["gate", card, "--against", last]) == 1
    capsys.readouterr()
    assert main(["gate", "other.json", "--against", last]) == 0
    assert "compared unpaired" in capsys.readouterr().out


def test_a_fall_without_replicates_is_undecided(tmp_path):
    for name, right in (("last", 0.97), ("card", 0.93)):
        predictions(right, n=2000).to_csv(f"{name}.csv", index=False)
        how = ["--modalities", "text", "audio", "--classes", "flood", "siren", "--bootstrap", "0"]
        assert main(["score", f"{name}.csv", *how, "--output", f"{name}.json"]) == 0
    assert main(["gate", "card.json", "--against", "last.json"]) == 3
    assert main(["gate", "last.json", "--against", "card.json"]) == 0


def test_cards_that_measure_other_things_do_not_compare(tmp_path):
    card = scored(tmp_path)
    predictions().to_csv("a.csv", index=False)
    assert main(["score", "a.csv", "--modalities", "text", "--output", "other.json"]) == 0
    assert main(["gate", card, "--against", "other.json"]) == cli.REFUSED


# Where what is written goes.


def test_a_dash_is_standard_output_with_nothing_else_on_it(tmp_path, capsys):
    card = scored(tmp_path)
    capsys.readouterr()
    how = ["score", "card.csv", "--modalities", "text", "audio", "--classes", "flood", "siren", "--bootstrap", "100"]
    assert main([*how, "--output", "-"]) == 0
    said = capsys.readouterr()
    assert Scorecard.from_json(said.out) == Scorecard.from_json(card)
    assert "GOOD: accuracy" in said.err
    assert main(["merge", card, "--output", "-"]) == 0
    assert Scorecard.from_json(capsys.readouterr().out) == Scorecard.from_json(card)


def test_standard_input_is_read_by_its_format(tmp_path, monkeypatch, capsys):
    card = Scorecard.from_json(scored(tmp_path))
    how = ["score", "-", "--modalities", "text", "audio", "--bootstrap", "100", "--output", "b.json"]
    with open("card.csv", encoding="utf-8") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main([*how, "--format", "csv"]) == 0
    assert Scorecard.from_json("b.json").counts.equal(card.counts)
    assert main(how) == cli.REFUSED
    assert "--format" in capsys.readouterr().err


def test_links_pipes_and_devices_are_written_through(tmp_path):
    card = scored(tmp_path)
    os.mkdir("elsewhere")
    Path("link.json").symlink_to("elsewhere/card.json")
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        for output in ("link.json", "pipe", "/dev/null"):
            assert main(["merge", card, "--output", output]) == 0
        assert Scorecard.from_json(reader.stdout.read()) == Scorecard.from_json(card)
    assert Path("link.json").is_symlink()
    assert Scorecard.from_json("elsewhere/card.json") == Scorecard.from_json("link.json")
    assert Path("pipe").is_fifo()
    assert Path("/dev/null").is_char_device()
    code = f"from mm_metrics.cli import main; main(['merge', {card!r}, '--output', '/dev/stdout'])"
    env = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(cli.__file__)))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.startswith('{\n "format": "mm_metrics/scorecard"')


def test_an_output_that_is_an_input_is_refused(tmp_path, capsys):
    card = scored(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    os.link("card.csv", "same")
    score = ["score", "card.csv", "--modalities", "text", "audio", "--output"]
    for arguments in (
        [*score, "./card.csv"],
        [*score, "same"],
        ["merge", card, "--output", card],
        ["report", card, "--output", card],
    ):
        assert main(arguments) == cli.REFUSED
        assert "would be lost" in capsys.readouterr().err
    assert all(path.read_bytes() == content for path, content in before.items())


# merge, report, leakage


def test_merge_adds_shards_and_refuses_the_same_twice(tmp_path, capsys):
    data = predictions()
    data[:200].to_csv("0.csv", index=False)
    data[200:].to_parquet("1.parquet")
    data.to_csv("whole.csv", index=False)
    for name, more in (("0.csv", []), ("1.parquet", ["--shard", "1"]), ("whole.csv", [])):
        how = ["--modalities", "text", "audio", "--classes", "flood", "siren", "--output", f"{name[0]}.json"]
        assert main(["score", name, *how, *more]) == 0
    assert main(["merge", "0.json", "1.json", "--output", "sum.json"]) == 0
    total, whole = Scorecard.from_json("sum.json"), Scorecard.from_json("w.json")
    assert total.confusion("all", "audio").tolist() == whole.confusion("all", "audio").tolist()
    for cards in (["0.json", "0.json"], ["0.json", "w.json"], ["sum.json", "1.json"]):
        assert main(["merge", *cards, "--output", "no.json"]) == cli.REFUSED
        assert cards[1] in capsys.readouterr().err
    assert not os.path.exists("no.json")


@pytest.mark.parametrize(("first", "code"), [(0, cli.REFUSED), (100, cli.REFUSED), (600, 0)])
def test_merge_refuses_the_same_ids_with_other_targets(first, code, tmp_path, capsys):
    """Samples that another labelling counts again, all of them or most; other ids add up."""
    data = predictions().assign(qid=range(600))
    data.to_csv("0.csv", index=False)
    data.assign(target=data["target"].sample(frac=1, random_state=1).values, qid=range(first, first + 600)).to_csv(
        "1.csv", index=False
    )
    for name in "01":
        how = [
            "--modalities",
            "text",
            "audio",
            "--classes",
            "flood",
            "siren",
            "--id",
            "qid",
            "--output",
            f"{name}.json",
        ]
        assert main(["score", f"{name}.csv", *how]) == 0
    assert main(["merge", "0.json", "1.json", "--output", "sum.json"]) == code
    assert ("the same numbers, or ids" in capsys.readouterr().err) == (code > 0)


def test_report(tmp_path):
    pytest.importorskip("jinja2")
    card = scored(tmp_path)
    other = scored(tmp_path, "other<b>", right=0.8)
    assert main(["report", card, other, "--output", "report.html"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "other<b>" not in page
    assert "other&lt;b&gt;" in page
    assert main(["report", card, card, "--output", "twice.html"]) == cli.REFUSED
    page = Path("report.html").read_text()
    assert main(["report", card]) == 0
    assert Path("report.html").read_text() != page  # which is its name by default


def test_leakage(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("report,speaker,label\nsmoke in the cellar,7,1\na cat in a tree,8,0\n")
    (tmp_path / "test.jsonl").write_text('{"report": "smoke in the cellar", "speaker": 9, "label": 1}\n')
    (tmp_path / "clean.csv").write_text("report,speaker,label\nnothing of the kind,10,0\n")
    how = ["--modalities", "text=report", "--group", "speaker", "--near", "false", "--output", "leaks.json"]
    assert main(["leakage", "train=train.csv", "test=test.jsonl", *how]) == 1
    assert "exact          text        train → test" in capsys.readouterr().out
    assert json.loads((tmp_path / "leaks.json").read_text())["findings"][0]["kind"] == "exact"
    pytest.importorskip("jinja2")
    assert main(["report", scored(tmp_path), "--leakage", "leaks.json", "--output", "r.html"]) == 0
    assert main(["leakage", "train=train.csv", "test=clean.csv", *how]) == 0
    assert main(["leakage", "train=train.csv", *how]) == 0  # one split is looked into
    assert main(["leakage", "train=t*.csv", "test=*.jsonl", *how]) == 1
    for wrong in (["train.csv", "test.jsonl"], ["a=train.csv", "a=test.jsonl"], ["a=train.csv", "b=lost*.csv"], []):
        assert main(["leakage", *wrong, *how]) == cli.REFUSED
    assert main(["leakage", "train=train.csv", "test=clean.csv", "--modalities", "audio", "--near", "false"]) >= 4


def test_leaks_set_the_level_wherever_they_are_given(tmp_path, capsys):
    """A card is of the split that it is named after; one that is not may be of any."""
    pytest.importorskip("jinja2")
    row = {"kind": "exact", "modality": "audio", "splits": ("train", "test"), "count": 4, "share": 1.0}
    found = leakage.Finding(**row, pairs=((0, 0),), samples=(0, 1, 2, 3))
    leakage.Leakage((found,), {"train": 4, "val": 4, "test": 4}).to_json("leaks.json")
    for name, code in (("test", 2), ("val", 0), ("train", 0), ("card", 2)):
        card = scored(tmp_path, name)
        capsys.readouterr()
        assert main(["gate", card]) == 0
        assert main(["gate", card, "--leakage", "leaks.json", "--json", "gate.json"]) == code
        findings = json.loads(Path("gate.json").read_text())["findings"]
        assert [part["kind"] for part in findings if part["level"] == "mixed"] == ["leakage"] * (code > 0)
        assert main(["gate", card, "--against", card, "--only", "f1", "--leakage", "leaks.json"]) == code
        assert main(["report", card, "--leakage", "leaks.json", "--output", "r.html"]) == 0
        assert ("nothing hides behind it" in Path("r.html").read_text()) == (code == 0)
    assert main(["gate", "test.json", "--leakage", "test.json"]) == cli.REFUSED


def test_every_option_of_leakage_is_an_argument_and_reaches_it(tmp_path, monkeypatch):
    """With its default; rates and kinds by modality, flags both ways, near copies of some modalities."""
    seen = {}

    @functools.wraps(leakage.find_leakage)
    def caught(splits, **given):
        seen.update(given)
        return leakage.Leakage((), {})

    parameters = inspect.signature(leakage.find_leakage).parameters
    monkeypatch.setattr(leakage, "find_leakage", caught)
    (tmp_path / "a.csv").write_text("said,heard,label\n")
    base = ["leakage", "train=a.csv", "--modalities", "text=said", "audio=heard"]
    assert main(base) == 0
    defaults = {
        name: parameter.default for name, parameter in parameters.items() if name not in ("splits", "modalities")
    }
    assert seen == defaults | {
        "modalities": {"text": "said", "audio": "heard"},
        "batched": False,
        "progress": False,
        "kinds": {},
    }
    more = [
        "--near",
        "[text]",
        "--no_within",
        "--presence",
        "null",
        "--sample-rate",
        "audio=16000",
        "text=sr",
        "--kinds",
    ]
    assert main([*base, *more, "audio=audio", "--group", "who", "film", "--target", "null", "--engine", "ray"]) == 0
    assert seen["sample_rate"] == {"audio": 16000.0, "text": "sr"}
    assert (seen["near"], seen["within"], seen["presence"], seen["target"]) == (["text"], False, None, None)
    assert (seen["group"], seen["engine"], seen["kinds"]) == (["who", "film"], "ray", {"audio": "audio"})
    assert main([*base, "--sample_rate", "8000", "--within"]) == 0
    assert (seen["sample_rate"], seen["within"]) == (8000.0, True)


# Books of samples, differences and thresholds.


def book(folder, wrong=(), N=120) -> str:
    """A book of samples that are right but for some of them."""
    metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=3, coalitions=["text", "all"], bootstrap=10)
    target = torch.arange(N) % 3
    preds = target.repeat(2, 1)
    preds[1, list(wrong)] = (target[list(wrong)] + 1) % 3
    presence = torch.stack([torch.ones(N, dtype=torch.bool), torch.arange(N) < N // 2], 1)
    numbers = torch.arange(N) + 1000
    labels = metric.count(preds, target, presence, numbers)
    written = Book(folder, "val", 0, metric, print)
    written.add(metric.layout.masks, Rows(preds, target, presence, numbers=numbers), labels)
    written.finish(OneProcess())
    metric.scorecard().to_json(folder / "val.json")
    return str(folder / "val.samples.parquet")


def test_a_book_of_samples_is_scored_as_it_was_counted(tmp_path, capsys):
    path = book(tmp_path, wrong=range(9))
    for more in ([], ["--modalities", "text", "audio", "--bootstrap", "7"]):
        assert main(["score", path, *more, "--output", "again.json"]) == 0
        assert Scorecard.from_json("again.json") == Scorecard.from_json("val.json")
    assert main(["score", path, "--modalities", "text"]) == cli.REFUSED
    assert "is a book of ['text', 'audio']" in capsys.readouterr().err


@pytest.mark.parametrize("header", ["[]", "{", '{"format": "mm_metrics/samples"}', '{"task": 3}', "null"])
def test_a_forged_book_is_refused(header, tmp_path, capsys):
    table = parquet.read_table(book(tmp_path)).replace_schema_metadata({b"mm_metrics": header})
    parquet.write_table(table, "forged.parquet")
    code = main(["score", "forged.parquet"])
    said = capsys.readouterr().err
    assert code == cli.REFUSED
    assert "bug" not in said


def test_two_books_tell_which_samples_changed(tmp_path, capsys):
    (tmp_path / "old").mkdir()
    old, new = book(tmp_path / "old", wrong=[0, 1, 2, 100]), book(tmp_path, wrong=[1, 2, 3, 61, 62, 63], N=119)
    found = compare_books(old, new)
    assert (found.lost.tolist(), found.gained.tolist(), found.alone) == ([1003, 1061, 1062, 1063], [1000, 1100], (1, 0))
    assert found.changes["all"] == (119, 4, 2)
    assert found.changes["audio"] == (60, 1, 1)  # the old book's samples 0…59 have it
    assert found.changes["class 0"] == (40, 2, 1)
    assert main(["diff", old, new]) == 0
    said = capsys.readouterr().out
    assert "Now wrong: 1003, 1061, 1062, 1063" in said
    assert "In one book only, and not compared: 1 of the old, 0 of the new." in said
    pandas.DataFrame({"target": [1]}).to_parquet("plain.parquet")
    assert main(["diff", old, "plain.parquet"]) == cli.REFUSED


def test_two_cards_tell_what_changed(tmp_path, capsys):
    last, card = scored(tmp_path, "last", right=0.97, n=2000), scored(tmp_path, "card", right=0.9, n=2000)
    capsys.readouterr()
    assert main(["diff", last, card]) == 0
    assert capsys.readouterr().out == (Scorecard.from_json(card) - Scorecard.from_json(last)).table() + "\n"


def test_a_weak_slice_of_a_column_is_bad_where_the_gate_is_asked_by_it(tmp_path, capsys):
    random = np.random.default_rng(0)
    language, channel = random.integers(3, size=2000), torch.tensor(random.integers(2, size=2000))
    target, right = torch.arange(2000) % 2, torch.tensor(random.random(2000) < np.where(language == 2, 0.86, 0.97))
    metric = CoalitionConfusionMatrix(
        ("text", "audio"),
        num_classes=2,
        coalitions=["all"],
        bootstrap=100,
        by={"language": ["de", "en", "sw"], "ch": 2},
    )
    by = {"language": torch.tensor(language), "ch": channel}
    metric.update(torch.where(right, target, 1 - target).unsqueeze(0), target, index=torch.arange(2000), by=by)
    metric.scorecard().to_json("card.json")
    assert main(["gate", "card.json"]) == 0
    assert main(["gate", "card.json", "--recall.language/sw", "0.95"]) == 2
    for by, code in ((["language"], 1), (["language/sw", "ch/0"], 1), (["language/de"], 0)):
        assert main(["gate", "card.json", "--by", *by, "--json", "gate.json"]) == code
        found = [one for one in json.loads(Path("gate.json").read_text())["findings"] if one["level"] == "bad"]
        assert {one["kind"] for one in found} == ({"weak_slice"} if code else set())
    for by in ("sex", "language/fr", "lang"):
        assert main(["gate", "card.json", "--by", by]) == cli.REFUSED
    assert main(["gate", scored(tmp_path), "--by", "language"]) == cli.REFUSED


def test_a_threshold_is_chosen_on_one_file_and_scores_another(tmp_path, capsys):
    random = np.random.default_rng(0)
    for name in ("val", "test"):
        event = random.integers(0, 2, 400)
        logit = torch.tensor(2.0 * event - 4 + random.normal(size=400), dtype=torch.float32)
        metric = CoalitionConfusionMatrix(
            ("text", "audio"), task="binary", scores=("auroc",), coalitions=["all"], bootstrap=200
        )
        metric.update(logit.sigmoid().unsqueeze(0), torch.tensor(event), index=torch.arange(400))
        metric.scorecard().to_json(f"{name}.json")
        pandas.DataFrame({"target": event, "prediction": logit.sigmoid().numpy()}).to_csv(f"{name}.csv", index=False)
    assert main(["threshold", "val.json", "--recall", "0.9", "--output", "cut.json"]) == 0
    score = ["score", "test.csv", "--modalities", "text", "audio", "--task", "binary", "--output", "card.json"]
    point = Scorecard.from_json("val.json").threshold("recall", 0.9)
    (best,) = Scorecard.from_json("val.json").best_thresholds()[1]
    probability, truth = (pandas.read_csv("test.csv")[name].to_numpy() for name in ("prediction", "target"))
    for file, cut, said in (
        ("cut.json", point.threshold, "recall reaches 0.90 in val.json"),
        ("val.json", best, "F1 was"),
    ):
        capsys.readouterr()
        assert main([*score, "--threshold", file]) == 0
        assert said in " ".join(capsys.readouterr().out.split())
        card = Scorecard.from_json("card.json")
        assert card.info["threshold"]["values"] == [cut]
        assert card.score("recall") == pytest.approx((probability >= cut)[truth == 1].mean())
    for file, data in (("cut.json", "val.csv"), ("val.json", "val.csv"), ("test.csv", "test.csv")):  # its own; none
        assert main([*score[:1], data, *score[2:], "--threshold", file]) == cli.REFUSED
    assert "bug" not in capsys.readouterr().err


def test_every_label_has_its_own_threshold(capsys):
    """By the command line, by a file that a bar chose, and from a card."""
    random, labels = np.random.default_rng(0), ("speech", "siren", "fire")
    for name in ("val", "test"):
        truth = random.integers(0, 2, (300, 3))
        odds = torch.tensor(2.0 * truth - np.arange(1, 4) + random.normal(size=truth.shape), dtype=torch.float32)
        metric = CoalitionConfusionMatrix(
            ("text",), task="multilabel", num_labels=3, class_names=labels, scores=("auroc",), coalitions=["all"]
        )
        metric.update(odds.sigmoid()[None], torch.tensor(truth), index=torch.arange(300))
        metric.scorecard().to_json(f"{name}.json")
        cells = {"target": [[x for x, on in zip(labels, row, strict=True) if on] for row in truth]}
        cells["prediction"] = odds.sigmoid().tolist()
        pandas.DataFrame(cells).to_json(f"{name}.jsonl", orient="records", lines=True)
    assert main(["threshold", "val.json", "--recall", "0.9", "--output", "cut.json"]) == 0
    assert main(["threshold", "val.json", "--recall", "0.9", "--output", "one.json", "--label", "siren"]) == 0
    score = ["score", "test.jsonl", "--modalities", "text", "--task", "multilabel", "--scores", "auroc", "--classes"]
    score += [*labels, "--bootstrap", "0", "--output", "card.json", "--threshold"]
    val = Scorecard.from_json("val.json")
    points = [point.threshold for point in val.threshold("recall", 0.9).values()]
    for given, cuts in (
        (["speech=0.3", "fire=0.2"], [0.3, 0.5, 0.2]),
        (["0.4"], [0.4] * 3),
        (["cut.json"], points),
        (["one.json"], [0.5, points[1], 0.5]),
        (["val.json"], val.best_thresholds()[1]),
    ):
        assert main([*score, *given]) == 0
        recalls = Scorecard.from_json("card.json").class_scores("recall").values()
        assert list(recalls) == pytest.approx(
            [(odds.sigmoid().numpy()[truth[:, i] == 1, i] > cut - 1e-4).mean() for i, cut in enumerate(cuts)], abs=1e-6
        )
    assert Scorecard.from_json("card.json").info["threshold"]["values"] == val.best_thresholds()[1]
    for wrong in (
        ["x=0.2"],
        ["siren=2"],
        ["siren=a"],
        ["gone.json"],
        ["0.1", "0.2"],
        ["siren=.1", "siren=.2"],
        ["a=b=.1"],
    ):
        assert main([*score, *wrong]) == cli.REFUSED
    assert "bug" not in capsys.readouterr().err


def test_a_threshold_is_found_for_a_bar(tmp_path, capsys):
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(2, (500,), generator=draw)
    metric = CoalitionConfusionMatrix(("text",), task="binary", coalitions=["all"], scores=("auroc",))
    metric.update((target * 0.3 + torch.rand(500, generator=draw) * 0.7).unsqueeze(0), target)
    metric.scorecard().to_json("card.json")
    assert main(["threshold", "card.json", "--recall", "0.9"]) == 0
    point = metric.scorecard().threshold("recall", 0.9)
    assert f"threshold {point.threshold:.4f}: precision {point.precision:.3f}" in capsys.readouterr().out
    assert main(["threshold", "card.json", "--recall", "0.9", "--precision", "0.9"]) == cli.REFUSED
    for never in ("90", "1.5"):
        assert main(["threshold", "card.json", "--recall", never]) == cli.REFUSED
    assert main(["threshold", scored(tmp_path), "--recall", "0.9"]) == cli.REFUSED


# Errors: never an exit code that means a verdict.

WRONG = [
    [],
    ["nonsense"],
    ["score"],
    ["score", "a.csv"],
    ["score", "lost.csv", "--modalities", "text"],
    ["score", "--modalities", "text"],
    ["score", "a.csv", "--modalities", "te-xt"],
    ["score", "a.csv", "--modalities", "text", "--bootstrap", "many"],
    ["score", "a.csv", "--modalities", "text", "--task", "ranking"],
    ["score", "a.csv", "--modalities", "text", "--target", "lost"],
    ["score", "a.csv", "--modalities", "text", "--output", "a.csv/card.json"],
    ["score", "a.csv", "--modalities", "text", "--run", "text=a.csv"],
    ["gate"],
    ["gate", "lost.json"],
    ["gate", "a.csv"],
    ["gate", "junk.json"],
    ["gate", "card.json", "--require", "bad"],
    ["gate", "card.json", "--against", "junk.json"],
    ["gate", "card.json", "--against", "lost.json"],
    ["gate", "card.json", "--confidence", "2"],
    ["gate", '{"format": "mm_metrics/scorecard"}'],
    ["merge"],
    ["merge", "card.json"],
    ["merge", "junk.json", "--output", "out.json"],
    ["report", "junk.json", "--output", "out.html"],
    ["leakage"],
    ["gate", "\0"],
    ["--config", "junk.json", "gate"],
]


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_every_error_exits_with_four_or_more_and_one_sentence(arguments, tmp_path, capsys):
    scored(tmp_path, n=40)
    predictions(n=40).to_csv("a.csv", index=False)
    (tmp_path / "junk.json").write_text('{"format": "mm_metrics/scorecard", "version": 1, "modalities": ["te')
    before = sorted(os.listdir())
    capsys.readouterr()
    assert main(arguments) >= 4
    said = capsys.readouterr().err
    assert said
    assert "Traceback" not in said
    assert "bug" not in said
    assert sorted(os.listdir()) == before


def test_a_crash_is_no_verdict(monkeypatch, tmp_path, capsys):
    def crash(self, card, **context):
        raise ZeroDivisionError("by design")

    card = scored(tmp_path)
    monkeypatch.setattr(Scorecard, "verdict", crash)
    assert main(["gate", card]) == cli.CRASHED
    assert "MM_METRICS_DEBUG=1" in capsys.readouterr().err
    monkeypatch.setenv("MM_METRICS_DEBUG", "1")
    assert main(["gate", card]) == cli.CRASHED
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["jsonargparse", "pyarrow", "jinja2"])
def test_what_is_missing_is_named(module, monkeypatch, tmp_path, capsys):
    card = scored(tmp_path)
    capsys.readouterr()
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.parquet").touch()
    score = ["score", str(tmp_path / "a.parquet"), "--modalities", "text"]
    command = ["report", card, "--output", "r.html"] if module == "jinja2" else score
    assert main(command) == cli.REFUSED
    assert install(module) in capsys.readouterr().err


def test_help_teaches_by_examples_that_parse(capsys):
    assert main(["--help"]) == 0
    for command in cli.COMMANDS:
        capsys.readouterr()
        assert main([command, "--help"]) == 0
        said = capsys.readouterr().out
        assert f"mm-metrics {command} " in said
        lines = said.replace("\\\n", " ").splitlines()
        examples = [line.split("  mm-metrics ", 1)[1] for line in lines if line.startswith("  mm-metrics ")]
        assert examples
        for example in examples:
            words = shlex.split(example.split("     ")[0].split(" && ")[0])
            settings = cli_options.parser().parse_args(cli_options.pairs_read(words))
            assert settings.command == command


def run(*arguments, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mm_metrics", *arguments], capture_output=True, text=True, **more)


def test_a_process_exits_with_the_code(tmp_path):
    card = scored(tmp_path, right=0.6, n=2000)
    root = os.path.dirname(os.path.dirname(os.path.abspath(cli.__file__)))
    env = {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "ascii"}
    done = run("gate", card, env=env)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("BAD: ")
    assert run("gate", "lost.json", env=env).returncode >= 4
    assert run("--version", env=env).stdout == f"mm-metrics {__version__}\n"


@pytest.mark.slow
def test_a_reader_that_has_gone_is_no_crash(tmp_path):
    card = scored(tmp_path, n=2000)
    root = os.path.dirname(os.path.dirname(os.path.abspath(cli.__file__)))
    gone = subprocess.Popen(
        [sys.executable, "-u", "-m", "mm_metrics.cli", "gate", card],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    gone.stdout.close()
    said = gone.stderr.read()
    gone.stderr.close()
    assert gone.wait() >= 4
    assert said == b""
