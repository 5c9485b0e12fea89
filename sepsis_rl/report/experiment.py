"""Finished runs put together: which members there are, on which data, and what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray, IntArray, TabularMDP
from sepsis_rl.runs.checkpoints import FOLDER, LAST, load_algorithm
from sepsis_rl.runs.finished import Run, read_run
from sepsis_rl.runs.untrusted import read_checkpoint

# By these a member differs from another apart from alpha and seed, which span the main grid.
_COMPARED: Final = (
    "gamma",
    "learning_rate",
    "tau",
    "double_q",
    "embedding_dim",
    "hidden_dims",
    "min_action_count",
)


@dataclass(frozen=True, eq=False)
class Member:
    """A member of a finished run.

    Attributes:
        algorithm: BC, DQN or CQL. CQL with alpha 0 is DQN and goes by that name.
        settings: alpha (NaN for BC), gamma, learning_rate, tau, seed and the network's shape.
        data: The data that it was trained on.
        run: Folder of the run.
        index: Which member of the run, counted from 0.
        name: Its name there; empty for a single run.
        steps: int64 (evaluations,), optimizer steps at each.
        metrics: By metric name, float64 (evaluations,).
        actions: int64 (evaluations, n_states), the policy at each.
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

    @property
    def alpha(self) -> float:
        """Weight of the conservative term; NaN for behavior cloning."""
        return float(self.settings["alpha"])

    @property
    def seed(self) -> int:
        """Seed of initial weights and batches."""
        return int(self.settings["seed"])

    @property
    def setting(self) -> str:
        """The algorithm, with alpha where there is one."""
        return f"CQL α={self.alpha:g}" if self.algorithm == "CQL" else self.algorithm

    @property
    def survival(self) -> float:
        """Exact survival of the last evaluation's policy."""
        return float(self.metrics["survival_exact"][-1])

    def survival_at(self, step: int) -> float:
        """Exact survival of the policy that was evaluated after a step."""
        return float(self.metrics["survival_exact"][self.steps == step][0])

    @property
    def identity(self) -> dict[str, Any]:
        """What tells a member from the others, for the rows of a table."""
        return {"algorithm": self.algorithm, "alpha": self.alpha, "seed": self.seed}

    def tables(self) -> FloatArray:
        """The policies of all evaluations, (evaluations, n_states, n_actions)."""
        one_hot: FloatArray = np.eye(self.data.n_actions)[self.actions]
        return one_hot

    def scores(self) -> FloatArray:
        """Q (logits for BC) of the last checkpoint, (n_states, n_actions)."""
        scores = load_algorithm(self.run / FOLDER / LAST).scores()[self.index]
        result: FloatArray = scores.double().numpy()
        return result


