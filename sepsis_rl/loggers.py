"""The TensorBoard logger of a run and its members."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning_utilities.core.rank_zero import rank_zero_only
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams as hparams_summary


def _with_interval(tag: str) -> list[Any]:
    return ["Margin", [tag, f"{tag}_low", f"{tag}_high"]]


LAYOUT = {
    "survival": {
        "rollouts with 95 % interval": _with_interval("val/survival_rate"),
        "rollouts, exact, and the network's own estimate": [
            "Multiline",
            ["val/survival_rate$", "val/survival_exact", "val/value_estimate"],
        ],
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

HPARAMS_METRICS = ("val/survival_exact", "val/survival_rate", "ope/fqe", "val/loss")
"""Metrics beside the hyper-parameters on TensorBoard's HPARAMS page."""


class RunLogger(TensorBoardLogger):
    """TensorBoard in `<save_dir>/<name>/version_N`, with a sub-run for each member.

    A metric named `<member>/<group>/<name>` goes to the sub-run `members/<member>` as
    `<group>/<name>`, so that TensorBoard overlays the members of a sweep under one tag.

    Args:
        save_dir: Folder of all runs.
        name: Name of this run's folder.
        version: Number of this run; the next free one by default.
    """

    def __init__(
        self, save_dir: str = "runs", name: str = "run", version: int | None = None
    ) -> None:
        super().__init__(save_dir, name=name, version=version, default_hp_metric=False)
        self._member_writers: dict[str, SummaryWriter] = {}
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
        if not name:
            return self.experiment  # type: ignore[no-any-return]
        if name not in self._member_writers:
            folder = Path(self.log_dir, "members", name)
            self._member_writers[name] = SummaryWriter(str(folder), **self._kwargs)
        return self._member_writers[name]

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
                self.member(member).add_scalar(tag, value, step)
                self._last_step[key] = step

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's settings are in `config.yaml`, and by member in TensorBoard."""

    @rank_zero_only
    def log_member_settings(self, name: str, settings: Mapping[str, Any]) -> None:
        """Writes a member's hyper-parameters for TensorBoard's HPARAMS page.

        Args:
            name: The member's name, empty for a single run.
            settings: Name to number or text.
        """
        writer = self.member(name)._get_file_writer()  # type: ignore[no-untyped-call]
        # The metrics are only declared here; their values are the scalars of the same names.
        summaries = hparams_summary(dict(settings), dict.fromkeys(HPARAMS_METRICS, 0))  # type: ignore[no-untyped-call]
        for summary in summaries:
            writer.add_summary(summary)

    @rank_zero_only
    def save(self) -> None:
        """Flushes to disk; the parent's `hparams.yaml` would repeat `config.yaml`."""
        for writer in [self.experiment, *self._member_writers.values()]:
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Closes the files."""
        super().finalize(status)
        for writer in self._member_writers.values():
            writer.close()
