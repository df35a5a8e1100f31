"""Prediction files: scored as scikit-learn scores them, the same in any blocks, order and format; junk is refused."""

import csv
import dataclasses
import gzip
import itertools
import json
import math
import random
import re
import subprocess
import sys
import textwrap

import numpy as np
import pandas
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mm_metrics import CoalitionConfusionMatrix, Scorecard
from mm_metrics.cells import as_labels, as_text
from mm_metrics.counts.other import closed, opened
from mm_metrics.predictions import Predictions, score_blocks
from mm_metrics.predictions.answers import found_classes
from mm_metrics.predictions.rows import distinct
from mm_metrics.tables import csv_file
from mm_metrics.tables.source import Source
from mm_metrics.tasks import OTHER

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

MODALITIES = ("text", "image", "audio")
WORDS = ("flood", "siren", "no event", 'a "quoted", word')
N = 400


def table(seed=0, n=N, words=WORDS, outside=0.0) -> pandas.DataFrame:
    """Targets, predictions under three coalitions, presence of two of three modalities, ids."""
    draw = np.random.default_rng(seed)
    target = draw.integers(len(words), size=n)

    def answers(share):
        answer = np.where(draw.random(n) < share, target, draw.integers(len(words), size=n))
        text = np.array(words, dtype=object)[answer]
        text[draw.random(n) < outside] = "I am not sure"
        return text

    return pandas.DataFrame(
        {
            "qid": [f"q{i}" for i in range(n)],
            "target": np.array(words, dtype=object)[target],
            "prediction": answers(0.8),
            "prediction_image-text": answers(0.5),
            "prediction_none": answers(0.1),
            "presence_text": draw.integers(2, size=n),
            "presence_audio": draw.random(n) < 0.4,
        }
    )


def written(data: pandas.DataFrame, folder, how: str):
    """The same rows as files of other programs."""
    path = folder / f"{how.replace(' ', '_')}.{how.split()[-1]}"
    if how == "csv module csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL)
            writer.writerow(data.columns)
            writer.writerows(data.values.tolist())
    elif how == "pandas csv":
        data.to_csv(path, index=False)
    elif how == "excel csv":
        data.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    elif how == "tabs tsv":
        data.to_csv(path, index=False, sep="\t")
    elif how == "pandas parquet":
        data.to_parquet(path)
    elif how == "arrow parquet":
        parquet.write_table(pa.Table.from_pandas(data), path, row_group_size=70, use_dictionary=False)
    elif how == "pandas jsonl":
        data.to_json(path, orient="records", lines=True)
    elif how == "json module jsonl":
        path.write_text("\n\n".join(json.dumps(row) for row in data.to_dict("records")), encoding="utf-8")
    return path


def save(data: pandas.DataFrame, path) -> None:
    """As pandas writes it, by the suffix."""
    if path.suffix == ".csv":
        data.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        data.to_json(path, orient="records", lines=True)
    else:
        data.to_parquet(path)


FORMATS = (
    "csv module csv",
    "pandas csv",
    "excel csv",
    "tabs tsv",
    "pandas parquet",
    "arrow parquet",
    "pandas jsonl",
    "json module jsonl",
)


def assert_scores_as_sklearn(card, target, prediction, labels=None, coalition=None, slice="all"):
    given = {"coalition": coalition, "slice": slice}
    assert card.score("accuracy", **given) == pytest.approx(sk.accuracy_score(target, prediction))
    for average in ("macro", "weighted"):
        p, r, f, _ = sk.precision_recall_fscore_support(
            target, prediction, average=average, labels=labels, zero_division=0
        )
        found = [card.score(score, average=average, **given) for score in ("precision", "recall", "f1")]
        assert found == pytest.approx([p, r, f])


@pytest.mark.parametrize("how", FORMATS)
def test_scores_are_those_of_scikit_learn_in_every_format(how, tmp_path):
    data = table()
    card = Predictions(MODALITIES, bootstrap=20).score_files([written(data, tmp_path, how)]).card
    assert type(card) is Scorecard
    assert card.coalitions == ("none", "text-image", "text-image-audio")
    assert card.names == tuple(sorted(WORDS))
    for coalition, column in (
        ("all", "prediction"),
        ("image-text", "prediction_image-text"),
        ("none", "prediction_none"),
    ):
        for slice, where in (("all", slice_ := np.ones(N, bool)), ("image", slice_), ("text", data.presence_text == 1)):
            part = data[where]
            assert_scores_as_sklearn(card, part.target, part[column], coalition=coalition, slice=slice)
    part = data[data.presence_audio]
    confusion = sk.confusion_matrix(part.target, part.prediction, labels=sorted(WORDS))
    assert card.confusion(slice="audio").tolist() == confusion.tolist()


def test_every_format_gives_the_same_card_bit_for_bit(tmp_path):
    cards = [
        Predictions(MODALITIES, bootstrap=20).score_files([written(table(), tmp_path, how)]).card for how in FORMATS
    ]
    assert all(torch.equal(card.counts, cards[0].counts) and card == cards[0] for card in cards)


def test_class_numbers_are_the_classes_up_to_the_largest(tmp_path):
    data = pandas.DataFrame({"target": [0, 1, 3, 3, 0, 4], "prediction": [0, 2, 3, 2, 1, 4]})
    data.to_parquet(tmp_path / "a.parquet")
    card = Predictions(("text",), bootstrap=0).score_files([tmp_path / "a.parquet"]).card
    assert card.class_names is None
    assert card.layout.C == 5
    assert_scores_as_sklearn(card, data.target, data.prediction)
    data.astype(float).to_csv(tmp_path / "a.csv", index=False)  # as pandas writes numbers where a column has gaps
    assert Predictions(("text",), bootstrap=0).score_files([tmp_path / "a.csv"]).card == card


@pytest.mark.parametrize("task", ["labels", "booleans", "words", "positive first", "probabilities"])
def test_binary(task, tmp_path):
    draw = np.random.default_rng(1)
    target = draw.integers(2, size=N)
    share = np.clip(target * 0.3 + draw.random(N) * 0.7, 0, 1)
    guess = (share > 0.4).astype(int)
    names = np.array(["ham", "spam"], dtype=object)
    data, more = {
        "labels": ({"target": target, "prediction": guess}, {}),
        "booleans": ({"target": target == 1, "prediction": guess == 1}, {}),
        "words": ({"target": names[target], "prediction": names[guess]}, {"classes": ("ham", "spam")}),
        "positive first": ({"target": names[::-1][target], "prediction": names[::-1][guess]}, {"positive": "ham"}),
        "probabilities": ({"target": target, "prediction": share}, {"threshold": 0.4}),
    }[task]
    how = Predictions(("text",), task="binary", bootstrap=0, **more)
    for suffix in ("csv", "jsonl", "parquet"):
        path = tmp_path / f"a.{suffix}"
        save(pandas.DataFrame(data), path)
        card = how.score_files([path]).card
        assert card.task == "binary"
        for score, reference in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
            assert card.score(score) == pytest.approx(reference(target, guess))


@pytest.mark.parametrize("shape", ["words.csv", "words.jsonl", "lists.csv", "lists.jsonl", "lists.parquet"])
def test_multilabel(shape, tmp_path):
    draw = np.random.default_rng(2)
    target, guess = draw.random((2, 100, 3)) < 0.4
    names = np.array(["smoke", "flood", "siren"])
    cells = [[list(names[row]) for row in rows] for rows in (target, guess)]
    if shape.startswith("words"):
        cells = [["|".join(cell) for cell in column] for column in cells]
    data = pandas.DataFrame({"target": cells[0], "prediction": cells[1]})
    path = tmp_path / shape
    save(data, path)
    card = Predictions(("text",), task="multilabel", classes=tuple(names)).score_files([path]).card
    assert type(card) is Scorecard
    assert card.confusion().tolist() == sk.multilabel_confusion_matrix(target, guess).tolist()
    assert card.score("f1") == pytest.approx(sk.f1_score(target, guess, average="macro"))
    found = Predictions(("text",), task="multilabel").score_files([path]).card
    assert found.names == tuple(sorted(names))


# Answers that are no class.


