"""Writing a learned policy as a table that anybody can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_only

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, shown, tell
from sepsis_rl.errors import InputError
from sepsis_rl.files import as_csv, atomic_write, free_path, write_json
from sepsis_rl.policies import Policy


class PolicyExport(pl.Callback):
    """Writes `policy.csv` at the end of `predict`, a row for each state.

    Columns: state, action, iv_fluid_level, vasopressor_level, supported (1 where the training data
    has the pair), sofa_score, and the scores q_0, q_1, ... of all actions (logits for behavior
    cloning). Doses and SOFA scores are those of ICU-Sepsis, and missing for other states. A file of
    the same name that ends in `.json` says what the policy is not for and where it comes from.

    Args:
        member: Member to write, counted from 0.
        output: Destination; `policy.csv` in the run's folder by default. Existing files are left
            as they are and the next free number is taken.
    """

    def __init__(self, member: int = 0, output: str | None = None) -> None:
        self.member = member
        self.output = None if output is None else Path(output)
        self.run_folder: Path | None = None
        self._policy: Policy | None = None

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the member's policy.

        Raises:
            InputError: There is no such member, it has no policy, or the destination is a `.json`,
                a folder or a device.
        """
        if self.output is not None and self.output.exists() and not self.output.is_file():
            raise InputError(
                f"--output {self.output} cannot be used: it is no file; give a name such as "
                "policy.csv"
            )
        if self.output is not None and self.output.suffix == ".json":
            raise InputError(
                f"--output {self.output} cannot be used: where the policy comes from is written to "
                "a .json beside it; give a name such as policy.csv"
            )
        assert isinstance(pl_module, OfflineAlgorithm)
        members = len(pl_module.members)
        if not 0 <= self.member < members:
            raise InputError(
                f"--member {self.member} cannot be used: the checkpoint has 0 to {members - 1}"
            )
        self._policy = pl_module.policies()[self.member]
        if self._policy is None:
            raise InputError(
                f"--member {self.member} has no policy: its network has diverged; an earlier "
                "checkpoint may have one"
            )

    @rank_zero_only
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the table."""
        assert isinstance(pl_module, OfflineAlgorithm)
        assert self._policy is not None
        data, action = trainer.datamodule, self._policy.actions  # type: ignore[attr-defined]
        states = np.arange(len(action))
        columns: dict[str, Any] = {"state": states, "action": action}
        if data.mdp is not None:
            levels = data.mdp.dose_grid.levels(action)
            columns["iv_fluid_level"], columns["vasopressor_level"] = levels
        columns["supported"] = (data.pair_counts[states, action] > 0).astype(np.int64)
        if data.mdp is not None:
            columns["sofa_score"] = data.mdp.sofa_scores
        scores = pl_module.q_network.table()[self.member].cpu().numpy()
        columns |= {f"q_{index}": values for index, values in enumerate(scores.T)}
        path = free_path(self.output or (self.run_folder or Path()) / "policy.csv", ".json")
        origin = {
            "note": NOT_FOR_CLINICAL_USE,
            "algorithm": type(pl_module).__name__,
            "member": self.member,
            "settings": dict(pl_module.members.settings[self.member]),
            "checkpoint": str(trainer.ckpt_path),
            "trained_on": data.content_hash,
        }
        write_json(path.with_suffix(".json"), origin)
        with atomic_write(path) as file:
            file.write(as_csv(columns))
        tell(f"Policy of {len(states)} states: {shown(path)}")
