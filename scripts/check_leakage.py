"""Say what the training, validation and test split of a LightningDataModule share; exit status 1 where they do.

python scripts/check_leakage.py --config configs/leaky.yaml
python scripts/check_leakage.py --config configs/digits.yaml --group speaker --json runs/leakage.json
python scripts/check_leakage.py --config mine.yaml --modalities '{text: [ids, mask], image: pixels}' --target y
python scripts/check_leakage.py --datamodule mine.data:Data --modalities '{image: pixels}' --data.folder images

Of the config only ``data`` and ``seed_everything`` are built; what is not given here is read from the ModalityMonitor
among the trainer's callbacks. A config of ``LightningCLI(Model, Data)`` names no class of data: say --datamodule.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `models` is not installed, it lies beside scripts/

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, seed_everything

from mm_metrics.leakage import Leakage, find_leakage
from mm_metrics.leakage.modules import named


def check(args: list[str] | None = None) -> Leakage:
    """What the data of a config share."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--datamodule")
    known, rest = first.parse_known_args(args)
    config = (yaml.safe_load(known.config.read_text(encoding="utf-8")) if known.config else None) or {}
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    monitors = [c for c in callbacks if isinstance(c, dict) and "ModalityMonitor" in str(c.get("class_path"))]
    watched = (monitors[0].get("init_args") or {}) if monitors else {}

    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="a LightningCLI config")
    parser.add_argument("--datamodule", metavar="MODULE:CLASS", help="where the config names no class of data")
    parser.add_argument("--modalities", type=dict[str, str | list[str]] | None, default=watched.get("modalities"))
    parser.add_argument("--group", type=list[str] | str | None, help="key of a speaker, a patient, a source video")
    parser.add_argument("--target", type=str | None, default=watched.get("target", "label"))
    parser.add_argument("--presence", type=str | None, default=watched.get("presence", "presence"))
    parser.add_argument("--within", type=bool | None, help="look for copies inside each split too")
    parser.add_argument("--near", type=bool, default=True, help="look for near copies too")
    parser.add_argument("--json", type=str | None, help="write the findings to this file")
    given = config.get("data") or {}
    if known.datamodule:
        parser.add_class_arguments(named(known.datamodule), "data")
        parser.set_defaults({f"data.{key}": value for key, value in given.get("init_args", given).items()})
    elif given and "class_path" not in given:
        parser.error(f"{known.config} names no class of data: say --datamodule package.module:Class")
    else:
        parser.add_subclass_arguments(LightningDataModule, "data", required=True)
        if given:
            parser.set_defaults(data=given)
    chosen = parser.parse_args(rest)
    if not chosen.modalities:
        parser.error("no modalities: say --modalities '{text: tokens, image: pixels}'")
    if isinstance(config.get("seed_everything"), int):
        seed_everything(config["seed_everything"], verbose=False)
    data = parser.instantiate_classes(chosen).data
    keys = {name: tuple(key) if isinstance(key, list) else key for name, key in chosen.modalities.items()}
    options = {"target": chosen.target, "presence": chosen.presence, "near": chosen.near, "within": chosen.within}
    found = find_leakage(data, keys, chosen.group, progress=sys.stderr.isatty(), **options)
    if chosen.json:
        found.to_json(chosen.json)
    return found


if __name__ == "__main__":
    leakage = check()
    print(leakage)
    sys.exit(1 if leakage.findings else 0)
