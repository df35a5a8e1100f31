"""Train, validate or test the toy on one of its stories: every key of a config is a constructor argument.

python scripts/train.py fit --config configs/emergency.yaml
python scripts/train.py fit --config configs/emergency.yaml --trainer.max_epochs 3 --data.init_args.missing 0.3
python scripts/train.py test --config configs/leaky.yaml --ckpt_path runs/leaky/version_0/checkpoints/model.ckpt
python scripts/train.py fit --config configs/emergency.yaml --print_config
"""

import logging
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `models` is not installed, it lies beside scripts/

from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback

from models.model import FusionModel

CHATTER = ("Tip:", "available:", "Loading `")  # advertisements, accelerators that there are not, steps being counted


def build(args: list[str] | None = None, run: bool = False) -> LightningCLI:
    """The model, data and trainer that a config describes; ``run`` carries out the command that comes first."""
    quieten()
    return LightningCLI(
        FusionModel,
        LightningDataModule,
        save_config_callback=SaveConfigCallback if run else None,
        subclass_mode_data=True,
        run=run,
        args=args,
    )


def quieten() -> None:
    """Keep the console for the progress bar and the table."""
    # The data lie in memory: workers would only copy them.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # ablate.py hands on those of its own arguments that are keys of the config.
    warnings.filterwarnings("ignore", "LightningCLI's args parameter.*")
    # Lightning 2.6 asks torch 2.13's pytree in a way that torch has renamed.
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
    # Lightning 2.6 calls jsonargparse by names that jsonargparse has deprecated.
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addFilter(lambda record: not any(words in record.getMessage() for words in CHATTER))


if __name__ == "__main__":
    build(run=True)