@pytest.mark.parametrize("how", ["pandas csv", "pandas parquet", "json module jsonl"])
def test_an_answer_outside_the_classes_is_a_miss_and_no_class_of_the_mean(how, tmp_path):
    data = table(outside=0.1)
    scored = Predictions(MODALITIES, bootstrap=50).score_files([written(data, tmp_path, how)])
    card = scored.card
    assert card.other
    for coalition, column in (("all", "prediction"), ("none", "prediction_none")):
        assert_scores_as_sklearn(card, data.target, data[column], labels=sorted(WORDS), coalition=coalition)
        assert card.outside(coalition) == (data[column] == "I am not sure").sum()
        reference = sk.confusion_matrix(data.target, data[column], labels=[*sorted(WORDS), "I am not sure"])
        assert card.confusion(coalition, other=True).tolist() == reference.tolist()
        assert card.confusion(coalition).tolist() == reference[:-1, :-1].tolist()
    low, high = card.interval("f1")
    assert low < card.score("f1") < high
    share = (data.prediction == "I am not sure").mean()
    assert scored.notes[0].startswith("Answers that are no class and count as a miss")
    assert f"{share:.1%} of text-image-audio" in scored.notes[0]
    assert "'I am not sure'" in scored.notes[0]
    with_other = card.score("f1") * len(WORDS) / (len(WORDS) + 1)
    assert sk.f1_score(data.target, data.prediction, average="macro") == pytest.approx(with_other)  # what it is not


def test_a_binary_answer_outside_the_classes_is_a_miss_of_either_class():
    rows = {"target": ["no", "no", "yes", "yes"], "prediction": ["no", "perhaps", "yes", ""]}
    card = Predictions(("text",), task="binary", classes=("no", "yes")).score_rows(rows)
    assert (card.score("accuracy"), card.score("recall"), card.score("precision")) == (0.5, 0.5, 1.0)
    assert card.class_scores("recall") == {"no": 0.5, "yes": 0.5}
    assert card.score("specificity") == card.interval("specificity")[1] == 1.0  # of two, none was called positive
    assert card.interval("specificity")[0] < 0.5
    assert card.verdict().level == "undecided"  # of four samples


def test_a_label_that_is_none_spoils_the_exact_match_and_nothing_else():
    rows = {"target": ["a|b", "b", "a"], "prediction": ["a|b|x", "b", "a"], "prediction_text": ["a|b", "b", "a"]}
    how = Predictions(("text", "audio"), task="multilabel", classes=("a", "b"))
    card = how.score_rows(rows)
    assert card.names == ("a", "b")
    for score in ("accuracy", "f1", "balanced_accuracy", "matthews"):
        assert card.score(score) == 1.0
    assert card.discordant("text", "all") == (1, 0)
    assert card.outside() == 1


def test_null_and_empty_answers_are_misses_too():
    card = Predictions(("text",), classes=("a", "b")).score_rows({"target": ["a", "b"], "prediction": [None, ""]})
    assert card.score("accuracy") == 0.0
    assert card.outside() == 2


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "binary"])
def test_cards_with_and_without_stray_answers_add_up_and_compare(task):
    how = Predictions(("text", "audio"), task=task, classes=("a", "b"), bootstrap=20)
    draw = np.random.default_rng(3)
    target, guess = draw.choice(["a", "b"], (2, 60)).tolist()
    stray = ["?" if i % 7 == 0 else cell for i, cell in enumerate(guess)]
    presence = draw.integers(2, size=60).tolist()
    blocks = [{"target": target, "prediction": cells, "presence_audio": presence} for cells in (guess, stray)]
    clean, open_ = how.score_rows(blocks[0]), how.score_rows(blocks[1], first=60)
    assert type(clean) is Scorecard
    assert open_.other
    whole = how.score_rows({name: blocks[0][name] + blocks[1][name] for name in blocks[0]})
    for total in (clean + open_, open_ + clean):
        assert total.other
        assert torch.equal(total.counts, whole.counts)
        assert Scorecard.from_json(total.to_json()) == total
    assert closed(opened(clean)) == clean
    assert torch.equal(closed(opened(clean)).counts, clean.counts)
    again = how.score_rows(blocks[1])
    for difference, sign in ((again - clean, 1), (clean - again, -1)):
        assert difference.paired
        assert sign * difference.score("accuracy") <= 0
        low, high = difference.interval("accuracy", slice="audio")
        assert low < high


def test_cards_from_files_compare_with_cards_from_training():
    data = table(words=("0", "1", "2"))
    metric = CoalitionConfusionMatrix(MODALITIES, num_classes=3, coalitions=["none", "text-image", "all"], bootstrap=20)
    stacked = np.stack([data[c].astype(int) for c in ("prediction_none", "prediction_image-text", "prediction")])
    presence = torch.tensor(np.stack([data.presence_text == 1, np.ones(N, bool), data.presence_audio], axis=1))
    target = torch.tensor(data.target.astype(int).to_numpy())
    metric.update(torch.from_numpy(stacked), target, presence, torch.arange(N))
    card = Predictions(MODALITIES, classes=("3",), bootstrap=20).score_rows(pa.Table.from_pandas(data))
    assert card == metric.scorecard()


# A judge's marks.


def test_marks_tell_accuracy_and_nothing_else(tmp_path):
    draw = np.random.default_rng(4)
    data = pandas.DataFrame({"ok": draw.random(300) < 0.9, "ok_text": draw.random(300) < 0.6})
    data["presence_audio"] = draw.integers(2, size=300)
    data.to_csv(tmp_path / "a.csv", index=False)
    card = Predictions(("text", "audio"), correct="ok").score_files([tmp_path / "a.csv"]).card
    card = Scorecard.from_json(card.to_json())
    assert card.judged
    assert card.score("accuracy") == pytest.approx(data.ok.mean())
    assert card.score("accuracy", "text", "audio") == pytest.approx(data.ok_text[data.presence_audio == 1].mean())
    drop = card.contributions("accuracy")["audio"].drop
    assert drop.value == pytest.approx(data.ok.mean() - data.ok_text.mean())
    assert drop.low < drop.value < drop.high
    for score in ("precision", "recall", "f1", "matthews"):
        assert np.isnan([card.score(score), *card.interval(score), card.majority()]).all()
        assert np.isnan(list(card.class_scores(score).values())).all()
        assert np.isnan(card.contributions(score)["audio"].drop.value)
        assert np.isnan((card - card).interval(score)).all()
    verdict = card.verdict()
    assert verdict.level == "good"
    assert "default" in verdict.notes[0]
    assert not any("nan" in note for note in verdict.notes)
    assert card.table()


# Laws.


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.integers(1, 90), csv_block=st.integers(200, 3000), how=st.sampled_from(FORMATS), outside=st.booleans())
def test_blocks_of_any_size_give_the_same_json(block, csv_block, how, outside, tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "_BLOCK", csv_block)
    data = table(n=90, outside=0.2 * outside)
    path = written(data, tmp_path, how)
    whole = Predictions(MODALITIES, bootstrap=10).score_files([path]).card
    blocks = Predictions(MODALITIES, bootstrap=10, block_rows=block).score_files([path]).card
    assert blocks.to_json() == whole.to_json()


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 80), max_size=4), R=st.sampled_from([0, 10]), outside=st.booleans())
def test_blocks_of_rows_add_up_in_any_engine(cuts, R, outside):
    data = table(n=80, outside=0.2 * outside)
    how = Predictions(MODALITIES, classes=WORDS, bootstrap=R)
    whole = how.score_rows(pa.Table.from_pandas(data))
    edges = [0, *sorted(cuts), 80]
    parts = [how.score_rows(pa.Table.from_pandas(data[a:b]), first=a) for a, b in itertools.pairwise(edges)]
    total = parts[0]
    for part in parts[1:]:
        total = part + total
    assert type(total) is type(whole)
    assert torch.equal(total.counts, whole.counts)


def test_a_block_twice_is_refused():
    how = Predictions(("text",), classes=("a", "b"), bootstrap=0)
    rows = {"target": ["a", "b"], "prediction": ["a", "a"]}
    assert (how.score_rows(rows) + how.score_rows(rows, first=2)).samples == 4
    with pytest.raises(ValueError, match="counted twice"):
        how.score_rows(rows) + how.score_rows(rows)


def test_several_files_are_one(tmp_path):
    data = table()
    data.to_csv(tmp_path / "whole.csv", index=False)
    data[:150].to_parquet(tmp_path / "a.parquet")
    data[150:].to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    how = Predictions(MODALITIES, bootstrap=20)
    whole = how.score_files([tmp_path / "whole.csv"]).card
    assert how.score_files([tmp_path / "a.parquet", tmp_path / "b.jsonl"]).card == whole


