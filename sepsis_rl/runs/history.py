"""What a finished run remembers of its training: its members, their evaluations and curves."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.errors import InputError
from sepsis_rl.loggers import tag_of
from sepsis_rl.mdp import FloatArray, IntArray
from sepsis_rl.policies import Policy
from sepsis_rl.runs.checkpoints import rebuild_algorithm
from sepsis_rl.runs.described import FOLDER, LAST, SAMPLED, read_result, short_name, unfinished
from sepsis_rl.runs.finished import Run
from sepsis_rl.runs.patterns import WRONG_ENTRY
from sepsis_rl.runs.untrusted import read_checkpoint

LEARNED: Final = "learned"
"""What a member's own policy is called among those that records judge."""


@dataclass(frozen=True, eq=False)
class Member:
    """A member of a finished run.

    Attributes:
        algorithm: BC, DQN or CQL. CQL with alpha 0 is DQN and goes by that name.
        settings: The run's hyperparameters, with its own alpha (NaN for BC), seed and so on; the
            data module's `batch_size` and `dynamics`; and `inadmissible_actions`, the strategy of
            its evaluations.
        data: The data that it was trained on.
        run: Folder of the run.
        index: Which member of the run, counted from 0.
        name: Its name there; empty for a single run.
        steps: int64 (evaluations,), optimizer steps at each.
        metrics: By metric name, float64 (evaluations,).
        actions: int64 (evaluations, n_states), the policy at each.
        scores: float64 (n_states, n_actions), Q (logits for BC) of the last checkpoint.
        by_records: What recorded episodes that chose nothing say at the end of its run, by policy
            the figures by name: its own, and others that it is compared with.
    """

    algorithm: str
    settings: Mapping[str, Any]
    data: OfflineDataModule
    run: Path
    index: int
    name: str
    steps: IntArray
    metrics: Mapping[str, FloatArray]
    actions: IntArray
    scores: FloatArray
    by_records: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def has_truth(self) -> bool:
        """Whether a simulator knows what its policies are worth."""
        return "survival_exact" in self.metrics

    @property
    def alpha(self) -> float:
        """Weight of the conservative term; NaN for behavior cloning."""
        return float(self.settings["alpha"])

    @property
    def temperature(self) -> float | None:
        """That of the conservative term; None without the term, where it changes nothing."""
        return self.settings.get("temperature") if self.alpha > 0 else None

    @property
    def seed(self) -> int:
        """Seed of initial weights and batches."""
        return int(self.settings["seed"])

    @property
    def setting(self) -> str:
        """The algorithm, with alpha where there is one."""
        return setting_name(self.algorithm, self.alpha)

    @property
    def label(self) -> str:
        """Its run and its name there."""
        return f"{short_name(self.run)} {self.name}".strip()

    @property
    def identity(self) -> dict[str, Any]:
        """The columns of a file that tell it from others."""
        return {"algorithm": self.algorithm, "alpha": self.alpha, "seed": self.seed}

    @property
    def survival(self) -> float:
        """Exact survival of the last evaluation's policy."""
        return float(self.metrics["survival_exact"][-1])

    def survival_at(self, step: int) -> float:
        """Exact survival of the policy that was evaluated after a step."""
        return float(self.metrics["survival_exact"][self.steps == step][0])

    @functools.cached_property
    def policy(self) -> Policy:
        """The last evaluation's policy."""
        return self._policy_of(self.actions[-1])

    def policies(self) -> list[Policy]:
        """The policies of all evaluations."""
        return [self._policy_of(actions) for actions in self.actions]

    def _policy_of(self, actions: IntArray) -> Policy:
        return Policy(f"{self.setting}, seed {self.seed}", np.eye(self.data.n_actions)[actions])


def setting_name(algorithm: str, alpha: float) -> str:
    """What an algorithm with its alpha is called."""
    return f"CQL α={alpha:g}" if algorithm == "CQL" else algorithm


def read_members(run: Run) -> tuple[list[Member], list[str]]:
    """Reads a finished run's members from its last checkpoint.

    Args:
        run: Its folder, and the data that its config names.

    Returns:
        The members, and the labels of those left out because their networks have diverged.

    Raises:
        InputError: The run is unfinished, its checkpoint does not hold the policies that were
            evaluated or belongs to other data, or the policies sample their actions.
    """
    path = run.folder / FOLDER / LAST
    checkpoint = read_checkpoint(path)
    try:
        result = _check(run, checkpoint)
        algorithm = rebuild_algorithm(checkpoint, path)
        scores = algorithm.q_network.table().double().numpy()
        return _members(run, checkpoint, result, scores, algorithm.labels)
    except InputError:
        raise
    except WRONG_ENTRY as error:
        raise InputError(
            f"its checkpoint's entries do not belong together ({type(error).__name__}: {error})"
        ) from error


