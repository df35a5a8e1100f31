"""The monitor named in a YAML file by its class path, as LightningCLI builds it."""

from __future__ import annotations

import json

import pytest
import yaml
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI

from mm_metrics.callbacks import ModalityMonitor
from tests.toys import Concat, Rows, loader

pytestmark = [
    # Lightning 2.6 calls jsonargparse by names that jsonargparse has deprecated.
    pytest.mark.filterwarnings("ignore:.*jsonargparse.*", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:LightningCLI's args parameter.*"),
]

MONITOR = """
class_path: mm_metrics.callbacks.ModalityMonitor
init_args:
  modalities: {text: [text], image: image, audio: audio}
  num_classes: 3
  class_names: [a, b, c]
  bootstrap: 20
  ablation: [none, text, audio-text, all]
  baseline: {text: zero, audio: -1.5}
  gate:
    class_path: mm_metrics.QualityGate
    init_args: {accuracy: [0.2, 0.3]}
"""


class Data(LightningDataModule):
    """The toy's rows."""

    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(Rows(seed=1))

    def test_dataloader(self):
        return loader(Rows(seed=2))


def config(tmp_path, callback=MONITOR):
    trainer = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": str(tmp_path),
        "callbacks": [yaml.safe_load(callback)],
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"seed_everything": 0, "trainer": trainer}, sort_keys=False))
    return str(path)


def test_fit_and_test_by_class_path(tmp_path):
    LightningCLI(Concat, Data, args=["fit", "--config", config(tmp_path)])
    card = json.loads((tmp_path / "modality" / "val.json").read_text())
    assert card["info"]["model"] == "Concat"
    cli = LightningCLI(Concat, Data, args=["test", "--config", config(tmp_path)], save_config_callback=None)
    (watcher,) = [callback for callback in cli.trainer.callbacks if isinstance(callback, ModalityMonitor)]
    assert watcher.scorecards["test"].coalitions == ("none", "text", "text-audio", "text-image-audio")
    assert watcher.scorecards["test"].names == ("a", "b", "c")
    assert watcher.gate.accuracy == (0.2, 0.3)


def test_an_argument_on_the_command_line(tmp_path):
    args = ["validate", "--config", config(tmp_path), "--trainer.callbacks.init_args.max_batches=2"]
    cli = LightningCLI(Concat, Data, args=args)
    (watcher,) = [callback for callback in cli.trainer.callbacks if isinstance(callback, ModalityMonitor)]
    assert watcher.scorecards["val"].support() == 70
    assert watcher.scorecards["val"].support(coalition="text") == 32


def test_a_misspelt_argument_is_refused_before_anything_runs(tmp_path, capsys):
    with pytest.raises(SystemExit):
        LightningCLI(Concat, Data, args=["fit", "--config", config(tmp_path, MONITOR.replace("num_cl", "nr_cl"))])
    assert "nr_classes" in capsys.readouterr().err


def test_the_other_packages_cli_takes_a_class_of_two_lines(tmp_path):
    pl = pytest.importorskip("pytorch_lightning")
    from pytorch_lightning.cli import LightningCLI as OtherCLI

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Concat()

        def forward(self, batch):
            return self.net(batch)

        def validation_step(self, batch, batch_idx):
            self(batch)

    class OtherData(pl.LightningDataModule):
        val_dataloader = Data.val_dataloader

    path = config(tmp_path, MONITOR.replace("mm_metrics.callbacks.ModalityMonitor", f"{__name__}.Monitor"))
    cli = OtherCLI(Model, OtherData, args=["validate", "--config", path])
    (watcher,) = [callback for callback in cli.trainer.callbacks if isinstance(callback, ModalityMonitor)]
    assert watcher.scorecards["val"].samples == 70


try:
    import pytorch_lightning

    class Monitor(ModalityMonitor, pytorch_lightning.Callback):
        """The monitor for ``pytorch_lightning.cli``, which takes no callback that is not its own."""

except ImportError:
    pass
