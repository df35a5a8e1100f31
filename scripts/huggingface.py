"""Watch towers of Hugging Face's transformers on the emergency calls; without names they are small and random.

python scripts/huggingface.py
python scripts/huggingface.py --clip openai/clip-vit-base-patch32 --speech facebook/wav2vec2-base
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `models` is not installed, it lies beside scripts/

from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.nn.functional import interpolate

from mm_metrics.callbacks import ModalityMonitor
from models.emergency import EVENTS, EmergencyCalls
from models.huggingface import SPEECH, Towers
from scripts.train import quieten


class Processed(EmergencyCalls):
    """The calls under transformers' names, as a tokenizer, an image processor and a feature extractor would give."""

    image_size: Any = 24

    def make(self, split: str) -> dict[str, Tensor]:
        calls = super().make(split)
        return {
            "input_ids": calls["tokens"],
            "attention_mask": calls["mask"].long(),
            "pixel_values": interpolate(calls["pixels"], self.image_size, mode="bilinear"),
            "input_values": calls["waveform"],
            "label": calls["label"],
            "presence": calls["presence"],
        }


def main(args: list[str] | None = None) -> ModalityMonitor:
    """Train, and print what each modality is worth to the towers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", help="pretrained CLIP; default: small, random weights")
    parser.add_argument("--speech", default=SPEECH, help="pretrained speech encoder that takes input_values")
    parser.add_argument("--samples", type=int, default=2000, help="training calls")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--output", default="runs/huggingface")
    given = parser.parse_args(args)

    quieten()
    seed_everything(0, verbose=False)
    model = Towers(len(EVENTS), given.clip, given.speech)
    data = Processed(train=given.samples, val=given.samples // 4, test=given.samples // 4)
    data.image_size = model.image.config.image_size
    monitor = ModalityMonitor(
        {"text": ("input_ids", "attention_mask"), "image": "pixel_values", "audio": "input_values"},
        num_classes=len(EVENTS),
        class_names=list(EVENTS),
        presence="presence",
        baseline={"text": {"input_ids": model.text.config.pad_token_id}},
    )
    trainer = Trainer(
        max_epochs=given.epochs, devices=1, default_root_dir=given.output, logger=False, callbacks=monitor
    )
    trainer.fit(model, data)
    return monitor


if __name__ == "__main__":
    main()
