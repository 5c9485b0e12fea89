"""A data module with few episodes, as a Trainer would set it up."""

from types import SimpleNamespace

import pytest
import torch

from sepsis_rl.data import OfflineDataModule

SMALL = {"episodes": 60, "held_out_episodes": 20}


def trainer_at(step=0, *, rank=0, world_size=1, seeds=(42,), accumulate=1):
    """What the data module asks a Trainer for, without the Trainer."""
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        global_step=step,
        accumulate_grad_batches=accumulate,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        lightning_module=SimpleNamespace(member_seeds=torch.tensor(seeds)),
    )


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make(cache_dir):
    def make(stage="fit", trainer=None, **options):
        data = OfflineDataModule(**{"cache_dir": str(cache_dir), **SMALL, **options})
        data.trainer = trainer_at(**(trainer or {}))
        data.prepare_data()
        data.setup(stage)
        return data

    return make