def test_a_file_twice_is_refused(tmp_path):
    table().to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"b\.csv is named twice"):
        Predictions(MODALITIES).score_files([tmp_path / "a.csv", tmp_path / "b.csv"])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_an_id_twice_is_refused_and_both_rows_are_named(suffix, skip_bad, tmp_path):
    data = table().assign(qid=[f"q{i}" for i in range(N)])
    data.loc[250, "qid"] = "q7"
    save(data[:200], tmp_path / f"a.{suffix}")
    save(data[200:], tmp_path / f"b.{suffix}")
    how = Predictions(MODALITIES, bootstrap=0, id="qid", skip_bad=skip_bad, block_rows=60)
    line = {"csv": ("line 52", "line 9"), "jsonl": ("line 51", "line 8"), "parquet": ("row 51", "row 8")}[suffix]
    with pytest.raises(
        ValueError, match=rf"b\.{suffix}, {line[0]}, column 'qid': its id came before, in .*a\.{suffix}, {line[1]}:"
    ):
        how.score_files([tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"])
    with pytest.raises(ValueError, match="row 250, column 'qid': its id came before, in row 7:"):
        score_blocks([data[:100].to_dict("list"), data[100:].to_dict("list")], how)
    data.loc[250, "qid"] = "q250"
    assert score_blocks([data.to_dict("list")], how).samples == N


def test_shards_scored_apart_add_up(tmp_path):
    data = table()
    paths = tmp_path / "a.csv", tmp_path / "b.csv", tmp_path / "whole.csv"
    for path, part in zip(paths, (data[:150], data[150:], data), strict=True):
        part.to_csv(path, index=False)

    def card(path, **more):
        return Predictions(MODALITIES, classes=WORDS, bootstrap=20, **more).score_files([path]).card

    whole = card(paths[2])
    total = card(paths[0]) + card(paths[1], shard=1)
    assert torch.equal(total.confusion(), whole.confusion())
    with pytest.raises(ValueError, match="shard"):
        card(paths[0]) + card(paths[1])
    assert card(paths[0], id="qid") + card(paths[1], id="qid") == card(paths[2], id="qid")


def test_with_ids_the_order_of_rows_does_not_matter():
    data = table()
    how = Predictions(MODALITIES, classes=WORDS, id="qid", bootstrap=20)
    ordered = how.score_rows(pa.Table.from_pandas(data))
    shuffled = how.score_rows(pa.Table.from_pandas(data.sample(frac=1, random_state=0), preserve_index=False))
    assert ordered == shuffled
    assert ordered.samples == int(ordered.confusion().sum()) == N
    by_row = Predictions(MODALITIES, classes=WORDS, bootstrap=20)
    ordered, shuffled = (by_row.score_rows(pa.Table.from_pandas(d)) for d in (data, data.sample(frac=1)))
    assert torch.equal(ordered.confusion("none", "audio"), shuffled.confusion("none", "audio"))


def test_ignored_case_and_renamed_columns(tmp_path):
    data = table().rename(columns={"target": "y", "prediction": "Answer", "presence_audio": "has sound"})
    data["Answer"] = data["Answer"].str.upper()
    data.to_csv(tmp_path / "a.csv", index=False)
    names = {"target": "y", "prediction": "Answer", "presence": {"audio": "has sound"}}
    how = Predictions(MODALITIES, classes=WORDS, ignore_case=True, coalition={"none": "prediction_none"}, **names)
    card = how.score_files([tmp_path / "a.csv"]).card
    assert card.coalitions == ("none", "text-image-audio")
    part = data[data["has sound"]]
    assert_scores_as_sklearn(card, part.y.str.upper(), part.Answer, slice="audio")


# Runs.


@pytest.fixture
def runs(tmp_path):
    data = table(outside=0.05)
    data.to_csv(tmp_path / "wide.csv", index=False)
    full, blind, none = (
        data[["qid", column]].rename(columns={column: "prediction"})
        for column in ("prediction", "prediction_image-text", "prediction_none")
    )
    truth = data[["qid", "target", "presence_text", "presence_audio"]]
    full.merge(truth, on="qid").to_json(tmp_path / "full.jsonl", orient="records", lines=True)
    blind.sample(frac=1, random_state=1).to_csv(tmp_path / "blind.csv", index=False)
    none.sample(frac=1, random_state=2).to_parquet(tmp_path / "none.parquet")
    truth.to_csv(tmp_path / "truth.csv", index=False)
    return tmp_path


def names_of(folder, whole="text-image-audio"):
    return [(whole, folder / "full.jsonl"), ("image-text", folder / "blind.csv"), ("none", folder / "none.parquet")]


def test_runs_joined_by_id_are_the_wide_file(runs):
    how = Predictions(MODALITIES, id="qid", bootstrap=20)
    wide = how.score_files([runs / "wide.csv"])
    joined = how.score_runs(names_of(runs))
    assert joined.card == wide.card
    assert torch.equal(joined.card.counts, wide.card.counts)
    assert joined.notes[0] == wide.notes[0]  # the share of stray answers
    apart = [("all", runs / "blind.csv"), ("none", runs / "none.parquet")]
    assert how.score_runs(apart, [runs / "truth.csv"]).card.score("accuracy", "none") == pytest.approx(
        wide.card.score("accuracy", "none")
    )


def test_a_modality_that_is_in_every_run(runs):
    how = Predictions(MODALITIES, id="qid", bootstrap=0)
    joined = how.score_runs(names_of(runs)[:2]).card
    named = [("image-audio", runs / "full.jsonl"), ("image", runs / "blind.csv")]
    how = Predictions(MODALITIES, id="qid", bootstrap=0, always="text")
    assert how.score_runs(named).card == joined
    wide = (
        table(outside=0.05)
        .rename(columns={"prediction_image-text": "prediction_image"})
        .drop(columns="prediction_none")
    )
    wide.to_csv(runs / "wide.csv", index=False)
    assert how.score_files([runs / "wide.csv"]).card == joined


def test_ids_missing_in_a_run_are_said_and_the_others_counted(runs):
    lines = (runs / "blind.csv").read_text().splitlines(keepends=True)
    (runs / "blind.csv").write_text("".join([*lines[:-7], "new,flood\n"]))
    scored = Predictions(MODALITIES, id="qid", bootstrap=0).score_runs(names_of(runs))
    assert scored.card.support(coalition="text-image") == N - 7
    assert scored.card.support() == N
    said = " ".join(scored.notes)
    assert "text-image: 7 of 401 ids have no answer" in said
    assert "text-image-audio: 1 of 401 ids have no answer" in said
    assert "1 of 401 ids are left out, as no file gives their target" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda lines: [*lines, lines[3]],
            r"blind\.csv, line 402, column 'qid': its id came before, in .*blind\.csv, line 4:",
        ),
        (
            lambda lines: ["qid,prediction,target\n", *(f"{line.strip()},siren\n" for line in lines[1:])],
            "its target is",
        ),
        (lambda lines: ["id,prediction\n", *lines[1:]], r"no column 'qid', there are 'id', 'prediction'"),
        (lambda lines: [*lines[:5], ",flood\n", *lines[5:]], r"blind\.csv, line 6, column 'qid': there is no id"),
    ],
)
def test_runs_that_do_not_fit_are_refused(runs, change, said):
    lines = (runs / "blind.csv").read_text().splitlines(keepends=True)
    (runs / "blind.csv").write_text("".join(change(lines)))
    with pytest.raises(ValueError, match=said):
        Predictions(MODALITIES, id="qid", bootstrap=0).score_runs(names_of(runs))


def test_runs_need_an_id_and_a_coalition_each(runs):
    with pytest.raises(ValueError, match="--id NAME"):
        Predictions(MODALITIES).score_runs(names_of(runs))
    with pytest.raises(ValueError, match="both runs of none"):
        Predictions(MODALITIES, id="qid").score_runs([*names_of(runs), ("none", runs / "blind.csv")])
    with pytest.raises(ValueError, match="no file has a column 'target'"):
        Predictions(MODALITIES, id="qid").score_runs(names_of(runs)[1:])


# What is wrong is refused, by file, line and column.

HEADER = "target,prediction,presence_text,note\n"
GOOD = 'a,a,1,"two\nlines"\n\nb,a,0,x\n'  # lines 2 to 5
BAD_ROWS = {
    "a target outside": ("c,a,1,x\n", "column 'target': 'c' is none of 'a', 'b'"),
    "no target": (",a,1,x\n", "column 'target': there is no target"),
    "presence 2": ("a,a,2,x\n", "column 'presence_text': '2' is neither 0 nor 1"),
    "no presence": ("a,a,,x\n", "column 'presence_text': '' is neither 0 nor 1"),
    "too few": ("a,a,1\n", "it has 3 fields, the header 4"),
    "too many": ("a,a,1,x,y\n", "it has 5 fields, the header 4"),
}


