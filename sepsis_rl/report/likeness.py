"""In what members of runs are alike: which are the same, which differ, and which make a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.runs.history import Member

SHARED_SETTINGS: Final = (
    "gamma",
    "learning_rate",
    "tau",
    "double_q",
    "actions",
    "min_action_count",
    "value_range",
    "td_weights",
    "schedule",
    "batch_size",
    "dynamics",
)
"""Settings that all members of the grid share, beside temperature and the network's shape."""
NETWORK_SHAPE: Final = ("embedding_dim", "hidden_dims")
ESSAY_SETTINGS: Final = {
    "temperature": 1.0,
    "gamma": 0.99,
    "learning_rate": 3e-4,
    "tau": 0.005,
    "double_q": False,
    "actions": "all",
    "value_range": None,
    "schedule": "constant",
    "batch_size": 256,
    "dynamics": "counts",
    "embedding_dim": 256,
    "hidden_dims": (256, 256),
}
"""What the essay has, beside alpha and seed: the defaults of this project's classes."""


def identity(member: Member) -> tuple[Any, ...]:
    """What two members have in common only if they are the same."""
    return (*order(member), member.temperature, *_way_of_training(member))


def _way_of_training(member: Member) -> tuple[Any, ...]:
    """What members of one grid of alphas, temperatures and seeds have in common."""
    settings = (member.settings.get(name) for name in SHARED_SETTINGS + NETWORK_SHAPE)
    return (member.data.content_hash, int(member.steps[-1]), *settings)


def family(member: Member) -> str:
    """CQL and DQN are one; BC has neither target network nor discount."""
    return "BC" if member.algorithm == "BC" else "CQL"


def order(member: Member) -> tuple[int, float, int]:
    """Sorts members by algorithm, alpha and seed."""
    rank = ("BC", "DQN", "CQL").index(member.algorithm)
    return (rank, -1.0 if math.isnan(member.alpha) else member.alpha, member.seed)


def differences(
    member: Member, base: Member, data: OfflineDataModule, temperature: float | None
) -> list[str]:
    """In what a member was made in another way.

    Args:
        member: The member.
        base: One of the grid, of the same family.
        data: That of the grid.
        temperature: That of the grid's conservative term.

    Returns:
        Names of settings.
    """

    def same(name: str) -> bool:
        both = name in member.settings and name in base.settings
        return not both or bool(member.settings[name] == base.settings[name])

    differs = [name for name in SHARED_SETTINGS if not same(name)]
    if member.temperature not in (None, temperature):
        differs.append("temperature")
    if not all(same(name) for name in NETWORK_SHAPE):
        differs.append("network")
    ours, theirs = member.data.train.provenance, data.train.provenance
    if member.data.content_hash != data.content_hash:
        named = {
            "data.episodes": (ours.episodes, theirs.episodes),
            "data.seed": (ours.seed, theirs.seed),
        }
        other = [name for name, (one, two) in named.items() if one != two]
        simulated = None not in (ours.seed, theirs.seed) and ours.policy == theirs.policy
        differs += other if simulated and other else ["its data"]
    return differs


def plain(value: Any) -> str:
    """A setting as a page says it."""
    if isinstance(value, tuple | list):
        return "–".join(map(plain, value))
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def grid_temperature(members: Sequence[Member]) -> float | None:
    """The temperature closest to the essay's, 1, in the first run that has the conservative term.

    Returns:
        None where no run has the term.
    """
    by_run = [(member.run, member.temperature) for member in members]
    with_term = [(run, own) for run, own in by_run if own is not None]
    own = [temperature for run, temperature in with_term if run == with_term[0][0]]
    return min(own, key=lambda temperature: abs(math.log(temperature)), default=None)


def temperature_sweeps(members: Sequence[Member]) -> list[list[Member]]:
    """Members that differ in alpha, temperature and seed alone, where both vary.

    Several runs may make up one grid: a member without the conservative term has no temperature and
    belongs to all.

    Returns:
        Lists of members that span two alphas or more with two temperatures or more each.
    """
    grids: dict[tuple[Any, ...], list[Member]] = {}
    for member in members:
        if family(member) == "CQL":
            grids.setdefault(_way_of_training(member), []).append(member)
    return [own for own in grids.values() if _spans_temperatures(own)]


def _spans_temperatures(members: Sequence[Member]) -> bool:
    temperatures: dict[float, set[float | None]] = {}
    for member in members:
        temperatures.setdefault(member.alpha, set()).add(member.temperature)
    several = [alpha for alpha, own in temperatures.items() if len(own) > 1]
    return bool(several) and len(several) + (0 in temperatures) > 1
