"""Batches as people's loaders give them, through a Trainer, with the same scorecard for each."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict
from typing import NamedTuple

import pytest
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, default_collate

from mm_metrics.callbacks import ModalityMonitor
from tests.toys import MODALITIES, Concat, Rows, loader, seeded, trainer


class Named(NamedTuple):
    text: Tensor
    image: Tensor
    audio: Tensor
    label: Tensor


@dataclasses.dataclass
class Fields:
    text: Tensor
    image: Tensor
    audio: Tensor
    label: Tensor


class Plain:
    """A batch of somebody's own, which moves itself to a device as Lightning asks."""

    def __init__(self, **parts):
        vars(self).update(parts)

    def to(self, *args, **kwargs):
        return Plain(**{name: value.to(*args, **kwargs) for name, value in vars(self).items()})


ORDER = ("text", "image", "audio", "label")
POSITIONS = {"text": 0, "image": 1, "audio": 2}
# what the collate function makes of the four tensors, how the model reads one of them, and the monitor's arguments
FORMS = {
    "dict": (dict, lambda batch, name: batch[name], MODALITIES, "label"),
    "tuple": (lambda parts: tuple(parts.values()), lambda batch, name: batch[ORDER.index(name)], POSITIONS, 3),
    "list": (lambda parts: list(parts.values()), lambda batch, name: batch[ORDER.index(name)], POSITIONS, -1),
    "NamedTuple": (lambda parts: Named(**parts), getattr, MODALITIES, "label"),
    "NamedTuple by position": (lambda parts: Named(**parts), getattr, POSITIONS, 3),
    "dataclass": (lambda parts: Fields(**parts), getattr, MODALITIES, "label"),
    "own class": (lambda parts: Plain(**parts), getattr, MODALITIES, "label"),
    "UserDict": (UserDict, lambda batch, name: batch[name], MODALITIES, "label"),
    "OrderedDict": (OrderedDict, lambda batch, name: batch[name], MODALITIES, "label"),
    "inputs and target": (
        lambda parts: ({name: parts[name] for name in MODALITIES}, parts["label"]),
        lambda batch, name: batch[1] if name == "label" else batch[0][name],
        None,
        1,
    ),
}


class Reader(Concat):
    """`Concat` for a batch of any form."""

    def __init__(self, read):
        super().__init__()
        self.read = read

    def forward(self, batch):
        return super().forward({name: self.read(batch, name) for name in MODALITIES})

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch), self.read(batch, "label"))

    def validation_step(self, batch, batch_idx):
        self(batch)


def fitted(tmp_path, form):
    make, read, modalities, target = FORMS[form]
    keywords = {"modalities": modalities, "target": target}
    if modalities is None:  # the nested one: a model of the inputs alone, which predict hands it
        keywords = {"modalities": {"inputs": 0}, "target": target}

    def collate(rows):
        parts = default_collate(rows)
        return make({name: parts[name] for name in ORDER})

    watcher = ModalityMonitor(num_classes=3, bootstrap=0, **keywords)
    run = trainer(tmp_path, watcher, max_epochs=1)
    run.fit(seeded(Reader, read=read), loader(collate_fn=collate), loader(Rows(seed=1), collate_fn=collate))
    return watcher.scorecards["val"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("dict"), "dict")


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("dict", "inputs and target")])
def test_the_form_of_the_batch_makes_no_difference(form, expected, tmp_path):
    card = fitted(tmp_path, form)
    assert card == expected
    assert card.info["encoders"] == {name: [f"encoders.{name}"] for name in MODALITIES}


def test_inputs_and_target_as_a_pair(expected, tmp_path):
    card = fitted(tmp_path, "inputs and target")
    assert card.score("accuracy") == expected.score("accuracy")
    assert card.score("accuracy", coalition="none") == expected.score("accuracy", coalition="none")


@pytest.mark.parametrize(
    ("form", "modalities", "target", "told"),
    [
        ("tuple", {"text": 0, "audio": 7}, 3, r"7 is not in the batch \((tuple|list)\), which has \[0, 1, 2, 3\]"),
        ("tuple", POSITIONS, "label", r"'label' is not in the batch \((tuple|list)\), which has \[0, 1, 2, 3\]"),
        ("NamedTuple", {"text": "words"}, "label", r"'words' is not in the batch \(Named\), which has .*'text'"),
        ("dataclass", {"text": "words"}, "label", r"'words' is not in the batch \(Fields\), which has .*'text'"),
        ("own class", MODALITIES, "y", r"'y' is not in the batch \(Plain\), which has .*'label'"),
    ],
)
def test_a_key_that_is_not_there_names_those_that_are(form, modalities, target, told, tmp_path):
    make, read, *_ = FORMS[form]
    watcher = ModalityMonitor(modalities, num_classes=3, bootstrap=0, target=target)
    rows = default_collate([Rows()[i] for i in range(8)])
    batch = make({name: rows[name] for name in ORDER})
    with pytest.raises(KeyError, match=told):
        trainer(tmp_path, watcher).validate(
            seeded(Reader, read=read), DataLoader([batch], batch_size=None), verbose=False
        )


def test_a_data_set_of_whole_batches_and_a_stream_of_unknown_length(expected, tmp_path):
    batches = list(loader(Rows(seed=1)))

    class Stream(IterableDataset):
        def __iter__(self):
            return iter(batches)

    for data in (DataLoader(batches, batch_size=None), DataLoader(Stream(), batch_size=None)):
        watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0)
        trainer(tmp_path, watcher, max_epochs=1).fit(seeded(), loader(), data)
        assert watcher.scorecards["val"] == expected
