"""What a trained model gets right with each subset of its modalities, and what it would lose without each.

    python scripts/ablate.py runs/emergency/version_0/checkpoints/model.ckpt --config configs/emergency.yaml

Every coalition of modalities is shown to the model while the others are hidden. The table gives the score of each, the
drop when one modality is hidden, and its Shapley value: its fair share of what the modalities achieve together. What
is hidden, where samples count and the names of the classes are read from the config's ModalityMonitor. Keys of the
config may be given anew at the end:

    python scripts/ablate.py model.ckpt --config configs/digits.yaml --split test --data.init_args.fsdd=recordings

With --noise each modality is corrupted more and more instead of hidden: a model that leans on it falls early.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `models` is not installed, it lies beside scripts/

import torch
from tqdm import tqdm

from mm_metrics import CoalitionConfusionMatrix, ModalityAblation, Scorecard
from scripts.robustness import noise_table
from scripts.train import build


def main(args: list[str] | None = None) -> Scorecard:
    """Run the command line, or ``args``; the scorecard that was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a .ckpt file that scripts/train.py wrote")
    parser.add_argument("--config", required=True, help="the config that it was trained with")
    parser.add_argument("--split", choices=("train", "val", "test"), default="val", help="default: val")
    parser.add_argument("--baseline", help="what stands in for a hidden modality; default: as in the config")
    parser.add_argument("--output", type=Path, help="the scorecard's file; default: scorecard.json by the checkpoint")
    parser.add_argument("--noise", action="store_true", help="print scores against the strength of a corruption")
    options, overrides = parser.parse_known_args(args)

    cli = build(["--config", options.config, "--trainer.logger=false", *overrides])
    story = next((c.init_args for c in cli.config.trainer.callbacks if c.class_path.endswith("ModalityMonitor")), None)
    if story is None:
        parser.error(f"--config {options.config} has no ModalityMonitor, which says what the modalities are: add one")
    model = cli.model.eval()
    model.load_state_dict(torch.load(options.checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    cli.datamodule.setup()
    loader = getattr(cli.datamodule, f"{options.split}_dataloader")()

    baseline = options.baseline or story.baseline
    ablation = ModalityAblation(model, story.modalities, baseline=baseline, presence=story.presence)
    task = {"task": story.task, "num_classes": story.num_classes, "from_logits": True}
    metric = CoalitionConfusionMatrix(
        story.modalities, **task, class_names=story.class_names, bootstrap=story.bootstrap, seed=story.seed
    )
    slices = story.slices or story.presence
    for batch in tqdm(loader, desc="ablating", leave=False):
        metric.update(ablation(batch), batch[story.target], batch[slices] if slices else None, index=batch["index"])
    card = metric.scorecard()
    print(card.table())
    if options.noise:
        print(noise_table(model, loader, story.modalities, story.target, task))
    output = options.output or options.checkpoint.with_name("scorecard.json")
    card.to_json(output)
    print(f"The scorecard is in {output}")
    return card


if __name__ == "__main__":
    main()
