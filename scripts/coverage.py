"""How often 95% intervals hold the truth: simulated data sets, real cards, a table of coverage and mean width.

    python scripts/coverage.py --only events few --scores f1 matthews --data_sets 100

Each regime draws data sets from a population whose scores 200,000 of its samples tell. A line is a score: how often its
interval, that of its drop without audio, and that of the difference to another model hold the truth; how wide they are
on average; and in how many data sets there was no interval.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mm_metrics import CoalitionConfusionMatrix, Scorecard, contributions
from mm_metrics.verdict.regression import changes

MODALITIES, COALITIONS = ("text", "audio"), ("none", "text", "audio", "text-audio")
STRENGTH = (0.0, 0.6, 0.8, 1.3)  # of the signal that each coalition sees, in standard deviations of the noise
OTHER = 1.1  # what the other model sees
TRUTH_FROM, AT_ONCE = 200_000, 20_000
OF_CLASSES = ("accuracy", "precision", "recall", "f1", "specificity", "jaccard", "balanced_accuracy", "matthews")
OF_SCORES = ("auroc", "average_precision", "eer", "dprime", "calibration_error", "brier", "log_loss")
OF_NUMBERS = ("mae", "rmse", "pearson", "ccc", "accuracy", "f1", "f1_weighted", "acc2_nonzero", "acc7")
LEAST, FLOOR = 0.92, 0.90


@dataclass(frozen=True)
class Regime:
    """A population, and how data sets are drawn from it."""

    n: int
    task: str
    shares: tuple[float, ...] = ()  # of classes; of labels how often each is there
    per: int = 1  # samples a group, which share 30% of their luck
    slice: str = "all"
    heavy: bool = False  # errors of numbers: a normal one to the power of 1.8
    shards: int = 1
    equal: bool = False  # the other model sees as much


FEW, SEVEN, TEN = (0.5, 0.3, 0.2), (0.3, 0.2, 0.15, 0.15, 0.1, 0.06, 0.04), (0.1,) * 10
RARE, LABELS = (0.6, 0.3, 0.06, 0.03, 0.01), (0.5, 0.3, 0.1, 0.05, 0.03)
REGIMES = {
    "binary 30": Regime(30, "binary", (0.5, 0.5)),
    "binary 60, events 10%": Regime(60, "binary", (0.9, 0.1)),
    "binary 300, events 3%": Regime(300, "binary", (0.97, 0.03)),
    "binary 2000, events 1%": Regime(2000, "binary", (0.99, 0.01)),
    "binary 300 in 60 groups": Regime(300, "binary", (0.7, 0.3), per=5),
    "binary 300 in 15 groups, events 10%": Regime(300, "binary", (0.9, 0.1), per=20),
    "3 classes 30": Regime(30, "multiclass", FEW),
    "3 classes 30 in 3 groups": Regime(30, "multiclass", FEW, per=10),
    "3 classes 300": Regime(300, "multiclass", FEW),
    "3 classes 200 in 10 groups": Regime(200, "multiclass", FEW, per=20),
    "3 classes 300, slice 10%": Regime(300, "multiclass", FEW, slice="audio"),
    "3 classes 600, value of a column 10%": Regime(600, "multiclass", FEW, slice="room/b"),
    "3 classes 300 in 3 shards": Regime(300, "multiclass", FEW, shards=3),
    "5 classes 300, rarest 1%": Regime(300, "multiclass", RARE),
    "7 classes 30": Regime(30, "multiclass", SEVEN),
    "10 classes 60": Regime(60, "multiclass", TEN),
    "5 labels 30, rarest 3%": Regime(30, "multilabel", LABELS),
    "5 labels 300, rarest 3%": Regime(300, "multilabel", LABELS),
    "5 labels 300 in 30 groups": Regime(300, "multilabel", LABELS, per=10),
    "numbers 30": Regime(30, "ordinal"),
    "numbers 30, heavy errors": Regime(30, "ordinal", heavy=True),
    "numbers 60, heavy errors": Regime(60, "ordinal", heavy=True),
    "numbers 300": Regime(300, "ordinal"),
    "numbers 300 in 15 groups": Regime(300, "ordinal", per=20),
    "equal models 300": Regime(300, "multiclass", FEW, equal=True),
    "equal models 300, events 10%": Regime(300, "binary", (0.9, 0.1), equal=True),
}


def drawn(regime: Regime, n: int, seed: int, per: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predictions ``(K, n, …)`` and another model's ``(K, n, …)``, targets ``(n, …)`` and presence ``(n, M)``."""
    random = torch.Generator().manual_seed(seed)
    group = torch.arange(n) // per
    width = 1 if regime.task in ("binary", "ordinal") else len(regime.shares)

    def noise(*sizes: int) -> Tensor:
        own, shared = (torch.randn(*sizes, size, width, generator=random) for size in (n, -(-n // per)))
        return own if per == 1 else math.sqrt(0.7) * own + math.sqrt(0.3) * shared[..., group, :]

    shares = torch.tensor(regime.shares or (1.0,))
    if regime.task == "multilabel":
        target = (torch.rand(n, width, generator=random) < shares).long()
        signal = (2 * target - 1).float()
    elif regime.task == "ordinal":
        target = noise()[:, 0]
        signal = target.unsqueeze(1)
    else:
        target = torch.multinomial(shares, n, replacement=True, generator=random)
        every = torch.nn.functional.one_hot(target, len(shares)).float()
        signal = every if regime.task == "multiclass" else 2 * every[:, 1:] - 1
    common, models = noise(), []
    for strengths, sure in ((STRENGTH, 1.5), (STRENGTH, 1.5) if regime.equal else ((*STRENGTH[:-1], OTHER), 1.0)):
        luck = math.sqrt(0.5) * common + math.sqrt(0.5) * noise(len(COALITIONS))  # (K, n, width)
        if regime.heavy:
            luck = luck.sign() * luck.abs() ** 1.8
        scale = torch.tensor(strengths).view(-1, 1, 1)
        if regime.task == "ordinal":
            models.append((scale / 2 * signal + 0.6 * luck + 0.1).squeeze(-1))
            continue
        prior = torch.logit(shares[-1:]) if regime.task == "binary" else shares.log()
        if regime.task == "multilabel":
            prior = torch.logit(shares)
        logits = scale * (scale * signal + luck) * (1 if regime.task == "multiclass" else 2) + prior
        logits = sure * logits  # the first model is surer than it is right, the other one calibrated
        models.append(logits.squeeze(-1) if regime.task == "binary" else logits)
    presence = torch.rand(n, len(MODALITIES), generator=random) < torch.tensor([0.9, 0.1])
    return models[0], models[1], target, presence


def cards(
    regime: Regime, n: int, seed: int, bootstrap: int, names: Sequence[str], per: int = 1
) -> tuple[Scorecard, Scorecard]:
    """The cards of both models over one data set, with the counts of what `names` ask."""
    *models, target, presence = drawn(regime, n, seed, per)
    classes = {"multiclass": "num_classes", "multilabel": "num_labels"}.get(regime.task)
    how: dict[str, Any] = {classes: len(regime.shares)} if classes else {}
    how |= {"edges": "mosi"} if regime.task == "ordinal" else {"from_logits": True}
    how["scores"] = tuple(name for name in names if name in OF_SCORES)
    column = regime.slice.partition("/")[0] if "/" in regime.slice else ""
    made: list[Scorecard] = []
    for preds in models:
        shards = []
        for shard in range(regime.shards):
            part = slice(shard, None, regime.shards)
            metric = CoalitionConfusionMatrix(
                MODALITIES,
                task=regime.task,
                bootstrap=bootstrap,
                shard=shard,
                seed=seed,
                max_bytes=2**29,
                by={column: ["a", "b"]} if column else None,
                **how,
            )
            for rows in torch.arange(n)[part].split(AT_ONCE):
                metric.update(
                    preds[:, rows],
                    target[rows],
                    presence[rows] if regime.slice in MODALITIES else None,
                    group=rows // per if per > 1 else None,
                    by={column: presence[rows, 1].long()} if column else None,
                )
            shards.append(metric.scorecard())
        made.append(sum(shards[1:], start=shards[0]))
    return made[0], made[1]


Row = tuple[str, str, float, float, float]  # score, what of it, coverage, mean width, share without an interval


def measured(regime: Regime, data_sets: int, only: Sequence[str]) -> tuple[list[Row], float]:
    """A row for each score and question, and how often the gate finds a fall of any score against the other model."""
    torch.set_num_threads(1)
    every = OF_NUMBERS if regime.task == "ordinal" else (*OF_CLASSES, *OF_SCORES)
    names = [name for name in every if not only or name in only]
    population = cards(regime, TRUTH_FROM, 10**6, 0, names)
    truth: dict[tuple[str, str], float] = {}
    for name in names:
        drops = population[0].apply(contributions.leave_one_out, name, regime.slice)[0]
        value, other = (card.score(name, slice=regime.slice) for card in population)
        gain = 0.0 if regime.equal else value - other
        truth |= {(name, "score"): value, (name, "drop"): float(drops[1]), (name, "difference"): gain}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in truth}
    falls = 0
    for seed in range(data_sets):
        new, old = cards(regime, regime.n, seed, 200, names, regime.per)
        for name in names:
            _, low, high = new.apply(contributions.leave_one_out, name, regime.slice)
            found[name, "score"].append(new.interval(name, slice=regime.slice))
            found[name, "drop"].append((float(low[1]), float(high[1])))
            found[name, "difference"].append((new - old).interval(name, slice=regime.slice))
        falls += regime.equal and any(change.fell for change in changes(new - old))
    rows = []
    for (name, what), intervals in found.items():
        ends = torch.tensor(intervals, dtype=torch.float64)
        known = ends[~ends.isnan().any(1)]
        held = ((known[:, 0] <= truth[name, what]) & (truth[name, what] <= known[:, 1])).double().mean()
        width = (known[:, 1] - known[:, 0]).median()
        rows.append((name, what, float(held), float(width), 1 - len(known) / len(ends)))
    return rows, falls / data_sets


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=(), help="regimes whose name holds one of these")
    parser.add_argument("--scores", nargs="*", default=(), help="these scores alone")
    parser.add_argument("--data_sets", type=int, default=300, help="data sets a regime")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--list", action="store_true", help="the regimes' names, and nothing else")
    args = parser.parse_args(argv)
    chosen = {name: r for name, r in REGIMES.items() if not args.only or any(part in name for part in args.only)}
    if args.list:
        print("\n".join(chosen))
        return
    print(f"{'':42}{'score':>14}{'drop':>14}{'difference':>14}   coverage and median width, %")
    with ProcessPoolExecutor(args.workers) as pool:
        work = partial(measured, data_sets=args.data_sets, only=args.scores)
        for name, regime, (rows, falls) in zip(chosen, chosen.values(), pool.map(work, chosen.values()), strict=True):
            print(name + (f": a fall in {falls:.1%} of equal models" if regime.equal else ""))
            for i in range(0, len(rows), 3):
                cells = "".join(_cell(*row[2:]) for row in rows[i : i + 3])
                print(f"    {rows[i][0]:38}{cells}", flush=True)


def _cell(held: float, width: float, none: float) -> str:
    mark = " " if math.isnan(held) or held >= LEAST else "!" if held < FLOOR else "-"
    return f"{100 * held:7.1f}{mark}{100 * width:5.0f}{'~' if none > 0.01 else ' '}"


if __name__ == "__main__":
    main()