@pytest.mark.parametrize("wrong", BAD_ROWS)
@pytest.mark.parametrize("block_rows", [1, 65_536])
def test_a_bad_row_of_a_csv_is_found_by_its_line(wrong, block_rows, tmp_path):
    row, said = BAD_ROWS[wrong]
    path = tmp_path / "a.csv"
    path.write_text(HEADER + GOOD + row + "b,b,1,x\n", encoding="utf-8-sig")
    how = {"classes": ("a", "b"), "block_rows": block_rows, "bootstrap": 10}
    with pytest.raises(ValueError, match=r"a\.csv, line 6") as error:
        Predictions(("text",), **how).score_files([path])
    assert said in str(error.value)
    assert "--skip-bad" in str(error.value)
    assert "\n" not in str(error.value)
    scored = Predictions(("text",), skip_bad=True, **how).score_files([path])
    assert scored.card.samples == 3
    assert scored.notes[0].startswith("1 rows can't be read and are left out")
    assert said in scored.notes[0]
    (tmp_path / "good.csv").write_text(HEADER + GOOD + "a,b,0,x\nb,b,1,x\n")
    twin = Predictions(("text",), **how).score_files([tmp_path / "good.csv"]).card
    left_out = Predictions(("text",), **how).score_rows(
        {"target": ["a"], "prediction": ["b"], "presence_text": [0]}, first=2
    )
    assert torch.equal(scored.card.counts + left_out.counts, twin.counts)  # the others keep their numbers and weights


def test_a_block_holds_no_more_than_a_few_long_texts(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "_LONGEST", 1000)
    lines = ("a,b," + '"' + "x" * 300 + '"' for _ in range(20))
    (tmp_path / "a.csv").write_text("target,prediction,note\n" + "\n".join(lines))
    sizes = [len(block.rows) for block in Source.of(tmp_path / "a.csv").blocks(["target"], pytest.fail)]
    assert (sum(sizes), max(sizes)) == (20, 4)


def test_bad_rows_across_blocks_keep_their_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_file, "_BLOCK", 64)
    rows = ["a,b" if i % 5 else "a,b,c" if i % 2 else "z,b" for i in range(500)]
    (tmp_path / "a.csv").write_text("target,prediction\n" + "\n".join(rows))
    scored = Predictions(("text",), classes=("a", "b"), skip_bad=True, bootstrap=10).score_files([tmp_path / "a.csv"])
    assert scored.card.samples == 400
    assert scored.notes[0].startswith("100 rows")
    good = [i for i in range(500) if i % 5]
    parts = [
        Predictions(("text",), classes=("a", "b"), bootstrap=10)
        .score_rows({"target": ["a"], "prediction": ["b"]}, first=i)
        .counts
        for i in good
    ]
    assert torch.equal(torch.stack(parts).sum(0), scored.card.counts)


BAD_LINES = {
    "cut off": ('{"target": "a", "predic', "it is no JSON"),
    "a list": ('["a", "b"]', "it is a list, expected an object"),
    "deep": ('{"target": ' + "[" * 100_000, "it is no JSON"),
    "a huge number": ('{"target": 1' + "0" * 5000 + "}", "it is no JSON"),
    "an object as target": ('{"target": {"a": 1}, "prediction": "a"}', "column 'target': a dict is no label"),
    "no target": ('{"prediction": "a"}', "column 'target': there is no target"),
    "null target": ('{"target": null, "prediction": "a"}', "column 'target': there is no target"),
    "NaN target": ('{"target": NaN, "prediction": "a"}', "column 'target': there is no target"),
    "half a surrogate": ('{"target": "\\ud800", "prediction": "a"}', "column 'target': it is not UTF-8"),
    "a list as prediction": ('{"target": "a", "prediction": ["a"]}', "column 'prediction': a list is no label"),
}


