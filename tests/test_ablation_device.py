"""A steady batch on an accelerator: where the host waits, how many kernels run; on tensors that only pretend."""

import operator

import pytest
import torch
from torch import nn

from mm_metrics.ablation import ModalityAblation
from mm_metrics.ablation.verify import room_of
from tests.ablation_models import by_hand
from tests.pretend import pretending, to_device

INPUTS = {name: name for name in ("text", "image", "audio")}


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(8, 8) for name in INPUTS})
        self.head = nn.Linear(24, 3)

    def forward(self, batch):
        return self.head(torch.cat([self.encoders[name](batch[name]) for name in INPUTS], -1))


class Attends(Small):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(24, 3)

    def forward(self, batch):
        features = torch.stack([self.encoders[name](batch[name]) for name in INPUTS], 1)
        weights = self.gate(features.flatten(1)).softmax(-1).unsqueeze(-1)
        return self.head((features * weights).flatten(1))


def make_batch(seed, N=16):
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(N, 8, generator=random) for name in INPUTS} | {"label": torch.arange(N) % 3}


@pytest.mark.parametrize("kind", [Small, Attends])
@pytest.mark.parametrize("baseline", ["zero", "mean", {"image": torch.ones(8)}])
@pytest.mark.parametrize("with_presence", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_a_steady_batch_waits_once_at_most(kind, baseline, with_presence, inference):
    torch.manual_seed(0)
    model = kind().eval()
    plain = [make_batch(seed) for seed in range(4)]
    there = [torch.rand(16, 3) > 0.3 if with_presence else None for _ in plain]
    if baseline == "zero":
        expected = [by_hand(model, batch, INPUTS, has) for batch, has in zip(plain, there, strict=True)]
    with pretending() as log, torch.inference_mode(inference):
        to_device(model)
        ablation = ModalityAblation(model, INPUTS, baseline=baseline, verify=1)
        for seed, (batch, has) in enumerate(zip(plain, there, strict=True)):
            batch, has = to_device(batch), None if has is None else to_device(has)
            ablation.watch()
            model(batch)
            ablation.unwatch()
            log.waits.clear(), log.kernels.clear()
            own = ablation.predict(batch)
            assert not log.waits or seed == 0, log.waits  # the first time all is looked at
            log.kernels.clear()
            found = ablation(batch, has)
            if seed > 1:
                assert len(log.waits) <= 1, log.waits
                assert len(log.kernels) <= (95 if baseline == "mean" else 60), (len(log.kernels), " ".join(log.kernels))
            if baseline == "zero":
                torch.testing.assert_close(found.inner, expected[seed], rtol=1e-5, atol=1e-5)
        assert own.shape == (16, 3)
        assert ablation.encoders == {name: (f"encoders.{name}",) for name in INPUTS}


def test_on_the_device_a_batch_or_weights_that_changed_are_noticed():
    torch.manual_seed(0)
    model = Small().eval()
    with pretending(), torch.inference_mode():
        to_device(model)
        ablation = ModalityAblation(model, INPUTS)
        ablation(to_device(make_batch(0)))
        for seed, change in enumerate(
            (
                lambda batch: batch["image"].mul_(2),
                lambda batch: batch["text"].copy_(batch["text"].flip(0)),
                lambda batch: model.encoders["audio"].weight.data.mul_(1.5),
            )
        ):
            batch = to_device(make_batch(seed + 1))
            ablation.watch()
            model(batch)
            ablation.unwatch()
            change(batch)
            found = ablation(batch)
            for mask in range(8):
                hidden = {name: x * (mask >> m & 1) for m, (name, x) in enumerate(batch.items()) if name in INPUTS}
                torch.testing.assert_close(found[mask].inner, model(hidden).inner, rtol=1e-5, atol=1e-5)


def test_nothing_is_made_in_double_precision_where_a_device_has_none(monkeypatch):
    monkeypatch.setattr("mm_metrics.ablation.baselines.precise", lambda device: torch.float32)
    ablation = ModalityAblation(Small().eval(), INPUTS, baseline="mean")
    made = []
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *a, **k: (made.append(a), to(x, *a, **k))[1])
    ablation.add_to_means(make_batch(0))
    ablation.use_means()
    for seed in range(3):
        ablation(make_batch(seed))
    assert not any(torch.float64 in a for a in made)
    assert all(mean.dtype == torch.float32 for mean in ablation.means.values())


NEW = ("", "cuda.matmul.", "cudnn.", "cudnn.conv.", "cudnn.rnn.", "mkldnn.", "mkldnn.matmul.")
SWITCHES = {  # what the user says, by the old API and the new: whether products may round to ten bits
    "pass": False,
    "matmul.allow_tf32 = True": True,
    "torch.backends.cudnn.allow_tf32 = False": False,
    "torch.set_float32_matmul_precision('high')": True,
    "torch.set_float32_matmul_precision('medium')": True,
    "torch.backends.fp32_precision = 'tf32'": True,
    "torch.backends.fp32_precision = 'ieee'": False,
    "matmul.fp32_precision = 'tf32'": True,
    "matmul.fp32_precision = 'ieee'": False,
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'": False,
    "torch.backends.cudnn.conv.fp32_precision = 'tf32'": False,  # as it is by default: no excuse for other answers
    "matmul.allow_tf32 = True; torch.backends.cudnn.conv.fp32_precision = 'ieee'": True,
}


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="a torch with the old switches alone")
@pytest.mark.parametrize("said", SWITCHES)
def test_parts_may_differ_by_what_the_user_lets_products_round_to(said):
    homes = {name: operator.attrgetter(f"backends.{name}"[:-1])(torch) for name in NEW}
    before = {name: home.fp32_precision for name, home in homes.items()}
    logits = torch.randn(8, 16, 3, generator=torch.Generator().manual_seed(0))
    try:
        exec(said, {"torch": torch, "matmul": torch.backends.cuda.matmul})
        with pretending():
            there = room_of(to_device(logits)).inner
    finally:
        torch.set_float32_matmul_precision("highest")
        for name, home in homes.items():
            home.fp32_precision = before[name]
    assert bool((there > 50 * room_of(logits)).all()) is SWITCHES[said]
    assert bool((there < 2 * room_of(logits)).all()) is not SWITCHES[said]


def test_a_default_device_breaks_nothing():
    model, batch = Small().eval(), make_batch(0)
    expected = by_hand(model, batch, INPUTS)
    torch.set_default_device("meta")  # any other than the batch's
    try:
        ablation = ModalityAblation(model, INPUTS)
        for _ in range(3):
            found = ablation(batch, torch.ones(16, 3, dtype=torch.bool, device="cpu"))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    finally:
        torch.set_default_device(None)
        if torch.__version__ < "2.7":  # whose get_default_device fails from here on
            del torch._GLOBAL_DEVICE_CONTEXT.device_context
