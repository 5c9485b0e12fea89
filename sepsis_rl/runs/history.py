"""What a finished run remembers of its training: its members, their evaluations and curves."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.errors import InputError
from sepsis_rl.loggers import tag_of
from sepsis_rl.mdp import FloatArray, IntArray
from sepsis_rl.policies import Policy
from sepsis_rl.runs.checkpoints import FOLDER, LAST, rebuild_algorithm
from sepsis_rl.runs.finished import Run
from sepsis_rl.runs.patterns import WRONG_ENTRY
from sepsis_rl.runs.untrusted import read_checkpoint


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
        return f"CQL α={self.alpha:g}" if self.algorithm == "CQL" else self.algorithm

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


def short_name(folder: Path) -> str:
    """A run's folder from the folder of all runs on."""
    return str(Path(*folder.parts[-3:]))


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
        strategy = _check(run, checkpoint)
        scores = rebuild_algorithm(checkpoint, path).q_network.table().double().numpy()
        return _members(run, checkpoint, strategy, scores)
    except InputError:
        raise
    except WRONG_ENTRY as error:
        raise InputError(
            f"its checkpoint's entries do not belong together ({type(error).__name__}: {error})"
        ) from error


def _check(run: Run, checkpoint: dict[str, Any]) -> str:
    """Checks what a checkpoint says of its run, and returns the strategy of its evaluations."""
    if checkpoint.get("OfflineDataModule", {}).get("content_hash") != run.data.content_hash:
        raise InputError("its checkpoint was trained on other data than its config.yaml names")
    step = int(checkpoint["global_step"])
    try:
        result = json.loads((run.folder / "metrics.json").read_text())["fit"]
    except (OSError, ValueError, KeyError):
        result = {}
    if result.get("step") != step:
        raise InputError(
            f"it is unfinished, at step {step:,}; `lightning fit --config "
            f"{short_name(run.folder)}/config.yaml --ckpt_path last` ends it"
        )
    if checkpoint["hyper_parameters"].get("sampled"):
        raise InputError("its policy samples its actions, of which a checkpoint keeps no record")
    if "callbacks" not in checkpoint:
        raise InputError("its checkpoint holds weights alone, without the policies it evaluated")
    story = checkpoint["callbacks"]["PolicyEvaluation"]
    if list(story.get("policies", {})) != [entry["step"] for entry in story["history"]]:
        raise InputError("it was made by an older version, without the policies it evaluated")
    return str(result["inadmissible_actions"])


def _members(
    run: Run, checkpoint: dict[str, Any], strategy: str, scores: FloatArray
) -> tuple[list[Member], list[str]]:
    about, story = checkpoint["sepsis_rl"], checkpoint["callbacks"]["PolicyEvaluation"]
    settings = {
        **checkpoint["hyper_parameters"],
        "batch_size": run.data.batch_size,
        "dynamics": run.data.dynamics,
        "inadmissible_actions": strategy,
    }
    steps = list(story["policies"])
    policies = torch.stack([story["policies"][step] for step in steps])
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
        )
        if np.isnan(member.metrics["survival_exact"]).any():
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