@pytest.mark.parametrize("wrong", BAD_LINES)
def test_a_bad_line_of_json_is_found(wrong, tmp_path):
    line, said = BAD_LINES[wrong]
    path = tmp_path / "a.jsonl"
    path.write_text('\ufeff{"target": "a", "prediction": "a"}\n\n{"target": "b", "prediction": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 4") as error:
        Predictions(("text",), classes=("a", "b")).score_files([path])
    assert said in str(error.value)
    assert len(str(error.value)) < 400
    assert Predictions(("text",), classes=("a", "b"), skip_bad=True).score_files([path]).card.samples == 2


@pytest.mark.parametrize(
    "lines", [('{"target": "a", "prediction": "a"}, {"x": [1', "2]}"), ('{"target": "a"', '"prediction": "a"}')]
)
def test_lines_that_are_json_only_together_are_refused(lines, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"target": "b", "prediction": "b"}\n' + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match="line 2: it is no JSON"):
        Predictions(("text",), classes=("a", "b")).score_files([path])
    assert Predictions(("text",), classes=("a", "b"), skip_bad=True).score_files([path]).card.samples == 1


def test_bytes_that_are_no_utf8_are_found(tmp_path):
    for suffix, start in (("csv", b"target,prediction\na,a\n"), ("jsonl", b'{"target": "a", "prediction": "a"}\n')):
        row = b"\xff,a\n" if suffix == "csv" else b'{"target": "\xff", "prediction": "a"}\n'
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(start + row)
        with pytest.raises(ValueError, match=rf"{suffix}, line {3 if suffix == 'csv' else 2}.*it is not UTF-8"):
            Predictions(("text",), classes=("a", "b")).score_files([path])


REFUSED = {
    "no such file": ({}, None, "there is no such file"),
    "another suffix": ({}, ("a.xlsx", b"x"), "a file is read by its suffix"),
    "a pickle": ({}, ("a.pkl", b"cos\nsystem\n(S'touch owned'\ntR."), "a file is read by its suffix"),
    "empty csv": ({}, ("a.csv", b""), "line 1: the header is empty"),
    "header only": ({}, ("a.csv", b"target,prediction\n"), "no class was found"),
    "empty jsonl": ({}, ("a.jsonl", b"\n"), "no column 'target'"),
    "empty parquet": ({}, ("a.parquet", b""), "can't be read"),
    "no parquet": ({}, ("a.parquet", b"PAR1" + bytes(100) + b"PAR1"), "can't be read"),
    "a column twice": ({}, ("a.csv", b"target,prediction,target\n"), "names a column twice"),
    "no target": ({}, ("a.csv", b"label,prediction\n"), "no column 'target', there are 'label', .*: --target"),
    "no prediction": ({}, ("a.csv", b"target,answer\n"), "no column 'prediction', .*: --prediction"),
    "doubled coalition": (
        {},
        ("a.csv", b"target,prediction_text-audio,prediction_audio-text\n"),
        "are all predictions of text-audio",
    ),
    "lost presence": ({"presence": {"audio": "sound"}}, ("a.csv", b"target,prediction\n"), "no column 'sound'"),
    "a named prediction": (
        {"prediction": "pred"},
        ("a.csv", b"target,predicted,prediction_text\n"),
        "no column 'pred', .*: --prediction NAME says which; did you mean 'predicted'",
    ),
    "named marks": ({"correct": "judged"}, ("a.csv", b"judged_text\n"), "no column 'judged', .*: --correct"),
    "named presence": (
        {"presence": "has_{modality}"},
        ("a.csv", b"target,prediction,presence_text\n"),
        "no column 'has_{modality}', .*: --presence",
    ),
    "named coalitions": (
        {"coalition": "said_{coalition}"},
        ("a.csv", b"target,prediction,prediction_text\n"),
        "no column 'said_{coalition}', .*: --coalition",
    ),
    "a mistyped modality": (
        {"modalities": ("txt", "audio")},
        ("a.csv", b"target,prediction,prediction_text,prediction_audio\n"),
        "'txt' has no column, and 'prediction_text' is of none of them; did you mean 'text'",
    ),
    "another modality's presence": (
        {"modalities": ("speech", "audio")},
        ("a.csv", b"target,prediction,presence_text,presence_audio\n"),
        "'speech' has no column, and 'presence_text' is of none of them: is it 'text'",
    ),
    "lower case": (
        {},
        ("a.csv", b"target,prediction\nCAT,cat\nDOG,dog\nCAT,dog\n"),
        "3 of 3 answers are none of the classes, which are 'CAT', 'DOG', such as .*'dog'.*: --ignore-case",
    ),
    "unasked probabilities": (
        {"classes": ("a", "b", "c")},
        ("a.csv", b"target,prediction\na,0.3|0.6|0.1\nb,0.2|0.7|0.1\n"),
        "such as '0.3.*: --scores auroc reads a probability of each class",
    ),
    "sentences": ({}, ("a.csv", b"target,prediction\na,It is a\nb,It is b\n"), "'It is a'.*: --extract REGEX"),
    "sentences, multiple choice": (
        {"multiple_choice": True},
        ("a.csv", b"target,prediction\nA,It is A\nB,It is B\n"),
        "'It is A'.*--extract REGEX",
    ),
    "other words": ({}, ("a.csv", b"target,prediction\na,xx\nb,yy\n"), "'xx', 'yy': --classes .*--extract"),
    "words of a binary task": (
        {"task": "binary"},
        ("a.csv", b"target,prediction\nyes,yes\nno,no\n"),
        "'yes' is none of '0', '1'; --classes names .*--positive .*; else --skip-bad",
    ),
    "a class not named": (
        {"classes": ("a", "b")},
        ("a.csv", b"target,prediction\na,a\nc,a\n"),
        "'c' is none of 'a', 'b'; --classes names .*; else --skip-bad",
    ),
    "words and no probabilities": (
        {"scores": ("auroc",), "classes": ("a", "b")},
        ("a.csv", b"target,prediction\na,a\nb,b\n"),
        "no probability.*; answers that are names of classes need no --scores or --threshold; else --skip-bad",
    ),
    "one class": ({}, ("a.csv", b"target,prediction\na,a\n"), "at least two are needed"),
    "three classes": (
        {"task": "binary", "positive": "a"},
        ("a.csv", b"target,prediction\na,a\nb,b\nc,c\n"),
        "task=binary has two",
    ),
    "free text": (
        {},
        ("a.csv", b"target,prediction\n" + b"".join(b"%d x,a\n" % i for i in range(10_002))),
        "more than 10,000",
    ),
    "a long label": ({}, ("a.csv", b"target,prediction\n" + b"x" * 500 + b",a\n"), "500 characters is no label"),
    "a long row": ({}, ("a.csv", b"target,prediction\na," + b"x" * 17_000_000), "line 2: it is no CSV"),
    "a longer row": ({}, ("a.csv", b"target,prediction\na," + b"x" * 25_000_000), "can't be read"),
    "probabilities": (
        {"task": "binary"},
        ("a.csv", b"target,prediction\n1,0.7\n"),
        "'0.7' is none of .* needs threshold",
    ),
    "no probabilities": (
        {"task": "binary", "threshold": 0.5},
        ("a.csv", b"target,prediction\n1,1.5\n"),
        "'1.5' is no probability",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, tmp_path):
    options, file, said = REFUSED[case]
    path = tmp_path / (file[0] if file else "a.csv")
    if file:
        path.write_bytes(file[1])
    with pytest.raises(ValueError, match=said) as error:
        Predictions(**{"modalities": ("text", "audio"), **options}).score_files([path])
    assert len(str(error.value)) < 500


def test_columns_of_other_names_are_no_mistyped_modality():
    rows = {"target": ["a", "b"], "prediction": ["a", "b"], "prediction_sureness": [1, 2], "presence_audio": [1, 0]}
    how = {"classes": ("a", "b"), "bootstrap": 0}
    assert Predictions(("question", "audio"), **how).score_rows(rows).score("accuracy") == 1.0
    more = rows | {"presence_image": [1, 1]}  # of a modality that nobody asks about
    assert Predictions(("text", "audio"), **how, always="text").score_rows(more).score("accuracy") == 1.0


def test_no_coalition_stands_for_the_whole(tmp_path):
    """A file without predictions from all modalities has scores of coalitions, and of the model none."""
    data = table(outside=0.1).drop(columns="prediction")
    path = tmp_path / "a.csv"
    data.to_csv(path, index=False)
    card = Predictions(MODALITIES, classes=WORDS, bootstrap=20).score_files([path]).card
    right = (data["prediction_image-text"] == data["target"]).mean()
    assert card.partial
    assert card.score("accuracy", coalition="text-image") == pytest.approx(right)
    for ask in (card.score, card.interval, card.class_estimates):
        with pytest.raises(ValueError, match="'text-image-audio' was not counted"):
            ask("f1")
    assert (card.verdict().level, card.verdict().findings) == ("undecided", ())
    assert f"{right:.2f}"[1:] not in card.table().split("Shown only")[0]
    assert card.support("audio") == data["presence_audio"].sum()
    assert (card - card).table()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "regression"}, "task='regression'"),
        ({"classes": ("a", "a")}, "holds one twice"),
        ({"classes": ("Yes", "yes"), "ignore_case": True}, "holds one twice"),
        ({"classes": ("a", OTHER)}, "not '\\(other\\)'"),
        ({"classes": ("a", "")}, "no empty name"),
        ({"classes": ("a", "b"), "positive": "a"}, "positive='a' is for task=binary"),
        ({"classes": ("a", "b"), "threshold": 0.5}, "threshold=0.5"),
        ({"task": "binary", "threshold": 7}, "threshold=7"),
        ({"task": "binary", "classes": ("a", "b"), "positive": "c"}, "positive='c' is none"),
        ({"correct": "ok", "classes": ("a", "b")}, "correct='ok'"),
        ({"always": ("video",)}, "always names"),
        ({"presence": "has"}, "it holds {modality} once"),
        ({"bootstrap": -1}, "bootstrap=-1"),
        ({"delimiter": ";;"}, "delimiter=';;'"),
        ({"encoding": "hex"}, "encoding='hex'"),
        ({"format": "xlsx"}, "format='xlsx'"),
        ({"extract": "("}, "extract='\\('"),
        ({"task": "ordinal"}, "edges=None"),
        ({"task": "ordinal", "edges": "low"}, "edges='low'"),
        ({"correct": "ok", "multiple_choice": True}, "multiple_choice is for"),
        ({"classes": ("a", "b"), "by": ["ok"]}, "by='ok'"),
        ({}, "classes=None"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Predictions(("text",), **options).score_rows({"target": ["a", "b"], "prediction": ["a", "b"], "ok": [1, 0]})


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="cells each"):
        Predictions(("text",), classes=("a", "b")).score_rows({"target": ["a", "b"], "prediction": ["a"]})


@pytest.mark.parametrize("wrap", [list, lambda cells: np.array(cells, dtype=object)])
def test_a_cell_is_read_once_and_equal_is_not_the_same(wrap):
    where, cells = distinct(wrap([1, True, 1.0, None, "1", 1, ["a"], ["a"]]))
    assert where.tolist() == [0, 1, 2, 3, 4, 0, 5, 5]
    assert [as_text(cell) for cell in cells[:5]] == ["1", "true", "1", None, "1"]
    assert len(distinct(wrap([1, True, 1.0]))[1]) == 3
    assert distinct([None, ["a"], None])[0].tolist() == [0, 1, 0]


CELL = st.text(alphabet='ab,;"\r\n\t é\u0301', max_size=4)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(CELL, CELL), min_size=1, max_size=20),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.integers(1, 40),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-16"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_csv_is_read_as_its_writer_meant(tmp_path, rows, quoting, block, delimiter, encoding, newline):
    """By the fast reader, the careful one and both, whatever the size of a piece."""
    if quoting == csv.QUOTE_MINIMAL:  # the writer leaves a lone return unquoted, which is a line break to any reader
        rows = [(a.replace("\r", ""), b.replace("\r", "")) for a, b in rows]
    path, block_size = tmp_path / "a.csv", csv_file._BLOCK
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, quoting=quoting, delimiter=delimiter, lineterminator=newline).writerows([("a", "b"), *rows])
    csv_file._BLOCK = block
    try:
        file = Source.of(path, None, delimiter, encoding)
        found = [(block.columns["a"], block.columns["b"]) for block in file.blocks(["a", "b"], pytest.fail)]
    finally:
        csv_file._BLOCK = block_size
    plain = lambda cells: [as_plain(cell) for cell in getattr(cells, "to_pylist", lambda: cells)()]  # noqa: E731
    assert [pair for a, b in found for pair in zip(plain(a), plain(b), strict=True)] == rows


def as_plain(cell):
    return cell.decode() if isinstance(cell, bytes) else cell


