"""Slices without a column: properties read off the inputs, cut at thirds, on any device and any number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mm_metrics import properties
from mm_metrics.callbacks import ModalityMonitor
from mm_metrics.callbacks.auto import Auto
from mm_metrics.callbacks.prober import Shown
from mm_metrics.callbacks.waiting import Waiting
from mm_metrics.callbacks.watched import Watched

from .pretend import pretending, to_device
from .toys import MODALITIES, Rows, loader, seeded, trainer


def sounds(N=40, T=640):
    generator = torch.Generator().manual_seed(0)
    ends = torch.randint(T // 2, T + 1, (N, 1), generator=generator)
    loud = torch.rand(N, 1, generator=generator)
    return torch.randn(N, T, generator=generator) * loud * (torch.arange(T) < ends), ends[:, 0]


def test_properties_against_numpy():
    waves, ends = sounds()
    parts = [wave[:end].double().numpy() for wave, end in zip(waves, ends, strict=True)]
    assert properties.duration(waves).tolist() == ends.tolist()
    loudness = [10 * np.log10((part**2).mean()) for part in parts]
    np.testing.assert_allclose(properties.loudness(waves), loudness, atol=1e-3)
    frames = [np.sort((part[: len(part) // 10 * 10].reshape(-1, 10) ** 2).mean(1)) for part in parts]
    snr = [10 * np.log10(f[round(0.95 * (len(f) - 1))] / f[round(0.05 * (len(f) - 1))]) for f in frames]
    np.testing.assert_allclose(properties.snr(waves), snr, atol=1e-3)
    images = torch.rand(7, 3, 9, 11)
    np.testing.assert_allclose(properties.brightness(images), images.numpy().mean((1, 2, 3)), rtol=1e-6)
    grey = images.numpy().mean(1)
    curve = grey[:, 2:, 1:-1] + grey[:, :-2, 1:-1] + grey[:, 1:-1, 2:] + grey[:, 1:-1, :-2] - 4 * grey[:, 1:-1, 1:-1]
    np.testing.assert_allclose(properties.sharpness(images), curve.var((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(properties.sharpness(images.movedim(1, -1)), curve.var((1, 2)), rtol=1e-4)
    assert properties.length(["", "ab c"]).tolist() == [0, 4]


def test_integer_and_half_waveforms_and_silence():
    waves, _ = sounds()
    whole = (waves.clamp(-1, 1) * 32767).to(torch.int16)
    np.testing.assert_allclose(properties.loudness(whole), properties.loudness(whole.float() / 32767), atol=1e-3)
    assert properties.loudness(waves.half()).isfinite().all()
    silent = torch.zeros(2, 100)
    assert properties.loudness(silent).tolist() == [-120, -120]
    assert properties.snr(silent).tolist() == [0, 0]
    assert properties.duration(silent).tolist() == [0, 0]
    assert properties.sharpness(torch.rand(2, 3, 2, 2)).isnan().all()


def test_thirds_do_not_hang_on_the_order_and_ties_stay_together():
    values = torch.randn(301, generator=torch.Generator().manual_seed(1))
    cuts = properties.cut_points(values)
    assert cuts == properties.cut_points(values[torch.randperm(301)])
    sizes = properties.levels(values, cuts).bincount(minlength=4).tolist()
    assert sizes == [101, 100, 100, 0]
    equal = torch.ones(10)
    assert properties.levels(equal, properties.cut_points(equal)).tolist() == [0] * 10
    assert properties.cut_points(torch.full((3,), torch.nan)) == ()
    assert properties.levels(equal, ()).tolist() == [3] * 10


def test_no_property_waits_for_the_device():
    waves, images = sounds()[0], torch.rand(40, 3, 8, 8)
    with pretending() as log:
        entries = {"loudness": waves, "snr": waves, "duration": waves, "brightness": images, "sharpness": images}
        for name, entry in {**entries, "length": torch.randint(9, (40, 5))}.items():
            properties.levels(properties.PROPERTIES[name][0](to_device(entry)), (0.1, 0.2))
        assert log.waits == []


class Loud(Rows):
    """Rows whose audio is louder or softer, and whose audio some lack."""

    def __init__(self, n=90, **keywords):
        super().__init__(n, **keywords)
        self.inputs["audio"] = self.inputs["audio"] * torch.logspace(-2, 1, n).unsqueeze(1)


def monitor(**keywords):
    return ModalityMonitor(MODALITIES, num_classes=3, presence="presence", report=False, bootstrap=20, **keywords)


def wanted(data):
    loudness = torch.where(data.presence[:, 2], properties.loudness(data.inputs["audio"]), torch.nan)
    code = properties.levels(loudness, properties.cut_points(loudness))
    return code, (~data.presence).sum(1)


def test_the_first_validation_is_cut_at_its_own_thirds_and_the_next_at_the_same(tmp_path):
    data, watcher = Loud(missing=0.3, seed=1), monitor(by={"audio.loudness": "auto", "missing": "auto"})
    run, model = trainer(tmp_path, watcher, num_sanity_val_steps=1), seeded()
    run.fit(model, loader(), loader(data))
    code, lacks = wanted(data)
    card, M = watcher.scorecards["val"], 3
    for k, name in enumerate((*properties.LEVELS, "other")):
        assert card.support(f"audio.loudness/{name}") == int((code == k).sum()) > 0
    assert [card.support(f"missing/{n}") for n in range(M + 1)] == lacks.bincount(minlength=M + 1).tolist()
    both = card.support(("audio.loudness/low", "missing/1"))
    assert both == int(((code == 0) & (lacks == 1)).sum())
    assert [line["val/audio.loudness/low/support"] for line in watcher.history] == [int((code == 0).sum())] * 2
    other = Loud(seed=2)
    run.test(model, loader(other), verbose=False)
    cuts = properties.cut_points(torch.where(data.presence[:, 2], properties.loudness(data.inputs["audio"]), torch.nan))
    assert watcher.scorecards["test"].info["cuts"] == card.info["cuts"] == {"audio.loudness": list(cuts)}
    again = properties.levels(properties.loudness(other.inputs["audio"]), cuts).bincount(minlength=4)
    assert [watcher.scorecards["test"].support(f"audio.loudness/{k}") for k in properties.LEVELS] == again[:3].tolist()


def test_what_waits_counts_as_what_does_not(tmp_path):
    data, cards = Loud(seed=1), []
    plain, waiting = monitor(), monitor(by={"audio.loudness": "auto"})
    for watcher in (plain, waiting):
        trainer(tmp_path, watcher).validate(seeded(), loader(data), verbose=False)
        cards.append(watcher.scorecards["val"])
    for score in ("accuracy", "f1"):
        assert cards[0].score(score) == cards[1].score(score)
        assert cards[0].contributions(score)["text"].drop.value == cards[1].contributions(score)["text"].drop.value


def test_too_much_to_wait_for_begins_with_the_second_epoch(tmp_path, monkeypatch):
    watcher, add = monitor(by={"audio.loudness": "auto"}), Waiting.add
    monkeypatch.setattr(Waiting, "add", lambda self, *batch: (add(self, *batch), setattr(self, "bytes", 2**40)))
    with pytest.warns(UserWarning, match="begin with the second epoch"):
        trainer(tmp_path, watcher, max_epochs=2).fit(seeded(), loader(), loader(Loud()))
    supports = [line["val/audio.loudness/other/support"] for line in watcher.history]
    assert supports == [90, 0]
    assert watcher.scorecards["val"].samples == 90


def test_checkpoints_carry_the_cut_points(tmp_path):
    first, second = (monitor(by={"audio.loudness": "auto"}) for _ in range(2))
    trainer(tmp_path, first).validate(seeded(), loader(Loud(seed=1)), verbose=False)
    second.load_state_dict(first.state_dict())
    trainer(tmp_path, second).validate(seeded(), loader(Loud(seed=3, n=60)), verbose=False)
    assert second.scorecards["val"].info["cuts"] == first.scorecards["val"].info["cuts"]
    other = monitor(by={"audio.loudness": "auto"})
    trainer(tmp_path, other).validate(seeded(), loader(Loud(seed=3, n=60)), verbose=False)
    with pytest.raises(ValueError, match="different cuts of slices"):
        first.scorecards["val"] + other.scorecards["val"]


def test_a_property_that_several_could_have_names_its_modality(tmp_path):
    with pytest.raises(ValueError, match=r"text and image and audio can have that.*'audio.loudness'"):
        trainer(tmp_path, monitor(by={"loudness": "auto"})).validate(seeded(), loader(), verbose=False)
    for by in ({"colour": "auto"}, {"smell.loudness": "auto"}, {"loudness": "aut"}):
        with pytest.raises(ValueError, match=r"by\["):
            monitor(by=by)


def test_entries_of_every_form_and_those_that_are_absent():
    waves = [torch.rand(5), torch.rand(9)]
    batch = {
        "words": ["", "four"],
        "mask": torch.tensor([[1, 1], [1, 0]]),
        "wave": waves,
        "image": None,
        "still": torch.zeros(0, 3),
    }
    inputs = {"text": ("words", "mask"), "audio": "wave", "image": "image", "video": "absent", "still": "still"}
    columns = ("length", "duration", "image.brightness", "video.sharpness", "still.loudness", "missing")
    said = []
    auto = Auto(dict.fromkeys(columns, "auto"), Watched(inputs, 2), said.append)
    has = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 0, 0, 0]])
    shown = Shown((31,), torch.zeros(1, 2, 2), None, has)
    values = auto.values(batch, shown)
    assert values["length"][0] == 0
    assert values["length"][1].isnan()  # it lacks the text
    assert values["duration"].tolist() == [5, 9]
    assert all(values[name].isnan().all() for name in columns[2:5])
    assert values["missing"].tolist() == [3, 4]
    auto.cut([{name: [value.float()] for name, value in values.items()}])
    assert auto.cuts == {"length": (0, 0), "duration": (5, 9)}
    assert auto.waits  # of what no sample has there are no cut points yet


def test_another_training_is_cut_at_its_own_thirds(tmp_path):
    watcher, fresh = (monitor(by={"audio.loudness": "auto"}) for _ in range(2))
    trainer(tmp_path, watcher, max_epochs=1).fit(seeded(), loader(), loader(Loud(seed=1)))
    for one in (watcher, fresh):
        trainer(tmp_path, one, max_epochs=1).fit(seeded(), loader(), loader(Loud(seed=3, n=60)))
    assert watcher.scorecards["val"].info["cuts"] == fresh.scorecards["val"].info["cuts"]
