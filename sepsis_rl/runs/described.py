"""What a run's folder says in plain text: its settings, and the figures that its fit ended with.

Nothing here imports PyTorch, so that a command can refuse at once what it cannot use.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sepsis_rl.errors import InputError

CONFIG: Final = "config.yaml"
FOLDER: Final = "checkpoints"
LAST: Final = "last.ckpt"
METRICS: Final = "metrics.json"

SAMPLED: Final = "its policy samples its actions, of which a checkpoint keeps no record"
NONE: Final = "–"
"""The text of a setting that a run has not."""
NOT_COMPARED: Final = ("trainer.logger.", "data.cache_dir", "checkpoint.dirpath", "ckpt_path")
"""Beginnings of the settings that say where a run writes, and nothing of what it does."""

_OF_SIMULATED: Final = (
    *("policy", "episodes", "seed", "held_out_episodes", "held_out_seed"),
    *("report_episodes", "report_seed"),
)
_ODD: Final = (TypeError, ValueError, RecursionError)  # what files lead to that somebody spoiled
_OF_A_FILE: Final = ("seed", "held_out_seed", "held_out_share", "report_share")


@dataclass(frozen=True, eq=False)
class Description:
    """A finished run by its own words.

    Attributes:
        folder: `runs/<name>/version_N`.
        settings: Of its config, by names such as `model.alpha`, as they stand there.
        data: The settings of `data`.
        result: What `metrics.json` says of the fit.
    """

    folder: Path
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    result: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder, for messages."""
        return short_name(self.folder)

    @property
    def sizes(self) -> tuple[Any, Any] | None:
        """Numbers of states and actions of its own records; None where they are ICU-Sepsis's."""
        sizes = self.data.get("n_states"), self.data.get("n_actions")
        return None if sizes == (None, None) else sizes

    @property
    def strategy(self) -> str | None:
        """What an inadmissible action did in its evaluations; None without an environment."""
        held = self.result.get("inadmissible_actions")
        return None if held is None else str(held)


def short_name(folder: Path) -> str:
    """A run's folder from the folder of all runs on."""
    return str(Path(*folder.parts[-3:]))


def run_labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of `runs/<name>/version_N` that tell runs apart; none for a single one."""
    if len(folders) == 1:
        return [""]
    names = [folder.parent.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    ends = ["/".join(folder.parts[-2:]) for folder in folders]
    return ends if len(set(ends)) == len(ends) else [str(folder) for folder in folders]


def read_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a run's config, of which nothing is run.

    Args:
        folder: `runs/<name>/version_N`.

    Returns:
        All settings as they are written, and those of `data` with what they refer to.

    Raises:
        InputError: It is no run folder, or the config is damaged.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / FOLDER).is_dir():
        raise InputError(
            f"{folder} is no run: accepted is a folder with {CONFIG} and {FOLDER}/, such as "
            "runs/cql/version_0"
        )
    try:
        config: Any = OmegaConf.load(path)
        data: Any = OmegaConf.to_container(config.data, resolve=True)
        settings: Any = OmegaConf.to_container(config)
        if not isinstance(data, dict):
            raise TypeError("they are no settings by name")
    except (OmegaConfBaseException, YAMLError, AttributeError, *_ODD) as error:
        raise InputError(f"{path}: its settings of `data` cannot be used: {error}") from error
    return settings, data


def describe(folder: str | Path) -> Description:
    """Reads what the folder of a finished run says.

    Args:
        folder: `runs/<name>/version_N`.

    Raises:
        InputError: It is no run folder, the run is unfinished, or a file is damaged.
    """
    folder = Path(folder).resolve()
    settings, data = read_config(folder)
    return Description(folder, dict(_flat(settings)), data, read_result(folder))


def read_result(folder: Path) -> dict[str, Any]:
    """What `metrics.json` says of a run's fit.

    Raises:
        InputError: There is no such file or no checkpoint, which is how an unfinished run is told,
            or the file is damaged.
    """
    path = folder / METRICS
    if not path.is_file() or not (folder / FOLDER / LAST).is_file():
        raise InputError(unfinished(folder))
    try:
        content = json.loads(path.read_text())
    except _ODD as error:
        raise InputError(f"{path} is damaged: {error}") from error
    result = content.get("fit", {}) if isinstance(content, dict) else None
    if not isinstance(result, dict):
        raise InputError(f"{path} is damaged: it does not hold figures by name")
    if not isinstance(result.get("step"), int):
        raise InputError(unfinished(folder))
    return result


def unfinished(folder: Path, step: int | None = None) -> str:
    """Says that a run is unfinished, where it is if that is known, and what ends it."""
    at = "" if step is None else f", at step {step:,}"
    return (
        f"it is unfinished{at}; `lightning fit --config {short_name(folder)}/{CONFIG} "
        "--ckpt_path last` ends it"
    )


def data_differences(one: Description, two: Description) -> list[str]:
    """In what the records of two runs differ, as far as their folders tell.

    A setting that one of them leaves to its default is not held against the other.

    Returns:
        A phrase for each, such as `data.seed (42 and 5)`; none where they seem to be the same.
    """
    if one.sizes != two.sizes:
        sizes = " and ".join(_of_states(own) for own in (one, two))
        return [f"states and actions ({sizes})"]
    from_file = [own.data.get("path") is not None for own in (one, two)]
    names = _OF_A_FILE if all(from_file) else ("path",) if any(from_file) else _OF_SIMULATED
    pairs = {f"data.{name}": (one.data.get(name), two.data.get(name)) for name in names}
    hashes = _report_hash(one), _report_hash(two)
    if all(from_file) and None in hashes:  # else they tell, wherever the file was
        first, second = (Path(str(own.data["path"])).resolve() for own in (one, two))
        pairs["data.path"] = first, second
    found = [
        f"{name} ({first} and {second})"
        for name, (first, second) in pairs.items()
        if first != second and (name == "data.path" or None not in (first, second))
    ]
    if not found and None not in hashes and hashes[0] != hashes[1]:
        found = [f"the report's episodes (content hash {hashes[0]:.12} and {hashes[1]:.12})"]
    return found


def setting_differences(runs: Sequence[Description]) -> dict[str, list[str]]:
    """The settings that differ between runs that have them.

    What an algorithm alone has is left out: it follows from `model`.

    Returns:
        By a setting's name its text in each run, `NONE` where a run has none.
    """
    names = dict.fromkeys(name for run in runs for name in run.settings)
    texts = {name: [_text(run.settings.get(name, ...)) for run in runs] for name in names}
    return {
        name: own
        for name, own in texts.items()
        if len({*own} - {NONE}) > 1 and not name.startswith(NOT_COMPARED)
    }


def _flat(settings: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings by the names that the command line has for them."""
    if not isinstance(settings, dict) or not settings:
        return [(prefix, settings)]
    found = []
    for name, value in settings.items():
        if name == "class_path":
            found.append((prefix, str(value).rpartition(".")[2]))
        else:
            below = prefix if name == "init_args" else f"{prefix}.{name}".lstrip(".")
            found += _flat(value, below)
    return found


def _text(value: Any) -> str:
    if value is ...:
        return NONE
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _of_states(run: Description) -> str:
    return "ICU-Sepsis's" if run.sizes is None else "{} × {}".format(*run.sizes)


def _report_hash(run: Description) -> str | None:
    off_policy = run.result.get("off_policy")
    held = off_policy.get("content_hash") if isinstance(off_policy, dict) else None
    return held if isinstance(held, str) else None
