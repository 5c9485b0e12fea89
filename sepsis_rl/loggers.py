"""The TensorBoard logger of a run and its members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_only
from tensorboard.plugins.hparams import summary_v2 as hp
from torch.utils.tensorboard import SummaryWriter

TAGS: Final = {
    "val/survival_exact": "Survival/exact",
    "val/survival_rate": "Survival/rollouts",
}
"""What TensorBoard calls a metric: its first page sorts by name, capitals before the rest."""


def tag_of(metric: str) -> str:
    """What TensorBoard calls a metric."""
    return TAGS.get(metric, metric)


def _with_interval(metric: str) -> list[Any]:
    return ["Margin", [tag_of(metric), f"{metric}_low", f"{metric}_high"]]


LAYOUT = {
    "survival": {
        "exact, with clinician, tabular baseline and optimum": [
            "Multiline",
            [tag_of("val/survival_exact")],
        ],
        "rollouts with 95 % interval": _with_interval("val/survival_rate"),
        "the network's own estimate": ["Multiline", ["val/value_estimate"]],
    },
    "from recorded data alone": {
        "weighted importance sampling with 95 % interval": _with_interval("ope/wis"),
        "fitted Q evaluation, importance sampling, doubly robust": [
            "Multiline",
            ["ope/(fqe|wis|wdr)$"],
        ],
    },
    "losses": {
        "training": [
            "Multiline",
            ["train/td_loss", "train/conservative_loss", "train/imitation_loss"],
        ],
        "training and held-out": ["Multiline", ["train/loss", "val/loss"]],
    },
    "values": {"Q of the data's actions and largest Q": ["Multiline", ["train/q_(data|max)"]]},
    "policy": {
        "by the policy's own visits": [
            "Multiline",
            ["val/clinician_agreement", "val/unsupported_rate", "val/inadmissible_rate"],
        ]
    },
}
"""TensorBoard's custom-scalars page; tags are regular expressions."""

SETTINGS: Final = (
    "algorithm",
    "alpha",
    "temperature",
    "gamma",
    "tau",
    "learning_rate",
    "seed",
    "train_data",
    "train_episodes",
    "train_seed",
)
"""Columns of TensorBoard's HPARAMS page. It reads them from any one of the runs that it shows, so
every run names all of them; one that an algorithm has not is empty. It sorts them by name, and
shows the first five until it is asked for more."""

METRICS: Final = {
    "val/survival_exact": "exact survival",
    "ope/supported_value": "supported value, from records alone",
}
"""Metrics beside them, with their headings."""


class RunLogger(TensorBoardLogger):
    """TensorBoard in `<save_dir>/<name>/version_N`, with a sub-run for each member.

    A metric named `<member>/<group>/<name>` goes to the sub-run `members/<member>` as
    `<group>/<name>`, so that TensorBoard overlays the members of a sweep under one tag. So it does
    with the policies that they are compared with, which are sub-runs of their own.

    Args:
        save_dir: Folder of all runs.
        name: Name of this run's folder.
        version: Number of this run; the next free one by default.
    """

    def __init__(
        self, save_dir: str = "runs", name: str = "run", version: int | None = None
    ) -> None:
        super().__init__(save_dir, name=name, version=version, default_hp_metric=False)
        self._writers: dict[str, SummaryWriter] = {}
        self._layout_written = False
        self._last_step: dict[str, int | None] = {}

    def resume(self, version: int, step: int) -> None:
        """Goes on in an existing run.

        What a killed process logged past the checkpoint is logged again, so TensorBoard is told to
        hide the first copy.

        Args:
            version: The run's number.
            step: Optimizer steps taken at the checkpoint.
        """
        self._version = version
        self._kwargs["purge_step"] = step + 1
        self._layout_written = True

    def member(self, name: str) -> SummaryWriter:
        """The writer of a member's sub-run; the run's own for an empty name."""
        return self._sub_run(f"members/{name}") if name else self.experiment

    def _sub_run(self, folder: str) -> SummaryWriter:
        if folder not in self._writers:
            self._writers[folder] = SummaryWriter(str(Path(self.log_dir, folder)), **self._kwargs)
        return self._writers[folder]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes metrics to the run and, by their prefix, to its members.

        Args:
            metrics: `<group>/<name>` or `<member>/<group>/<name>` to value.
            step: Optimizer steps taken.
        """
        if not self._layout_written:
            self.experiment.add_custom_scalars(LAYOUT)
            self._layout_written = True
        for key, value in metrics.items():
            member, slash, tag = key.partition("/")
            if not (slash and "/" in tag):
                member, tag = "", key
            # One endless epoch is a flat line; and when a run stops, Lightning logs its last values
            # once more.
            if tag != "epoch" and self._last_step.get(key) != step:
                self.member(member).add_scalar(tag_of(tag), value, step)
                self._last_step[key] = step

    @rank_zero_only
    def log_baselines(self, survival: Mapping[str, float], step: int) -> None:
        """Writes what other policies are worth, in the chart of exact survival.

        Args:
            survival: Exact survival by policy, which no step changes.
            step: Optimizer steps taken; each evaluation's makes a line as long as the run's own.
        """
        for name, value in survival.items():
            self._sub_run(name).add_scalar(tag_of("val/survival_exact"), value, step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's settings are in `config.yaml`, and by member in TensorBoard."""

    @rank_zero_only
    def log_member_settings(self, name: str, settings: Mapping[str, Any]) -> None:
        """Writes a member's hyper-parameters for TensorBoard's HPARAMS page.

        Args:
            name: The member's name, empty for a single run.
            settings: Name to number or text; of these the page has `SETTINGS`.
        """
        known = {key: settings[key] for key in SETTINGS if key in settings}
        folder = Path(*Path(self.log_dir).parts[-2:])
        columns = [hp.HParam(key) for key in SETTINGS]
        # The metrics are only declared here; their values are the scalars of the same names.
        metrics = [hp.Metric(tag_of(key), display_name=title) for key, title in METRICS.items()]
        writer = self.member(name)._get_file_writer()  # type: ignore[no-untyped-call]
        writer.add_summary(hp.hparams_config_pb(columns, metrics))
        # Runs of one name would be shown as one, with the mean of their figures.
        writer.add_summary(hp.hparams_pb(known, trial_id=f"{folder} {name}".strip()))

    @rank_zero_only
    def save(self) -> None:
        """Flushes to disk; the parent's `hparams.yaml` would repeat `config.yaml`."""
        for writer in [self.experiment, *self._writers.values()]:
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the files."""
        super().finalize(status)
        for writer in self._writers.values():
            writer.close()


def run_loggers(trainer: pl.Trainer) -> Iterable[RunLogger]:
    """Those of a Trainer's loggers that write TensorBoard's pages."""
    return (logger for logger in trainer.loggers if isinstance(logger, RunLogger))
