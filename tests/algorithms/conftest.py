"""A small data set, and a `fit` that says nothing."""

import lightning.pytorch as pl
import pytest

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks import SoftTargetUpdate
from sepsis_rl.data import OfflineDataModule


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """About 1,900 real transitions; batches of 32."""
    folder = tmp_path_factory.mktemp("records")
    module = OfflineDataModule(
        episodes=200, held_out_episodes=50, batch_size=32, cache_dir=str(folder)
    )
    module.prepare_data()
    module.setup()
    return module


@pytest.fixture
def make_trainer():
    def make_trainer(module: OfflineAlgorithm, steps=-1, *, callbacks=(), **options) -> pl.Trainer:
        """A Trainer as the configs make it, without its files and screen."""
        return pl.Trainer(
            **{
                "max_steps": steps,
                "callbacks": [SoftTargetUpdate(getattr(module, "tau", 1.0)), *callbacks],
                "gradient_clip_val": 1.0,
                "accelerator": "cpu",
                "devices": 1,
                "logger": False,
                "limit_val_batches": 0,
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                **options,
            }
        )

    return make_trainer


@pytest.fixture
def fit(data, make_trainer):
    def fit(module: OfflineAlgorithm, steps, *, ckpt_path=None, **options) -> pl.Trainer:
        trainer = make_trainer(module, steps, **options)
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return fit