def test_labels_are_the_same_whatever_wrote_them():
    for cells in ((1, 1.0, "1", " 1 ", "1.0", b"1"), (True, "true"), (None, float("nan")), ("Ä", "Ä".encode())):
        assert len({as_text(cell) for cell in cells}) == 1
    assert as_text(True) != as_text(1)
    assert as_labels("a||b| c") == ["a", "b", "c"]
    assert found_classes(["1980", "2000", "1990"], "multiclass") == ("1980", "1990", "2000")


# Blocks of any engine.


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 80), max_size=4),
    R=st.sampled_from([0, 10]),
    outside=st.booleans(),
    block_rows=st.sampled_from([7, 100]),
)
def test_blocks_are_the_file_that_they_make_up(cuts, R, outside, block_rows):
    data = table(n=80, outside=0.2 * outside)
    rows = pa.Table.from_pandas(data, preserve_index=False)
    how = Predictions(MODALITIES, classes=tuple(sorted(WORDS)), bootstrap=R, block_rows=block_rows)
    edges = [0, *sorted(cuts), 80]
    blocks = (rows.slice(a, b - a) for a, b in itertools.pairwise(edges))
    card = score_blocks(blocks, how)
    assert card.counts.equal(how.score_rows(rows).counts)
    assert score_blocks([rows], Predictions(MODALITIES, bootstrap=R)).counts.equal(card.counts)  # classes are found


def test_blocks_that_can_not_be_scored_are_refused_by_their_row():
    how = Predictions(("text",), classes=("a", "b"))
    block = {"target": ["a", "b"], "prediction": ["a", "a"]}
    for blocks, said in [
        ([], "blocks is empty"),
        ([{"target": ["a"]}], "no column 'prediction'"),
        ([block, {**block, "prediction_none": ["a", "a"]}], "block at row 2"),
        ([block, {**block, "target": ["a", "c"]}], "row 3, column 'target': 'c' is none of"),
    ]:
        with pytest.raises(ValueError, match=said):
            score_blocks(blocks, how)


# Files of other programs.


@pytest.mark.parametrize("how", ["semicolons", "latin-1", "utf-16", "packed csv", "packed jsonl", "another suffix"])
def test_a_file_is_read_as_its_writer_wrote_it(how, tmp_path):
    data = table(words=("Hörer", "größer", "nichts")).drop(columns="qid")
    data.to_csv(tmp_path / "a.csv", index=False)
    card = Predictions(MODALITIES, bootstrap=10).score_files([tmp_path / "a.csv"]).card
    path, more = tmp_path / "b.csv", {}
    if how == "semicolons":
        data.to_csv(path, index=False, sep=";")
        more = {"delimiter": ";"}
    elif how in ("latin-1", "utf-16"):
        data.to_csv(path, index=False, encoding=how)
        more = {"encoding": how}
    elif how == "packed csv":
        path = tmp_path / "b.csv.gz"
        data.to_csv(path, index=False)
    elif how == "packed jsonl":
        path = tmp_path / "b.jsonl.gz"
        data.to_json(path, orient="records", lines=True)
    else:
        path, more = tmp_path / "b.txt", {"format": "tsv"}
        data.to_csv(path, index=False, sep="\t")
    assert Predictions(MODALITIES, bootstrap=10, **more).score_files([path]).card == card


