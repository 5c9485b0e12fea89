"""Pictures of what a policy prescribes."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
from lightning_utilities.core.rank_zero import rank_zero_only
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation, find_callback
from sepsis_rl.loggers import RunLogger
from sepsis_rl.mdp import DoseGrid


def draw_dose_grid(visits: NDArray[np.float64], grid: DoseGrid, title: str) -> Figure:
    """Draws how often a policy gives each dose.

    Args:
        visits: Expected visits per episode, (n_states, n_actions).
        grid: The doses.
        title: Heading.

    Returns:
        A heat map: IV-fluid level upward, vasopressor level to the right, shares of all decisions.
    """
    share = 100 * visits.sum(0) / visits.sum()
    iv_fluid, vasopressor = grid.levels(np.arange(grid.n_actions))
    table = np.zeros((grid.n_iv_fluid_levels, grid.n_vasopressor_levels))
    table[iv_fluid, vasopressor] = share
    figure = Figure(figsize=(3.7, 3.3), dpi=100, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(table, origin="lower", cmap="cividis", vmin=0)
    for (row, column), value in np.ndenumerate(table):
        color = "white" if value < table.max() / 2 else "black"
        axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(table.shape[1]))
    axes.set_yticks(range(table.shape[0]))
    axes.set_xlabel("vasopressor level")
    axes.set_ylabel("IV-fluid level")
    axes.set_title(title, fontsize=10)
    figure.colorbar(image, ax=axes, label="share of the policy's decisions (%)", shrink=0.85)
    return figure


class DoseGridImages(pl.Callback):
    """Adds the dose grid of every member's policy to TensorBoard at each evaluation.

    Decisions are counted by the policy's own visits in the environment.
    """

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the policies that were just evaluated."""
        if trainer.sanity_checking or not isinstance(trainer.logger, RunLogger):
            return
        assert isinstance(pl_module, OfflineAlgorithm)
        evaluation = find_callback(trainer, PolicyEvaluation)
        if evaluation is None or evaluation.last is None:
            return
        mdp = trainer.datamodule.mdp  # type: ignore[attr-defined]
        scores, step = evaluation.last, trainer.global_step
        diverged = scores.survival_rate.estimate.isnan()
        for name, visits, lost in zip(
            pl_module.members.names, scores.visits, diverged, strict=True
        ):
            if not lost:
                title = name or f"{type(pl_module).__name__}, step {step}"
                picture = draw_dose_grid(visits, mdp.dose_grid, title)
                trainer.logger.member(name).add_figure("policy/doses", picture, step)