@dataclass
class Experiment:
    """All that a report is made from.

    Attributes:
        mdp: The decision process.
        data: Of the first usable run; `members` were trained on it.
        members: The grid, by algorithm, alpha and seed.
        elsewhere: The same settings on other episodes of the same number, by data seed; maybe for
            fewer steps.
        variations: One thing varied: number of episodes, learning rate or network.
        problems: What was left out and why, a sentence each.
        folders: Of the runs that are used.
    """

    mdp: TabularMDP
    data: OfflineDataModule
    members: list[Member] = field(default_factory=list)
    elsewhere: list[Member] = field(default_factory=list)
    variations: dict[str, list[Member]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def of(self, algorithm: str, alpha: float | None = None) -> list[Member]:
        """The grid's members of an algorithm, or of one alpha."""
        return [
            member
            for member in self.members
            if member.algorithm == algorithm and (alpha is None or member.alpha == alpha)
        ]

    @property
    def everywhere(self) -> list[Member]:
        """The grid's settings on all data sets."""
        return self.members + self.elsewhere

    @property
    def common_step(self) -> int:
        """The step up to which all data sets were trained on."""
        return min(int(member.steps[-1]) for member in self.everywhere)

    def nearest(self, alpha: float) -> list[Member]:
        """CQL's members with the alpha closest to this one."""
        own = self.of("CQL")
        if not own:
            return []
        closest = min((member.alpha for member in own), key=lambda other: abs(other - alpha))
        return self.of("CQL", closest)

    @property
    def compared(self) -> dict[str, list[Member]]:
        """The essay's three algorithms by setting: BC, DQN, and CQL with the alpha closest to 0.5.

        Without those that no run has.
        """
        groups = (self.of("BC"), self.of("DQN"), self.nearest(0.5))
        return {members[0].setting: members for members in groups if members}

    @property
    def settings(self) -> list[str]:
        """The settings of the grid: BC, DQN, then CQL by alpha."""
        return list(dict.fromkeys(member.setting for member in self.members))


def read_experiment(folders: Sequence[str | Path]) -> Experiment:
    """Reads finished runs and sorts their members; shares of a sweep join by themselves.

    The data of the first usable run is that of the grid, and its settings are what variations are
    told by.

    Args:
        folders: Folders of runs, `runs/<name>/version_N`.

    Returns:
        The experiment. A run that is missing, unfinished, or made in another way than those before
        is in `problems`.

    Raises:
        InputError: No run is usable.
    """
    problems: list[str] = []
    found: list[Member] = []
    used: list[Path] = []
    data: dict[str, OfflineDataModule] = {}
    for folder in dict.fromkeys(Path(folder).resolve() for folder in folders):
        try:
            run = read_run(folder)
            run.data.require_mdp("the report")
            run = Run(folder, data.setdefault(run.data.content_hash, run.data))
            try:
                members = _members(run)
            except InputError:
                raise
            except Exception as error:  # in a checkpoint there can be anything
                raise InputError(
                    f"its checkpoint's entries do not belong together ({type(error).__name__}: "
                    f"{error})"
                ) from error
            for member in members:
                if np.isnan(member.metrics["survival_exact"]).any():
                    problems.append(f"{_label(member)} is left out: its network has diverged")
                else:
                    found.append(member)
            used.append(folder)
        except InputError as error:
            problems.append(f"{_short(folder)} is left out: {error}".replace(f"{folder} ", "it "))
    if not found:
        raise InputError("no run can be used:\n" + "\n".join(f"  {text}" for text in problems))
    mdp = found[0].data.require_mdp("the report")
    experiment = Experiment(mdp, found[0].data, problems=problems, folders=used)
    _sort(found, experiment)
    return experiment


def _members(run: Run) -> list[Member]:
    path = run.folder / FOLDER / LAST
    checkpoint = read_checkpoint(path)
    about, settings = checkpoint["sepsis_rl"], checkpoint["hyper_parameters"]
    trained_on = checkpoint.get("OfflineDataModule", {}).get("content_hash")
    if trained_on != run.data.content_hash:
        raise InputError("its checkpoint was trained on other data than its config.yaml names")
    step = int(checkpoint["global_step"])
    result = _result(run.folder)
    if result.get("step") != step:
        raise InputError(
            f"it is unfinished, at step {step:,}; `lightning fit --config "
            f"{_short(run.folder)}/config.yaml --ckpt_path last` ends it"
        )
    if (strategy := result["inadmissible_actions"]) != "mean":
        raise InputError(f"inadmissible actions {strategy} there; the report's have their mean")
    if settings.get("sampled"):
        raise InputError("its policy samples its actions, and the report's figures do not")
    if "callbacks" not in checkpoint:
        raise InputError("its checkpoint holds weights alone, without the policies it evaluated")
    story = checkpoint["callbacks"]["PolicyEvaluation"]
    policies = story.get("policies", {})
    steps = [entry["step"] for entry in story["history"]]
    if list(policies) != steps:
        raise InputError("it was made by an older version, without the policies it evaluated")
    members = []
    for index, (name, own) in enumerate(zip(about["names"], about["members"], strict=True)):
        described = {**{key: settings.get(key) for key in _COMPARED}, "alpha": math.nan, **own}
        described["hidden_dims"] = tuple(described["hidden_dims"])
        algorithm = about["algorithm"]
        if algorithm == "DQN":
            described["alpha"] = 0.0
        if algorithm == "CQL" and described["alpha"] == 0:
            algorithm = "DQN"
        rows = [entry["members"][index] for entry in story["history"]]
        members.append(
            Member(
                algorithm=algorithm,
                settings=described,
                data=run.data,
                run=run.folder,
                index=index,
                name=name,
                steps=np.array(steps, dtype=np.int64),
                metrics={key: np.array([row[key] for row in rows]) for key in rows[0]},
                actions=_actions(torch.stack([policies[at][index] for at in steps]), run.data),
            )
        )
    return members


def _actions(actions: Tensor, data: OfflineDataModule) -> NDArray[np.int64]:
    if actions.is_floating_point() or actions.min() < 0 or actions.max() >= data.n_actions:
        raise InputError("its checkpoint holds actions that there are not")
    return actions.numpy().astype(np.int64)


def _result(folder: Path) -> dict[str, Any]:
    """What a fit ended with; empty if it has not."""
    try:
        result: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["fit"]
    except (OSError, ValueError, KeyError):
        return {}
    return result


def _sort(found: Sequence[Member], experiment: Experiment) -> None:
    first = found[0]
    at: dict[tuple[Any, ...], Member] = {}
    for member in found:
        key = (
            member.algorithm,
            str(member.alpha),
            member.seed,
            member.data.content_hash,
            int(member.steps[-1]),
            *(member.settings[name] for name in _COMPARED),
        )
        if key in at:
            experiment.problems.append(
                f"{_label(member)} is left out: {_short(at[key].run)} holds the same member"
            )
            continue
        at[key] = member
        base = next(other for other in found if _family(other) == _family(member))
        differs = _differences(member, base, first)
        same_steps = member.steps[-1] == base.steps[-1]
        if not differs and same_steps:
            experiment.members.append(member)
        elif differs == ["data.seed"] and member.steps[-1] in base.steps:
            experiment.elsewhere.append(member)
        elif len(differs) == 1 and differs[0] in ("data.episodes", "learning_rate", "network"):
            experiment.variations.setdefault(differs[0], []).append(member)
        else:
            what = ", ".join(
                [*differs, *([] if same_steps else [f"its {member.steps[-1]:,} steps"])]
            )
            experiment.problems.append(
                f"{_label(member)} is left out: it differs from {_short(base.run)} in {what}"
            )
    experiment.members.sort(key=_order)
    experiment.elsewhere.sort(key=lambda m: (m.data.train.provenance.seed or 0, _order(m)))


def _family(member: Member) -> str:
    """CQL and DQN are one; BC has neither target network nor discount."""
    return "BC" if member.algorithm == "BC" else "CQL"


def _order(member: Member) -> tuple[Any, ...]:
    rank = ("BC", "DQN", "CQL").index(member.algorithm)
    return (rank, -1.0 if math.isnan(member.alpha) else member.alpha, member.seed)


def _differences(member: Member, base: Member, first: Member) -> list[str]:
    """In what a member was made in another way."""
    network = ("embedding_dim", "hidden_dims")
    differs = [
        name
        for name in _COMPARED
        if name not in network and member.settings[name] != base.settings[name]
    ]
    if any(member.settings[name] != base.settings[name] for name in network):
        differs.append("network")
    ours, theirs = member.data.train.provenance, first.data.train.provenance
    if member.data.content_hash != first.data.content_hash:
        named = {
            "data.episodes": (ours.episodes, theirs.episodes),
            "data.seed": (ours.seed, theirs.seed),
        }
        other = [name for name, (one, two) in named.items() if one != two]
        simulated = None not in (ours.seed, theirs.seed) and ours.policy == theirs.policy
        differs += other if simulated and other else ["its data"]
    return differs


def _label(member: Member) -> str:
    return f"{_short(member.run)} {member.name}".strip()


def _short(folder: Path) -> str:
    """A run's folder from the folder of all runs on."""
    return str(Path(*folder.parts[-3:]))