UNREAD = {
    "latin-1": ("a.csv", "target,prediction\na,a\nü,a\n".encode("latin-1"), "line 3, column 'target': it is not UTF-8"),
    "emptied targets": ("a.csv", b"target,prediction\n,a\n,b\n", "line 2, column 'target': there is no target"),
    "one emptied": ("a.csv", b"target,prediction\na,a\n,b\n", "line 3, column 'target': there is no target"),
    "blanks": ("a.csv", b"target, prediction\na,a\n", "blanks around the names ' prediction'"),
    "blanks that would go unread": ("a.csv", b"target,prediction, presence_text\na,a,0\n", "names ' presence_text'"),
    "a word among numbers": ("a.csv", b"target,prediction\n0,0\n1,1\nn/a,1\n", "line 4, column 'target': 'n/a' is no"),
    "a hole among numbers": ("a.csv", b"target,prediction\n0,0\n1,1\n-1,1\n", "line 4, column 'target': '-1' is no"),
    "an unclosed quote": ("a.csv", b'target,prediction\na,a\nb,"b\na,a\nb,b\n', "line 3: a quote opens"),
    "cut off": ("a.csv.gz", gzip.compress(b"target,prediction\na,a\nb,b\n" * 9)[:-9], "can't be read"),
    "no gzip": ("a.csv.gz", b"target,prediction\na,a\nb,b\n", "can't be read"),
    "packed twice": ("a.parquet.gz", b"x", "unpack the .gz"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_the_first_row_that_can_not_be_read_is_named(case, tmp_path):
    name, content, said = UNREAD[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        Predictions(("text",)).score_files([tmp_path / name])
    assert "\n" not in str(error.value)
    listed = Predictions(("text",), classes=("0", "1", "n/a", "-1"))
    if "among" in case:
        assert listed.score_files([tmp_path / name]).card.samples == 3
    if case == "an unclosed quote":  # it may hide any number of rows, so it is not one that is left out
        with pytest.raises(ValueError, match="line 3: a quote opens"):
            Predictions(("text",), classes=("a", "b"), skip_bad=True).score_files([tmp_path / name])


def test_skipped_rows_are_counted_by_reason_and_kept_in_the_card(tmp_path):
    (tmp_path / "a.csv").write_text("target,prediction\na,a\n,a\nc,b\nb,b,b\nb,a\n,\n")
    card = Predictions(("text",), classes=("a", "b"), skip_bad=True).score_files([tmp_path / "a.csv"]).card
    assert card.info["skipped_rows"] == {"no target": 2, "unknown target": 1, "number of fields": 1}
    assert Scorecard.from_json(card.to_json()).info == card.info
    assert (card.samples, card.info["rows"], card.info["files"]) == (2, 6, ["a.csv"])


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_a_missing_prediction_is_a_miss_in_its_coalition(threshold):
    rows = {"target": [0, 1, 1], "prediction": [0, 1, None], "prediction_text": [None, 1, 1]}
    how = Predictions(("text", "audio"), task="binary", threshold=threshold, bootstrap=5)
    card = how.score_rows(rows)
    for coalition, right in (("all", [1, 1, 0]), ("text", [0, 1, 1])):
        assert card.score("accuracy", coalition) == sum(right) / 3
        assert (card.support(coalition=coalition), card.outside(coalition)) == (3, 1)


def test_a_cell_that_can_not_be_read_costs_its_coalition_alone(tmp_path):
    (tmp_path / "a.csv").write_text("target,prediction,prediction_text\n0,0.2,9\n1,0.7,0.8\n1,7,0.1\n")
    how = {"task": "binary", "threshold": 0.5, "bootstrap": 5}
    card = Predictions(("text", "audio"), skip_bad=True, **how).score_files([tmp_path / "a.csv"]).card
    assert [card.support(coalition=name) for name in ("all", "text")] == [2, 1]
    assert card.info["skipped_rows"] == {"no probability": 1}
    assert card.info["skipped_answers"] == {"text": 1}
    with pytest.raises(ValueError, match="line 2, column 'prediction_text'"):
        Predictions(("text", "audio"), **how).score_files([tmp_path / "a.csv"])


def test_the_two_ways_of_writing_a_letter_are_one_label():
    one, other = "\u00e9t\u00e9", "e\u0301te\u0301"
    card = Predictions(("text",), classes=(one, "hiver")).score_rows(
        {"target": [one, other], "prediction": [other, one]}
    )
    assert card.score("accuracy") == 1.0
    assert not card.other


def test_what_counts_of_an_answer_is_extracted():
    answers = ["(C)", "The answer is B.", "A", "I think (D) or (A)", "cannot say", None]
    rows = {"target": list("CBADAA"), "prediction": answers}
    how = {"classes": tuple("ABCD"), "bootstrap": 0}
    card = Predictions(("text",), extract=r"\(([A-D])\)|is ([A-D])", **how).score_rows(rows)
    assert (card.score("accuracy"), card.outside()) == (4 / 6, 2)
    card = Predictions(("text",), extract=r"\b[A-D]\b", **how).score_rows(rows)
    assert (card.score("accuracy"), card.outside()) == (4 / 6, 2)
    labels = Predictions(("text",), "multilabel", ("a", "b"), extract=r"\w", bootstrap=0)
    assert labels.score_rows({"target": ["a|b", "b"], "prediction": ["a and b?", "(b)"]}).outside() == 1  # n, d


def test_of_multiple_choice_right_and_wrong_are_all_that_counts():
    draw = np.random.default_rng(5)
    target, guess = draw.choice(list("ABCD"), (2, 300))
    rows = {"target": target, "prediction": np.where(draw.random(300) < 0.6, target, guess), "prediction_text": guess}
    rows["prediction_text"][:9] = "?"
    letters = Predictions(("text", "audio"), classes=tuple("ABCD"), bootstrap=20)
    card, plain = (how.score_rows(rows) for how in (dataclasses.replace(letters, multiple_choice=True), letters))
    for coalition in ("all", "text"):
        assert card.score("accuracy", coalition) == plain.score("accuracy", coalition)
    assert card.contributions("accuracy")["audio"].drop == plain.contributions("accuracy")["audio"].drop
    assert np.isnan(card.score("f1"))
    assert card.info["multiple_choice"]


# The sample logs of evaluation harnesses.


def logged(resps, target, **more):
    return json.dumps({"doc_id": 0, "doc": {}, "target": target, "resps": [], "filtered_resps": resps, **more})


def test_logs_of_harnesses_are_read(tmp_path):
    best, losses = [["-3.5", "False"], ["-0.2", "True"], ["-9.0", "False"]], [[3.5, False], [0.2, True], [9.0, False]]
    lines = [logged(best, "1", acc=1.0), logged(losses, 1), logged(best, "0", acc=0.0), logged([[2.0, 0], [1.0, 0]], 0)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    card = Predictions(("text",), classes=(3,), bootstrap=0).score_files([tmp_path / "a.jsonl"]).card
    assert card.confusion().tolist() == [[0, 2, 0], [0, 2, 0], [0, 0, 0]]
    texts = [logged(["(B)"], "B"), logged([["A"]], "B"), logged(["neither"], "A")]
    (tmp_path / "b.jsonl").write_text("\n".join(texts))
    how = Predictions(("text",), classes=("A", "B"), extract="[AB]", bootstrap=0)
    assert how.score_files([tmp_path / "b.jsonl"]).card.confusion(other=True).tolist() == [
        [0, 0, 1],
        [1, 1, 0],
        [0] * 3,
    ]


def test_options_are_named_as_the_target_names_them(tmp_path):
    """By words that were asked for as arguments, or in a list of one; with hashes and metrics, as harnesses write."""
    asked = {
        f"gen_args_{i}": {"arg_0": "Is it so?", "arg_1": f" {word}"} for i, word in enumerate(("yes", "no", "maybe"))
    }
    best, rest = [["-0.2", "True"], ["-3.5", "False"], ["-9.0", "False"]], {"filter": "none", "metrics": ["acc"]}
    lines = [
        logged(best, word, arguments=asked, acc=float(word == "yes"), doc_hash=f"h{n}", prompt_hash="p", **rest)
        for n, word in enumerate(("yes", "no", "maybe", "yes"))
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    card = Predictions(("text",), bootstrap=0).score_files([tmp_path / "a.jsonl"]).card
    assert dict(zip(card.class_names, card.confusion().tolist(), strict=True)) == {
        "maybe": [0, 0, 1],
        "no": [0, 0, 1],
        "yes": [0, 0, 2],
    }
    (tmp_path / "b.jsonl").write_text("\n".join(logged(best, f"[{n}]", acc=float(n == 0)) for n in (0, 2, 1)))
    card = Predictions(("text",), bootstrap=0).score_files([tmp_path / "b.jsonl"]).card
    assert card.confusion().tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            [logged(["A"], "A", filter="strict"), logged(["A"], "A", filter="loose")],
            "line 2: a sample is there more than once",
        ),
        ([logged(["A", "B"], "A")], "line 1: filtered_resps holds 2 answers"),
        ([logged([["18", "20"]], "1")], "line 1: filtered_resps holds 2 answers"),
        ([logged([[-1.0, 0], [2.0, 0]], 0)], "line 1: filtered_resps holds neither log-likelihoods nor losses"),
        ([logged([[math.nan, 0], [2.0, 0]], 0)], "line 1: filtered_resps holds neither log-likelihoods nor losses"),
        ([logged([[-1.0, 0], [-2.0, 0]], 1, acc=1.0)], "line 1: its acc is 1.0, and 0 is the best"),
        ([logged([[-1.0, 0], [-2.0, 0]], "A")], "line 1: its target 'A' is no number, and no text of option 0"),
        ([logged(["A"], "A", doc_hash="f0"), logged(["B"], "A", doc_hash="f0")], "line 2: a sample is there more than"),
    ],
)
def test_logs_that_say_two_things_are_refused(lines, said, tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=said):
        Predictions(("text",), classes=("0", "1", "A", "B")).score_files([tmp_path / "a.jsonl"])


# Groups, slices by columns, numbers on a scale.


def test_groups_and_columns_are_those_of_a_metric(tmp_path):
    draw = np.random.default_rng(6)
    data = table(outside=0.05).assign(
        speaker=draw.integers(30, size=N), language=draw.choice(["de", "en", "fr"], N), loud=draw.integers(2, size=N)
    )
    how = Predictions(MODALITIES, classes=WORDS, bootstrap=20, group="speaker", by=("language=de,en", "loud"))
    data.to_csv(tmp_path / "a.csv", index=False)
    card = how.score_files([tmp_path / "a.csv"]).card
    metric = CoalitionConfusionMatrix(
        MODALITIES,
        num_classes=5,
        coalitions=["none", "text-image", "all"],
        bootstrap=20,
        by={"language": ["de", "en"], "loud": ["0", "1"]},
    )
    code = {name: i for i, name in enumerate(WORDS)}
    columns = ["prediction_none", "prediction_image-text", "prediction"]
    preds = np.stack([[code.get(word, 4) for word in data[column]] for column in columns])
    metric.update(
        torch.tensor(preds),
        torch.tensor([code[word] for word in data.target]),
        torch.tensor(np.stack([data.presence_text == 1, np.ones(N, bool), data.presence_audio], 1)),
        group=torch.tensor(data.speaker),
        by={"language": data.language.tolist(), "loud": torch.tensor(data.loud)},
    )
    assert torch.equal(card.counts, metric.scorecard().counts)
    assert card.groups() == data.speaker.nunique()
    where = (data.language == "de") & (data.presence_audio)
    right = (data.target == data.prediction)[where].mean()
    assert card.score("accuracy", slice=("audio", "language/de")) == pytest.approx(right)


def test_groups_and_columns_join_with_their_runs(runs):
    draw = np.random.default_rng(6)
    more = table()[["qid"]].assign(speaker=draw.choice(["ann", "bob", "eve"], N), language=draw.choice(["de", "en"], N))
    pandas.read_csv(runs / "wide.csv").merge(more, on="qid").to_csv(runs / "wide.csv", index=False)
    how = Predictions(MODALITIES, id="qid", bootstrap=20, group="speaker", by=["language"])
    full = pandas.read_json(runs / "full.jsonl", lines=True).merge(more, on="qid")
    full.to_json(runs / "full.jsonl", orient="records", lines=True)
    joined, wide = how.score_runs(names_of(runs)).card, how.score_files([runs / "wide.csv"]).card
    assert torch.equal(joined.counts, wide.counts)
    assert joined.groups() == 3


def test_a_column_of_no_groups_or_of_too_many_values_is_refused(tmp_path):
    table().assign(note=np.arange(N), speaker=[""] + ["a"] * (N - 1)).to_csv(tmp_path / "a.csv", index=False)
    for more, said in [
        ({"group": "speaker"}, "line 2, column 'speaker': there is no group"),
        ({"group": "lost"}, "--group NAME"),
        ({"by": ["note"]}, "'note' holds more than 100 different values"),
    ]:
        with pytest.raises(ValueError, match=said):
            Predictions(MODALITIES, **more).score_files([tmp_path / "a.csv"])


def test_numbers_on_a_scale_are_those_of_a_metric(tmp_path):
    draw = np.random.default_rng(7)
    data = pandas.DataFrame({"target": draw.uniform(-3, 3, 200)}).assign(presence_text=draw.integers(2, size=200))
    data["prediction"] = data.target + draw.normal(size=200)
    data.to_csv(tmp_path / "a.csv", index=False)
    how = Predictions(("text",), "ordinal", edges="-1,1", bootstrap=20)
    card = how.score_files([tmp_path / "a.csv"]).card
    metric = CoalitionConfusionMatrix(("text",), task="ordinal", edges=(-1, 1), coalitions=["all"], bootstrap=20)
    preds, target = (torch.tensor(data[name].to_numpy()) for name in ("prediction", "target"))
    metric.update(preds.unsqueeze(0), target, torch.tensor(data[["presence_text"]].to_numpy()), torch.arange(200))
    assert card == metric.scorecard()
    assert card.score("mae") == pytest.approx((data.target - data.prediction).abs().mean(), abs=1e-3)
    with pytest.raises(ValueError, match="row 1, column 'prediction': '' is no number"):
        how.score_rows({"target": [0.5, 1.0], "prediction": ["0.1", ""]})


def test_ids_that_are_numbers_are_an_index(tmp_path):
    data = table(words=("0", "1", "2")).assign(index=np.arange(N)[::-1])
    how = {"classes": (3,), "bootstrap": 20}
    numbered = Predictions(MODALITIES, id="index", **how).score_rows(pa.Table.from_pandas(data, preserve_index=False))
    plain = Predictions(MODALITIES, **how).score_rows(pa.Table.from_pandas(data[::-1], preserve_index=False))
    assert torch.equal(numbered.counts, plain.counts)


# Whatever is in a file, a clear ValueError or a card comes out.


def scored_or_refused(path, **options):
    said = ""
    try:
        Predictions(("text",), bootstrap=0, **options).score_files([path])
    except ValueError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: text.encode(errors="replace"))),
    head=st.sampled_from([b"", b"target,prediction\n", b'{"target": "a", "prediction": "b"}\n', b"PAR1"]),
    suffix=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
    skip_bad=st.booleans(),
)
def test_random_bytes(content, head, suffix, skip_bad, tmp_path):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(head + content)
    scored_or_refused(path, skip_bad=skip_bad)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_damaged_files(suffix, tmp_path):
    data = table(n=120)[["target", "prediction", "presence_text"]]
    path = tmp_path / f"a.{suffix}"
    save(data, path)
    good, draw = path.read_bytes(), random.Random(0)
    for _ in range(120):
        content = bytearray(good)
        for _ in range(draw.choice([1, 1, 3, 30])):
            at = draw.randrange(len(content) + 1)
            kind = draw.randrange(4)
            if kind == 0:
                content[at : at + 1] = draw.randbytes(1)
            elif kind == 1:
                del content[at:]
            elif kind == 2:
                content[at:at] = draw.randbytes(draw.randrange(20))
            else:
                del content[at : at + draw.randrange(50)]
        path.write_bytes(content)
        scored_or_refused(path, skip_bad=draw.random() < 0.5, classes=draw.choice([None, WORDS]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=5,
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["target", "prediction", "presence_text", "id"]),
    st.sampled_from(["multiclass", "binary", "multilabel"]),
)
def test_any_cells(cells, column, task):
    rows = {"target": ["1"] * len(cells), "prediction": ["1"] * len(cells), "presence_text": [1] * len(cells)}
    rows = {**rows, "id": list(range(len(cells))), column: cells}
    how = Predictions(("text",), task=task, classes=("0", "1"), id="id", bootstrap=0)
    said = ""
    try:
        assert how.score_rows(rows).samples == len(cells)
    except ValueError as error:
        said = str(error)
    assert not said or repr(column) in said


