"""A Trainer and a `fit` that say nothing."""

import lightning.pytorch as pl
import pytest

from sepsis_rl.algorithms import OfflineAlgorithm


@pytest.fixture
def make_trainer():
    def make_trainer(steps=-1, **options) -> pl.Trainer:
        """A Trainer without files and screen."""
        return pl.Trainer(
            **{
                "max_steps": steps,
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
        """Trains with the configs' clipping."""
        trainer = make_trainer(steps, **{"gradient_clip_val": 1.0, **options})
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return fit
