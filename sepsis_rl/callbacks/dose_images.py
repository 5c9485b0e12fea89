"""Pictures of what a policy prescribes."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning_utilities.core.rank_zero import rank_zero_only
from matplotlib.figure import Figure

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks.policy_evaluation import PolicyEvaluation, find_callback
from sepsis_rl.figures import heat_map, new_figure
from sepsis_rl.loggers import run_loggers
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
    """Adds the dose grid of every policy to TensorBoard.

    A single policy's is drawn at each evaluation, those of a population when training ends: drawing
    21 takes longer than all else that an evaluation does. Decisions are counted by the policy's own
    visits in the environment.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws a single policy that was just evaluated."""
        assert isinstance(pl_module, OfflineAlgorithm)
        if len(pl_module.members) == 1 and not trainer.sanity_checking:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the policies of a population as they were last evaluated."""
        assert isinstance(pl_module, OfflineAlgorithm)
        if len(pl_module.members) > 1:
            self._draw(trainer, pl_module)

    @rank_zero_only
    def _draw(self, trainer: pl.Trainer, module: OfflineAlgorithm) -> None:
        evaluation = find_callback(trainer, PolicyEvaluation)
        loggers = list(run_loggers(trainer))
        if not loggers or evaluation is None or evaluation.last is None or not evaluation.history:
            return
        mdp = trainer.datamodule.mdp  # type: ignore[attr-defined]
        scores, step = evaluation.last, evaluation.history[-1]["step"]
        diverged = scores.survival_rate.estimate.isnan()
        for name, visits, lost in zip(module.members.names, scores.visits, diverged, strict=True):
            if not lost:
                title = name or f"{type(module).__name__}, step {step}"
                picture = draw_dose_grid(visits, mdp.dose_grid, title)
                for logger in loggers:
                    logger.member(name).add_figure("policy/doses", picture, step, close=False)
