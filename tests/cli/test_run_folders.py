"""A run's folder is the same with any logger."""

import json
from pathlib import Path

import pandas as pd
import pytest
from comparing import assert_same_state
from run_folders import assert_refused, files

WRITTEN = [
    "checkpoints/last.ckpt",
    "checkpoints/step=4.ckpt",
    "checkpoints/step=8.ckpt",
    "config.yaml",
    "metrics.json",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("logger", "more"),
    [
        ("CSVLogger", ["hparams.yaml", "metrics.csv"]),
        ("false", []),
    ],
)
def test_any_logger_leaves_a_run_that_all_commands_read(lightning, logger, more):
    """It goes on in its own folder, and a second one takes the next number."""
    words = [f"--trainer.logger={logger}", "--model.schedule=constant"]
    assert lightning("fit", "cql", *words, "--trainer.max_steps=8").code == 0
    run = Path("runs/cql/version_0")
    assert files(run) == sorted([*WRITTEN, *more])
    assert lightning.main("select", str(run)).code == 0
    assert lightning("predict", "cql", *words, "--ckpt_path=last").code == 0
    assert (run / "policy.csv").exists()

    ran = lightning("fit", "cql", *words, "--ckpt_path=last", "--trainer.max_steps=12")
    assert (ran.code, ran.err) == (0, "")
    assert lightning("fit", "cql", *words, "--trainer.max_steps=12").code == 0
    assert sorted(path.name for path in run.parent.iterdir()) == ["version_0", "version_1"]
    assert_same_state(run, run.with_name("version_1"))
    for folder in (run, run.with_name("version_1")):
        assert json.loads((folder / "metrics.json").read_text())["fit"]["step"] == 12
    if more:  # the rows before and after; keys are those of the design
        parts = [pd.read_csv(run / name) for name in ("metrics-to-step-8.csv", "metrics.csv")]
        survival = [p.set_index("step")["val/survival_exact"].dropna() for p in parts]
        assert [part.index.tolist() for part in survival] == [[4, 8], [12]]


def test_the_missing_package_of_a_logger_is_named(lightning):
    ran = lightning("fit", "cql", "--trainer.logger=WandbLogger")
    assert_refused(ran, "WandbLogger needs a package", "pip install", "wandb")
    assert list(Path().iterdir()) == []
