"""Other ways to start several processes, and what happens when one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from mm_metrics import ModalityAblation, Scorecard
from mm_metrics.callbacks.prober import is_sharded, through_strategy
from tests.distributed.launch import launch
from tests.distributed.test_monitor_ranks import one_process
from tests.toys import MODALITIES

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]

VALIDATE = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.distributed.test_monitor_ranks import validate
validate(0, 2, Path(sys.argv[1]), "ddp", "sampler")
"""

HOST = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.distributed.test_monitor_ranks import validate
validate(0, 1, Path(sys.argv[1]), "ddp", "sampler", num_nodes=2)
"""

# Two hosts that share no interface and no folder, and are joined by a cable.
HOSTS = """
unshare -n sleep 300 & other=$!
trap 'kill $other' EXIT
while [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/$$/ns/net)" ]; do sleep 0.1; done
ip link add cable0 type veth peer name cable1 netns $other || exit 77
ip link set lo up && ip addr add 10.99.0.1/24 dev cable0 && ip link set cable0 up
there() { nsenter -t $other -n "$@"; }
there ip link set lo up && there ip addr add 10.99.0.2/24 dev cable1 && there ip link set cable1 up
export MASTER_ADDR=10.99.0.1 MASTER_PORT=29500
there env NODE_RANK=1 GLOO_SOCKET_IFNAME=cable1 "$1" "$2/script.py" "$2/other" & second=$!
NODE_RANK=0 GLOO_SOCKET_IFNAME=cable0 "$1" "$2/script.py" "$2/first" && wait $second
"""

DIES = """
import datetime, os, sys, warnings
warnings.simplefilter("ignore")
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from mm_metrics.callbacks import ModalityMonitor
from tests.toys import MODALITIES, Rows, loader, seeded

class Dies(Callback):
    def on_validation_batch_end(self, trainer, *arguments, **keywords):
        if trainer.global_rank == 1 and trainer.current_epoch == 1:
            os._exit(7)

strategy = DDPStrategy(process_group_backend="gloo", timeout=datetime.timedelta(seconds=20))
monitor = ModalityMonitor(MODALITIES, num_classes=3, bootstrap=20)
trainer = Trainer(max_epochs=3, accelerator="cpu", devices=2, strategy=strategy, logger=False,
                  default_root_dir=sys.argv[1],
                  enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
                  callbacks=[monitor, Dies()])
trainer.fit(seeded(), loader(Rows(n=32)), loader(Rows(n=32)))
"""


def torchrun(script: str, folder: Path, timeout: float) -> subprocess.CompletedProcess:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script))
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(path),
        str(folder),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)


def test_torchrun_counts_the_same(tmp_path):
    done = torchrun(VALIDATE, tmp_path, 250)
    assert done.returncode == 0, done.stderr[-2000:]
    card = json.loads((tmp_path / "modality" / "val.json").read_text())
    alone = json.loads(one_process(tmp_path)[0])
    assert card["counts"] == alone["counts"]


def test_two_hosts_give_one_hosts_card(tmp_path):
    allowed = ["unshare", "-rn", "sh", "-c", "ip link add cable0 type veth peer name cable1"]
    if shutil.which("unshare") is None or subprocess.run(allowed, capture_output=True).returncode:
        pytest.skip("this process may not make network namespaces")
    (tmp_path / "script.py").write_text(HOST)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = ["unshare", "-rn", "sh", "-c", HOSTS, "sh", sys.executable, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    card = json.loads((tmp_path / "first" / "modality" / "val.json").read_text())
    assert card["counts"] == json.loads(one_process(tmp_path)[0])["counts"]
    assert not (tmp_path / "other" / "modality").exists()


def test_a_rank_that_dies_ends_the_others_and_leaves_no_half_report(tmp_path):
    begun = time.monotonic()
    done = torchrun(DIES, tmp_path, 280)
    assert done.returncode != 0
    assert time.monotonic() - begun < 250
    assert Scorecard.from_json(tmp_path / "modality" / "val.json").info["epoch"] == 0  # the last whole one
    assert not (tmp_path / "modality" / "report.html").exists()
    assert [path for path in (tmp_path / "modality").iterdir() if path.name.startswith(".")] == []


class Parts(nn.Module):
    """Three encoders and a head, to be sharded layer by layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(8, 8) for name in MODALITIES})
        self.head = nn.Linear(24, 3)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.head(torch.cat([self.encoders[name](batch[name]) for name in MODALITIES], dim=-1))


def sharded(rank: int, world_size: int, folder: Path) -> float:
    """The largest difference between the sharded model's answers, hidden whole, and the unsharded model's."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    torch.manual_seed(0)
    model, plain = Parts(), Parts()
    plain.load_state_dict(model.state_dict())
    mesh = init_device_mesh("cpu", (world_size,))
    for part in (*model.encoders.values(), model.head, model):
        fully_shard(part, mesh=mesh)
    batch = {name: torch.randn(4, 8, generator=torch.Generator().manual_seed(rank)) for name in MODALITIES}
    ours = ModalityAblation(model, MODALITIES, encoders=None)(batch)
    difference = float((ours - ModalityAblation(plain, MODALITIES, encoders=None)(batch)).abs().max())
    dist.destroy_process_group()
    return difference


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch 2.6 shards on accelerators alone: a CPU has no streams")
def test_a_sharded_model_is_run_whole_and_answers_the_same(tmp_path):
    assert max(launch(2, sharded, tmp_path)) < 1e-5


def test_sharded_strategies_are_told_by_name_and_run_through_the_wrapper():
    class FSDPStrategy:
        def __init__(self, module):
            self.lightning_module, self.model, self.names = module, nn.Sequential(module), []

        def _forward_redirection(self, wrapper, original, name, *arguments):
            assert wrapper is self.model
            self.names.append(name)
            return getattr(original, name)(*arguments)

    class DDPStrategy:
        pass

    module = Parts()
    strategy = FSDPStrategy(module)
    assert is_sharded(strategy)
    assert not is_sharded(DDPStrategy())
    batch = {name: torch.ones(2, 8) for name in MODALITIES}
    predict = through_strategy(strategy, lambda model, batch: model(batch))
    assert torch.equal(predict(module, batch), module(batch))
    assert len(strategy.names) == 1
    assert "_mm_metrics_predict" not in vars(module)
