"""How often a verdict, or a comparison, is sure of what is not so: simulated data sets, real cards, shares of them.

    python scripts/alarms.py --data_sets 200

A verdict is wrongly firm where it is sure of another level than the one that the population's own scores give. Of two
equal models it is a false alarm where any score of any slice has surely fallen, as ``gate --against`` asks.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mm_metrics import ModalityConfusionMatrix, QualityGate, Scorecard
from mm_metrics.uncertainty import wilson
from mm_metrics.verdict.regression import changes

MODALITIES = ("text", "audio")


@dataclass(frozen=True)
class Model:
    """How often each class is right, how frequent it is, and what the gate asks of it."""

    n: int
    right: tuple[float, ...]
    shares: tuple[float, ...]
    level: str  # what the population's own scores give
    gate: QualityGate = field(default_factory=QualityGate)
    per: int = 1  # samples a group, which share 30% of their luck
    modalities: bool = False  # whether modalities are there in 90 and 50% of samples, so that slices are asked about


HALF, TEN = (0.5, 0.5), (0.1,) * 10
AT_BAR, GOOD = QualityGate(gap=1.0), QualityGate(accuracy=0.8, precision=0.75, recall=0.75, f1=0.75)
MODELS = {
    "recall .60, bar .50, n=100": Model(100, (0.9, 0.6), HALF, "mixed"),
    "the same on two modalities": Model(100, (0.9, 0.6), HALF, "mixed", modalities=True),
    "the same in 20 groups of 10": Model(200, (0.9, 0.6), HALF, "mixed", per=10),
    "recall .501, bar .50, n=100": Model(100, (0.95, 0.501), HALF, "mixed", AT_BAR),
    "recall .501 on two modalities": Model(300, (0.95, 0.501), HALF, "mixed", AT_BAR, modalities=True),
    "recall .79, good from .80, n=400": Model(400, (0.99, 0.79), HALF, "mixed", QualityGate(f1=0.6, accuracy=0.6)),
    "ten classes of recall .90, n=300": Model(300, (0.9,) * 10, TEN, "good", GOOD),
    "ten classes of recall .60, bar .55": Model(
        300, (0.6,) * 10, TEN, "mixed", QualityGate(accuracy=(0.55, 0.9), recall=(0.55, 0.8), precision=(0.5, 0.8))
    ),
}
EQUAL = {
    "3 classes, n=300": Model(300, (0.9, 0.75, 0.6), (0.5, 0.3, 0.2), ""),
    "3 classes, n=60": Model(60, (0.9, 0.75, 0.6), (0.5, 0.3, 0.2), ""),
    "3 classes on two modalities, n=300": Model(300, (0.9, 0.75, 0.6), (0.5, 0.3, 0.2), "", modalities=True),
    "events 10%, n=300": Model(300, (0.95, 0.6), (0.9, 0.1), "", modalities=True),
    "3 classes in 30 groups of 10": Model(300, (0.9, 0.75, 0.6), (0.5, 0.3, 0.2), "", per=10, modalities=True),
    "3 classes in 10 groups of 20": Model(200, (0.9, 0.75, 0.6), (0.5, 0.3, 0.2), "", per=20),
    "ten classes, n=2000": Model(2000, (0.8,) * 10, TEN, "", modalities=True),
}


def drawn(model: Model, cards: int, seed: int) -> list[Scorecard]:
    """Scorecards of as many equal models over one data set."""
    random, C, group = torch.Generator().manual_seed(seed), len(model.shares), torch.arange(model.n) // model.per
    target = torch.multinomial(torch.tensor(model.shares), model.n, replacement=True, generator=random)
    presence = torch.rand(model.n, 2, generator=random) < torch.tensor([0.9, 0.5])

    def noise() -> Tensor:
        own, shared = (torch.randn(size, generator=random) for size in (model.n, -(-model.n // model.per)))
        return own if model.per == 1 else math.sqrt(0.7) * own + math.sqrt(0.3) * shared[group]

    common, made = noise(), []
    for _ in range(cards):
        luck = torch.special.ndtr(math.sqrt(0.5) * common + math.sqrt(0.5) * noise())
        wrong = (target + 1 + torch.randint(0, C - 1, (model.n,), generator=random)) % C
        preds = torch.where(luck < torch.tensor(model.right)[target], target, wrong)
        kind = {"task": "binary"} if C == 2 else {"num_classes": C}
        metric = ModalityConfusionMatrix(MODALITIES, bootstrap=200, seed=seed, **kind)
        where = presence if model.modalities else None
        metric.update(preds, target, where, index=torch.arange(model.n), group=group if model.per > 1 else None)
        made.append(metric.scorecard())
    return made


def verdicts(model: Model, data_sets: int, family_wise: bool) -> tuple[int, int, int]:
    """In how many data sets the verdict is bad, surely bad, and sure of another level than the true one."""
    gate = QualityGate(**vars(model.gate) | {"family_wise": family_wise})
    found = [drawn(model, 1, seed)[0].verdict(gate) for seed in range(data_sets)]
    bad = [verdict for verdict in found if verdict.level == "bad"]
    return len(bad), sum(v.firm for v in bad), sum(v.firm and v.level != model.level for v in found)


def alarms(model: Model, data_sets: int) -> int:
    """In how many data sets one of two equal models has surely fallen against the other."""
    pairs = (drawn(model, 2, seed) for seed in range(data_sets))
    return sum(any(change.fell for change in changes(new - old)) for new, old in pairs)


def _share(count: int, of: int) -> str:
    low, high = wilson(count, of)
    return f"{count / of:6.1%} [{float(low):5.1%}, {float(high):5.1%}]"


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_sets", type=int, default=200, help="data sets a line")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for family_wise in (False, True):
        print(f"{f'verdicts, family_wise={family_wise}':36}{'bad':>22}{'surely bad':>22}{'wrongly firm':>22}")
        for name, model in MODELS.items():
            counts = verdicts(model, args.data_sets, family_wise)
            print(f"  {name:34}" + "".join(_share(count, args.data_sets) for count in counts), flush=True)
    print(f"{'equal models, gate --against':36}{'a fall':>22}")
    for name, model in EQUAL.items():
        print(f"  {name:34}{_share(alarms(model, args.data_sets), args.data_sets)}", flush=True)


if __name__ == "__main__":
    main()
