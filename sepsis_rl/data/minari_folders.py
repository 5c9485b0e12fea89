"""Minari data sets, folders that other libraries of offline learning write and read."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np

from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.transitions import Provenance, Transitions
from sepsis_rl.display import NOT_FOR_CLINICAL_USE, progress_bar
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_folder

_PROVENANCE: Final = "sepsis_rl"
"""Where, in Minari's metadata, the provenance and the content hash of transitions stand."""


def import_minari() -> Any:
    """Imports Minari and what its files need.

    Raises:
        InputError: It is not installed.
    """
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError as error:
        raise InputError(
            f"Minari data sets need a package that is not installed ({error.name}): "
            "pip install 'minari[hdf5]>=0.5.3'"
        ) from error
    return minari


def write_minari(data: Transitions, folder: Path, n_states: int, n_actions: int) -> None:
    """Writes a Minari data set, whole or not at all.

    Args:
        data: Episodes that keep the rules; in Minari they are numbered from 0.
        folder: Where to; there must be nothing yet.
        n_states: Number of states.
        n_actions: Number of actions.

    Raises:
        InputError: Minari is not installed.
        OSError: The folder cannot be written.
    """
    minari = import_minari()
    origin = data.provenance
    spec = gymnasium.registry.get(origin.environment_id)
    words = ("", origin.policy, origin.episodes, "episodes", "seed", origin.seed)
    name = re.sub(r"\W+", "-", origin.environment_id + " ".join(map(str, words)))
    with atomic_folder(folder.absolute()) as beside:  # Minari measures no relative one
        storage = minari.dataset.minari_storage.MinariStorage.new(
            beside,
            gymnasium.spaces.Discrete(n_states),
            gymnasium.spaces.Discrete(n_actions),
            env_spec=spec,
        )
        storage.update_metadata(
            {
                "dataset_id": f"sepsis-rl/{name}-v0",
                "minari_version": minari.__version__,
                "algorithm_name": origin.policy,
                "description": f"{data!r}. {NOT_FOR_CLINICAL_USE}",
                "requirements": [f"icu-sepsis=={origin.environment_version}"] if spec else [],
                _PROVENANCE: {**origin.to_dict(), "content_hash": data.content_hash},
            }
        )
        with progress_bar() as bar:
            storage.update_episodes(
                bar.track(_buffers(data), total=data.n_episodes, description="Writing")
            )


def _buffers(data: Transitions) -> Iterator[Any]:
    """The episodes as Minari takes them, with one observation more than there are actions."""
    from minari.data_collector.episode_buffer import EpisodeBuffer

    begins = np.flatnonzero(data.step == 0)
    for begin, end in zip(begins, [*begins[1:], len(data)], strict=True):
        yield EpisodeBuffer(
            observations=np.append(data.observation[begin:end], data.next_observation[end - 1]),
            actions=data.action[begin:end],
            rewards=data.reward[begin:end],
            terminations=data.terminated[begin:end],
            truncations=data.truncated[begin:end],
            infos={},
        )


def read_minari(folder: Path) -> Transitions:
    """Reads a Minari data set of discrete observations and actions, whoever wrote it.

    Args:
        folder: A folder with Minari's `metadata.json`.

    Returns:
        The transitions; one that `write_minari` wrote has its provenance again.

    Raises:
        InputError: Minari is not installed, or the folder cannot be read or breaks a rule.
    """
    minari = import_minari()
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
        # Without them Minari would make the environment that the folder names, and run its code.
        if not all(isinstance(metadata.get(f"{k}_space"), str) for k in ("observation", "action")):
            raise InputError("its metadata.json names no observation_space and action_space")
        storage = minari.dataset.minari_storage.MinariStorage.read(folder)
        for space in (storage.observation_space, storage.action_space):
            if not isinstance(space, gymnasium.spaces.Discrete):
                raise InputError(f"it has a space {space}; states and actions are Discrete")
        noted = dict(metadata.get(_PROVENANCE, {}))
        content_hash = noted.pop("content_hash", None)
        origin = Provenance.from_dict(noted) if noted else _provenance(metadata)
        data = Transitions(**_columns(storage), provenance=origin)
    # What a damaged folder can raise is the business of Minari and HDF5.
    except Exception as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 300)
        raise InputError(f"{folder} cannot be read as a Minari data set: {reason}") from error
    check_rules(data, where=folder)
    if noted and data.content_hash != content_hash:
        raise InputError(f"{folder}: its episodes do not match its content hash; it is damaged")
    return data


def _columns(storage: Any) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    total = storage.total_episodes
    with progress_bar() as bar:
        episodes = storage.get_episodes(range(total))
        for number, episode in enumerate(
            bar.track(episodes, total, description="Reading episodes")
        ):
            n = len(episode["rewards"])
            states = episode["observations"]
            if len(states) != n + 1:
                raise InputError(f"episode {number} has {len(states)} observations for {n} rewards")
            parts.append(
                {
                    "episode": np.full(n, number),
                    "step": np.arange(n),
                    "observation": states[:-1],
                    "action": episode["actions"],
                    "reward": np.asarray(episode["rewards"], dtype=np.float32),
                    "next_observation": states[1:],
                    "terminated": episode["terminations"],
                    "truncated": episode["truncations"],
                }
            )
    if not parts:
        raise InputError("it has no episodes")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _provenance(metadata: Mapping[str, Any]) -> Provenance:
    """What Minari's own metadata say of where the episodes come from."""
    versions = [
        requirement.removeprefix("icu-sepsis==")
        for requirement in metadata.get("requirements", [])
        if requirement.startswith("icu-sepsis==")
    ]
    return Provenance(
        environment_id=json.loads(metadata.get("env_spec", '{"id": "unknown"}'))["id"],
        environment_version="".join(versions) or "unknown",
        policy=metadata.get("algorithm_name", "recorded"),
        seed=None,
        episodes=metadata["total_episodes"],
        source=f"Minari {metadata['dataset_id']}",
    )