def test_a_block_is_bounded_by_what_the_file_says_once(tmp_path):
    """A word of 4 MB in 500 rows is 2 GB unpacked, and 4 MB as the dictionary that the file holds."""
    word = pa.array(["x" * 4_000_000, "a"])  # not in every row, as then nothing would be read right
    column = pa.DictionaryArray.from_arrays(pa.array((np.arange(500) % 25 == 0).astype(np.int32)), word)
    rows = pa.table({"target": ["a", "b"] * 250, "prediction": column})
    parquet.write_table(rows, tmp_path / "a.parquet", store_schema=False)
    assert (tmp_path / "a.parquet").stat().st_size < 1_000_000
    whole, watched = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(watched)
    try:
        card = Predictions(("text",), classes=("a", "b"), bootstrap=0).score_files([tmp_path / "a.parquet"]).card
    finally:
        pa.set_memory_pool(whole)
    assert card.outside() == 480
    assert 4_000_000 < watched.max_memory() < 200 * 2**20


@pytest.mark.slow
def test_millions_of_rows_in_bounded_memory(tmp_path):
    """Two million rows take no more memory than a hundred thousand, but for a block's allowance."""
    draw = np.random.default_rng(0)
    paths = []
    for n in (100_000, 2_000_000):
        words = np.array(WORDS, dtype=object)[draw.integers(4, size=(2, n))]
        paths.append(tmp_path / f"{n}.parquet")
        columns = {"target": words[0], "prediction": words[1], "presence_text": draw.integers(2, size=n)}
        parquet.write_table(pa.table(columns), paths[-1], use_dictionary=False, compression="none")
    code = """
        import resource, sys
        from mm_metrics.predictions import Predictions
        card = Predictions(("text", "audio"), bootstrap=0).score_files([sys.argv[1]]).card
        print(card.samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    peaks = []
    for path in paths:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), path], capture_output=True, text=True, check=True
        )
        samples, peak = map(int, done.stdout.split())
        assert samples == int(path.stem)
        peaks.append(peak)
    assert paths[1].stat().st_size > 30 * 2**20
    assert peaks[1] - peaks[0] < 60


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
def test_probabilities_give_rankings_as_scikit_learn_has_them(task, suffix, tmp_path):
    random = np.random.default_rng(3)
    target = (
        random.integers(0, 3, N) if task == "multiclass" else random.integers(0, 2, (N, 1 if task == "binary" else 3))
    )
    logits = random.normal(size=(N, 1 if task == "binary" else 3)) + 2 * (
        np.eye(3)[target] if target.ndim == 1 else target
    )
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) if task == "multiclass" else 1 / (1 + np.exp(-logits))
    names = np.array(["flood", "siren", "smoke"])
    cells = p[:, 0].tolist() if task == "binary" else p.tolist()
    if suffix == "csv" and task != "binary":
        cells = ["|".join(map(repr, row)) for row in cells]
    words = (
        names[target]
        if task == "multiclass"
        else target[:, 0]
        if task == "binary"
        else ["|".join(names[row == 1]) for row in target]
    )
    save(pandas.DataFrame({"target": words, "prediction": cells}), tmp_path / f"a.{suffix}")
    classes = None if task == "binary" else tuple(names)
    how = Predictions(("text",), task=task, classes=classes, scores=("auroc", "brier"), headline="auroc")
    card = how.score_files([tmp_path / f"a.{suffix}"]).card
    onehot = np.eye(3)[target] if task == "multiclass" else target
    for name, exact in (("auroc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
        assert abs(card.score(name) - exact(onehot, p, average="macro")) <= card.bound(name)
    square = ((p - onehot) ** 2).sum(1) if task == "multiclass" else ((p - onehot) ** 2).mean(1)
    assert card.score("brier") == pytest.approx(square.mean(), abs=1e-5)
    assert card.headline == "auroc"
    hits = p.argmax(1) == target if task == "multiclass" else (p > 0.5) == target
    assert card.score("accuracy") == pytest.approx(hits.mean())


@pytest.mark.parametrize(
    ("cell", "said"),
    [("0.1|0.9", "holds 2 numbers"), ("0.5|0.5|0.5", "sums to 1.5"), ("a|b|c", "no probability"), ("", "0 numbers")],
)
def test_probabilities_that_are_none_are_refused(cell, said):
    how = Predictions(("text",), classes=("a", "b", "c"), scores=("auroc",))
    with pytest.raises(ValueError, match=said):
        how.score_rows({"target": ["a", "b"], "prediction": ["0.2|0.3|0.5", cell]})
    with pytest.raises(ValueError, match="scores"):
        Predictions(("text",), task="ordinal", edges=(0.0,), scores=("auroc",))


def test_a_column_of_speakers_that_is_not_used_is_said(tmp_path):
    data = table().assign(speaker=[i // 4 for i in range(N)])
    data.to_csv(tmp_path / "a.csv", index=False)
    how = {"modalities": MODALITIES, "classes": WORDS, "bootstrap": 20}
    card = Predictions(**how).score_files([tmp_path / "a.csv"]).card
    assert card.info["unused_group"] == "speaker"
    assert "group='speaker'" in "".join(card.verdict().notes)
    for more in ({"group": "speaker"}, {"by": ["speaker"]}):
        card = Predictions(**how, **more).score_files([tmp_path / "a.csv"]).card
        assert "unused_group" not in card.info
