"""Files from strangers: nothing in them is executed, nothing lands where it does not belong, what is wrong is said."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_metrics import find_leakage
from mm_metrics.callbacks import ModalityDynamics, ModalityMonitor
from mm_metrics.cli import main
from mm_metrics.leakage import Leakage, from_files
from scripts.train import build
from tests.toys import MODALITIES, loader, seeded, trainer

EXECUTED = (
    "!!python/object/apply:os.system ['touch executed']",
    "!!python/object/apply:subprocess.check_output [[touch, executed]]",
    "!!python/object/new:os.system ['touch executed']",
    "!!python/name:os.system",
    "!!python/module:antigravity",
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("tag", EXECUTED)
@pytest.mark.parametrize("place", ["{}", "modalities: {}", "output: {}", "- {}"])
def test_no_tag_of_a_config_is_executed(tag, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("target,prediction\n0,0\n1,1\n")
    (tmp_path / "hostile.yaml").write_text(place.format(tag) + "\n")
    assert main(["score", "a.csv", "--modalities", "text", "--config", "hostile.yaml"]) >= 4
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "hostile.yaml"}


@pytest.mark.parametrize("tag", EXECUTED)
def test_no_tag_of_a_story_is_executed(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.yaml").write_text(f"model: {tag}\n")
    with pytest.raises(SystemExit):
        build(["fit", "--config=hostile.yaml"])
    assert {path.name for path in tmp_path.iterdir()} == {"hostile.yaml"}


@FUZZ
@given(st.binary(max_size=80))
def test_any_bytes_as_a_config(tmp_path, content):
    card = tmp_path / "card.json"
    (tmp_path / "a.csv").write_text("target,prediction\n0,0\n1,1\n")
    (tmp_path / "any.yaml").write_bytes(content)
    code = main(
        [
            "score",
            str(tmp_path / "a.csv"),
            "--modalities",
            "text",
            "--output",
            str(card),
            "--config",
            str(tmp_path / "any.yaml"),
        ]
    )
    assert code == 0 or code in (4, 5)
    assert (code == 0) == card.exists()
    card.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def found():
    train = [{"text": "smoke in the cellar", "label": 1, "speaker": 1}, {"text": "a cat", "label": 0, "speaker": 2}]
    return find_leakage({"train": train, "test": train[::-1]}, ["text"], group="speaker", near=False, progress=False)


@FUZZ
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), st.text(max_size=6)), min_size=1, max_size=4))
def test_a_damaged_file_of_leaks_is_read_whole_or_refused(found, tmp_path, damages):
    path = tmp_path / "leakage.json"
    found.to_json(path)
    text = path.read_text()
    for place, length, instead in damages:
        at = int(place * len(text))
        text = text[:at] + instead + text[at + length :]
    path.write_bytes(text.encode(errors="surrogatepass"))
    with contextlib.suppress(ValueError):
        read = Leakage.from_json(path)
        assert all(set(read.touched(split)) <= set(range(N)) for split, N in read.sizes.items())
        assert len(str(read)) > 0


@FUZZ
@given(st.binary(max_size=120), st.sampled_from(["", "text,label\n", '{"text": "a cat"}\n']))
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_any_bytes_as_a_manifest(suffix, tmp_path, content, head):
    (tmp_path / "train.csv").write_text("text,label\na cat,0\n")
    path = tmp_path / f"test.{suffix}"
    path.write_bytes(head.encode() + content)
    with contextlib.suppress(ValueError):
        read = from_files({"train": tmp_path / "train.csv", "test": path}, ["text"], near=False, progress=False)
        assert all(finding.count <= read.sizes["test"] for finding in read.findings)


HISTORIES = (
    None,
    "x",
    3,
    [3],
    [{}],
    [{"epoch": 0}],
    [{"epoch": 0, "step": "<b>"}],
    [{"epoch": 0, "step": 4, "drop": "0.1"}],
    {"epoch": 0, "step": 1},
)


@pytest.mark.parametrize("history", HISTORIES)
def test_a_history_that_is_none_of_ours_starts_anew_and_costs_no_training(history, tmp_path):
    def run(epochs, **fit):
        watcher = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=0)
        fitted = trainer(tmp_path, watcher, max_epochs=epochs)
        fitted.fit(seeded(), loader(), loader(), **fit)
        fitted.save_checkpoint(tmp_path / "last.ckpt")
        return watcher

    run(1)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    state = next(state for name, state in checkpoint["callbacks"].items() if name.startswith("ModalityMonitor"))
    assert [line["epoch"] for line in state["history"]] == [0]
    state["history"] = history
    torch.save(checkpoint, tmp_path / "hostile.ckpt")
    with pytest.warns(UserWarning, match="the checkpoint's history is not one of this monitor: it starts anew"):
        watcher = run(2, ckpt_path=tmp_path / "hostile.ckpt")
    assert [line["epoch"] for line in watcher.history] == [1]
    json.dumps(watcher.history)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"history": 3},
        {"history": [{}], "findings": [], "began": [], "speeds": {}},
        {"history": [], "findings": [[1]], "began": [], "speeds": {}},
        {"history": [], "findings": [], "began": [["a"]], "speeds": {}},
        {"history": [], "findings": [], "began": [], "speeds": {"audio": "<b>"}},
        {"history": [], "findings": [], "began": [], "speeds": [1]},
    ],
)
def test_dynamics_that_are_none_of_ours_start_anew(state):
    dynamics = ModalityDynamics(MODALITIES, num_classes=3)
    with pytest.warns(UserWarning, match="the checkpoint's history is not one of this callback: it starts anew"):
        dynamics.load_state_dict(state)
    assert (dynamics.history, dynamics.findings, dynamics.began) == ([], [], {})
