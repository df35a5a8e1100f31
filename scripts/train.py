"""Train, validate or test the toy on one of its stories: every key of a config is a constructor argument.

python scripts/train.py fit --config configs/emergency.yaml
python scripts/train.py fit --config configs/emergency.yaml --trainer.max_epochs 3 --data.init_args.missing 0.3
python scripts/train.py test --config configs/leaky.yaml --ckpt_path runs/leaky/version_0/checkpoints/model.ckpt
python scripts/train.py fit --config configs/emergency.yaml --print_config
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `models` is not installed, it lies beside scripts/

from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningCLI

from models.model import FusionModel


def main(args: list[str] | None = None) -> LightningCLI:
    """Run the command line, or ``args``."""
    return LightningCLI(FusionModel, LightningDataModule, subclass_mode_data=True, args=args)


if __name__ == "__main__":
    main()