def _check(run: Run, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Checks what a checkpoint says of its run, and returns what the run ended with."""
    if checkpoint.get("OfflineDataModule", {}).get("content_hash") != run.data.content_hash:
        raise InputError("its checkpoint was trained on other data than its config.yaml names")
    step = int(checkpoint["global_step"])
    result = read_result(run.folder)
    if result["step"] != step:
        raise InputError(unfinished(run.folder, step))
    if checkpoint["hyper_parameters"].get("sampled"):
        raise InputError(SAMPLED)
    if "callbacks" not in checkpoint:
        raise InputError("its checkpoint holds weights alone, without the policies it evaluated")
    story = checkpoint["callbacks"]["PolicyEvaluation"]
    if list(story.get("policies", {})) != [entry["step"] for entry in story["history"]]:
        raise InputError("it was made by an older version, without the policies it evaluated")
    return dict(result)


def _by_records(result: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """By policy the figures from recorded episodes alone, NaN where there is none."""
    found = result.get("off_policy")
    if found is None:
        return {}
    own = found["recorded"]
    recorded = {"fqe": own["estimate"], "fqe_low": own["low"], "fqe_high": own["high"]}
    return {
        name: {key: math.nan if value is None else float(value) for key, value in own.items()}
        for name, own in {"recorded": recorded, **found["policies"]}.items()
    }


def _members(
    run: Run,
    checkpoint: dict[str, Any],
    result: Mapping[str, Any],
    scores: FloatArray,
    labels: Sequence[str],
) -> tuple[list[Member], list[str]]:
    about, story = checkpoint["sepsis_rl"], checkpoint["callbacks"]["PolicyEvaluation"]
    settings = {
        **checkpoint["hyper_parameters"],
        "batch_size": run.data.batch_size,
        "dynamics": run.data.dynamics,
        # Where no environment simulates the patients, no action is inadmissible.
        "inadmissible_actions": str(result.get("inadmissible_actions", "mean")),
    }
    steps = list(story["policies"])
    policies = torch.stack([story["policies"][step] for step in steps])
    by_records = _by_records(result)
    others = {name: own for name, own in by_records.items() if name not in labels}
    members, diverged = [], []
    for index, (name, own) in enumerate(zip(about["names"], about["members"], strict=True)):
        alpha = {"BC": {"alpha": math.nan}, "DQN": {"alpha": 0.0}}.get(about["algorithm"], {})
        described = {**settings, **own, **alpha, "hidden_dims": tuple(settings["hidden_dims"])}
        is_dqn = about["algorithm"] == "CQL" and described["alpha"] == 0
        rows = [entry["members"][index] for entry in story["history"]]
        member = Member(
            algorithm="DQN" if is_dqn else about["algorithm"],
            settings=described,
            data=run.data,
            run=run.folder,
            index=index,
            name=name,
            steps=np.array(steps, dtype=np.int64),
            metrics={key: np.array([row[key] for row in rows]) for key in rows[0]},
            actions=policies[:, index].numpy().astype(np.int64),
            scores=scores[index],
            by_records={LEARNED: by_records.get(labels[index], {}), **others},
        )
        exact = member.metrics.get("survival_exact", np.zeros(1))
        if np.isnan(exact).any() or not np.isfinite(member.scores).all():
            diverged.append(member.label)
            continue
        chosen = member.actions
        if policies.is_floating_point() or chosen.min() < 0 or chosen.max() >= run.data.n_actions:
            raise InputError("its checkpoint holds actions that there are not")
        members.append(member)
    return members, diverged


class Curve(NamedTuple):
    """A scalar over training: `steps`, int64 (points,), and `values`, float64 (points,)."""

    steps: IntArray
    values: FloatArray


def read_curve(member: Member, metric: str) -> Curve:
    """A scalar that a member logged to TensorBoard.

    Args:
        member: A run of one member logs in its own folder, a sweep in a folder for each member.
        metric: Its key, such as `train/loss`.

    Returns:
        The curve; empty where there is none.
    """
    folder = member.run
    if member.name:
        members = folder / "members"
        # A member alone has settings there, but its curves would be the same as the run's.
        if not members.is_dir() or len(list(members.iterdir())) > 1:
            folder = members / member.name
    points: list[Any] = []
    if folder.is_dir():
        events = _events(folder)
        # Reads only what has been added since; hides what a resumed run logged a second time.
        events.Reload()
        known = events.Tags()["scalars"]
        # Earlier versions showed every metric under its own key, and a run may have gone on since.
        tags = [tag for tag in dict.fromkeys((metric, tag_of(metric))) if tag in known]
        points = [point for tag in tags for point in events.Scalars(tag)]
    return Curve(
        np.array([point.step for point in points], dtype=np.int64),
        np.array([point.value for point in points], dtype=np.float64),
    )


@functools.lru_cache(maxsize=128)
def _events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0})
