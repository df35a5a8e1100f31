"""Say what the training, validation and test split of a LightningDataModule share; exit status 1 where they do.

python scripts/check_leakage.py --config configs/leaky.yaml
python scripts/check_leakage.py --config configs/digits.yaml --group speaker --json runs/leakage.json
python scripts/check_leakage.py --config mine.yaml --modalities '{text: [ids, mask], image: pixels}' --target y

Of the config only ``data`` and ``seed_everything`` are built; what is not given here is read from the ModalityMonitor
among the trainer's callbacks.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `models` is not installed, it lies beside scripts/

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, seed_everything
from lightning.pytorch.utilities.model_helpers import is_overridden

from mm_metrics.leakage import Leakage, find_leakage


def splits(data: LightningDataModule) -> Iterator[tuple[str, Any]]:
    """The loaders that the module has, by split, the one trained on first."""
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    for name in ("train", "val", "test"):
        if is_overridden(f"{name}_dataloader", data, LightningDataModule):
            loaders = getattr(data, f"{name}_dataloader")()
            for i, loader in enumerate(loaders if isinstance(loaders, list | tuple) else [loaders]):
                yield f"{name}_{i}" if i else name, loader


def check(args: list[str] | None = None) -> Leakage:
    """What the data of a config share."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config", type=Path)
    known, rest = first.parse_known_args(args)
    config = (yaml.safe_load(known.config.read_text(encoding="utf-8")) if known.config else None) or {}
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    monitors = [c for c in callbacks if isinstance(c, dict) and "ModalityMonitor" in str(c.get("class_path"))]
    watched = (monitors[0].get("init_args") or {}) if monitors else {}

    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="a LightningCLI config")
    parser.add_argument("--modalities", type=dict[str, str | list[str]] | None, default=watched.get("modalities"))
    parser.add_argument("--group", type=list[str] | str | None, help="key of a speaker, a patient, a source video")
    parser.add_argument("--target", type=str | None, default=watched.get("target", "label"))
    parser.add_argument("--presence", type=str | None, default=watched.get("presence", "presence"))
    parser.add_argument("--near", type=bool, default=True, help="look for near copies too")
    parser.add_argument("--json", type=str | None, help="write the findings to this file")
    parser.add_subclass_arguments(LightningDataModule, "data", required=True)
    if "data" in config:
        parser.set_defaults(data=config["data"])
    chosen = parser.parse_args(rest)
    if not chosen.modalities:
        parser.error("no modalities: say --modalities '{text: tokens, image: pixels}'")
    if isinstance(config.get("seed_everything"), int):
        seed_everything(config["seed_everything"], verbose=False)
    data = parser.instantiate_classes(chosen).data
    keys = {name: tuple(key) if isinstance(key, list) else key for name, key in chosen.modalities.items()}
    options = {"target": chosen.target, "presence": chosen.presence, "near": chosen.near}
    found = find_leakage(dict(splits(data)), keys, chosen.group, progress=sys.stderr.isatty(), **options)
    if chosen.json:
        found.to_json(chosen.json)
    return found


if __name__ == "__main__":
    leakage = check()
    print(leakage)
    sys.exit(1 if leakage.findings else 0)
