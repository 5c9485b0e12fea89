"""Writing a learned policy as a table that anybody can read."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_only
from rich.console import Console

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.display import NOT_FOR_CLINICAL_USE
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write, free_path


class PolicyExport(pl.Callback):
    """Writes `policy.csv` at the end of `predict`, a row for each state.

    Columns: state, action, iv_fluid_level, vasopressor_level, supported (1 where the training data
    has the pair), sofa_score, and the scores q_0, q_1, ... of all actions (logits for behavior
    cloning). Doses and SOFA scores are those of ICU-Sepsis, and missing for other states. The first
    line is a comment.

    Args:
        member: Which member's policy, counted from 0.
        output: Destination; `policy.csv` in the run's folder by default. An existing file is left
            as it is and the next free number is taken.
    """

    def __init__(self, member: int = 0, output: str | None = None) -> None:
        self.member = member
        self.output = None if output is None else Path(output)
        self.run_folder: Path | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks the member.

        Raises:
            InputError: There is no such member.
        """
        assert isinstance(pl_module, OfflineAlgorithm)
        members = len(pl_module.members)
        if not 0 <= self.member < members:
            raise InputError(
                f"--member {self.member} cannot be used: the checkpoint has 0 to {members - 1}"
            )
        if pl_module.diverged()[self.member]:
            raise InputError(
                f"--member {self.member} has no policy: its network has diverged; an earlier "
                "checkpoint may have one"
            )

    @rank_zero_only
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the table."""
        assert isinstance(pl_module, OfflineAlgorithm)
        data = trainer.datamodule  # type: ignore[attr-defined]
        scores = pl_module.q_network.table()[self.member].cpu().numpy()
        action = pl_module.policy(self.member).actions
        states = np.arange(len(action))
        columns = {"state": states, "action": action}
        if data.mdp is not None:
            levels = data.mdp.dose_grid.levels(action)
            columns["iv_fluid_level"], columns["vasopressor_level"] = levels
        columns["supported"] = (data.pair_counts[states, action] > 0).astype(np.int64)
        texts = {name: [str(value) for value in values] for name, values in columns.items()}
        if data.mdp is not None:
            texts["sofa_score"] = [f"{score:.6g}" for score in data.mdp.sofa_scores]
        for index, values in enumerate(scores.T):
            texts[f"q_{index}"] = [f"{value:.9g}" for value in values]
        name = pl_module.members.names[self.member] or "single run"
        text = io.StringIO()
        text.write(f"# {NOT_FOR_CLINICAL_USE} {type(pl_module).__name__}, {name}.\n")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(texts)
        writer.writerows(zip(*texts.values(), strict=True))
        path = free_path(self.output or (self.run_folder or Path()) / "policy.csv")
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())
        Console().print(f"Policy of {len(states)} states: {path}", soft_wrap=True)
