"""What a fit logs is what it can be chosen by."""

import lightning.pytorch as pl
import pytest

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.callbacks import OffPolicyEvaluation, PolicyEvaluation
from sepsis_rl.callbacks.monitors import metric_names


@pytest.mark.parametrize("algorithm", [BC, DQN, CQL])
def test_the_names_are_those_of_a_fit(data, algorithm):
    module = algorithm(embedding_dim=4, hidden_dims=[4])
    trainer = pl.Trainer(
        max_steps=2,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        log_every_n_steps=1,
        accelerator="cpu",
        callbacks=[PolicyEvaluation(patients=20), OffPolicyEvaluation(resamples=5)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, data)
    logged = {name for name in trainer.callback_metrics if not name.startswith("train/")}
    assert metric_names(module, data) == {*logged, "train/loss"}
