"""Answers in words: in metrics and in the monitor, as files read them."""

from __future__ import annotations

import pytest
import torch

from mm_metrics import CoalitionConfusionMatrix, ModalityConfusionMatrix
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.predictions.answers import Answers

from .toys import MODALITIES, Rows, loader, seeded, trainer

NAMES = ["cat", "dog", "3"]
SAID = ["The answer is cat.", "dog", "", "answer is 3", "answer is cow", " cat ", "answer is dog or cat"]
EXTRACT = r"answer is (\w+)"


def test_words_are_read_as_files_read_them():
    answers = Answers("multiclass", tuple(NAMES), extract=EXTRACT)
    wanted = [answers.prediction(text) for text in SAID]
    metric = ModalityConfusionMatrix(("text",), num_classes=3, class_names=NAMES, extract=EXTRACT)
    assert [n % 4 for n in metric.numbers(SAID, torch.zeros(7)).tolist()] == wanted == [0, 1, 3, 2, 3, 0, 1]
    function = ModalityConfusionMatrix(("text",), num_classes=3, class_names=NAMES, extract=lambda text: text[:3])
    assert function.numbers(["dog!", "no"], torch.zeros(2)).tolist() == [1, -1]
    target = torch.tensor([0, 1, 2, 2, 0, 0, 0])
    metric.update(SAID, target)
    card = metric.scorecard()
    assert card.outside() == 2
    assert card.score("accuracy") == pytest.approx(4 / 7)
    assert "2 of 7 answers (28.6%) are no class" in card.verdict().notes[0]


def test_coalitions_in_words():
    target = torch.tensor([0, 1])
    rows = [["cat", "cat"], ["dog", "dog"], ["cow", "cat"], ["cat", "dog"]]
    cards = []
    for preds in (rows, dict(zip(("none", "text", "audio", "text-audio"), rows, strict=True)), None):
        metric = CoalitionConfusionMatrix(("text", "audio"), num_classes=3, class_names=NAMES)
        metric.update(torch.tensor([[0, 0], [1, 1], [-1, 0], [0, 1]]) if preds is None else preds, target)
        cards.append(metric.scorecard())
    assert cards[0] == cards[1] == cards[2]


def test_words_without_names_and_in_tasks_without_classes_are_refused():
    with pytest.raises(TypeError, match="class_names="):
        ModalityConfusionMatrix(("text",), num_classes=3).update(["cat"], torch.tensor([0]))
    with pytest.raises(TypeError, match="multilabel"):
        ModalityConfusionMatrix(("text",), task="multilabel", num_labels=2).update(["cat"], torch.zeros(1, 2).long())
    with pytest.raises(TypeError, match="preds is a tensor"):
        ModalityConfusionMatrix(("text",), num_classes=3, class_names=NAMES).update([0], torch.tensor([0]))


def test_a_model_that_answers_in_words_is_ablated(tmp_path):
    data, cards = Rows(60, seed=1), []

    def speak(module, batch):
        return [
            ["the cat", "a dog", "a 3"][n] if n % 3 or batch is None else "the cat" for n in module(batch).argmax(-1)
        ]

    for more in ({"predict": speak, "extract": r"(?:the|a) (.+)"}, {}):
        watcher = ModalityMonitor(MODALITIES, 3, class_names=NAMES, report=False, bootstrap=20, **more)
        trainer(tmp_path, watcher).validate(seeded(), loader(data), verbose=False)
        cards.append(watcher.scorecards["val"])
    assert cards[0].coalitions == cards[1].coalitions
    assert torch.equal(cards[0].counts, cards[1].counts)
