"""Pictures of what a policy prescribes."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning_utilities.core.rank_zero import rank_zero_only
from matplotlib.figure import Figure

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation, find_callback
from sepsis_rl.figures import heat_map, new_figure
from sepsis_rl.loggers import RunLogger
from sepsis_rl.mdp import DoseGrid, FloatArray


def draw_dose_grid(visits: FloatArray, grid: DoseGrid, title: str) -> Figure:
    """Draws how often a policy gives each dose.

    Args:
        visits: Expected visits per episode, (n_states, n_actions).
        grid: The doses.
        title: Heading.

    Returns:
        A heat map: IV-fluid level upward, vasopressor level to the right, shares of all decisions.
    """
    shares = 100 * visits.sum(0) / visits.sum()
    figure = new_figure(3.7, 3.3, dpi=100)
    axes = figure.subplots()
    image = heat_map(
        axes, shares.reshape(grid.n_iv_fluid_levels, grid.n_vasopressor_levels), origin="lower"
    )
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
