"""Checkpoint files: where they are, what is in them, and one member out of many."""

from __future__ import annotations

import io
import pickle
import re
import struct
from pathlib import Path
from typing import Any

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from sepsis_rl.algorithms import BC, CQL, DQN, OfflineAlgorithm
from sepsis_rl.algorithms.base import CHECKPOINT_FORMAT
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write

FOLDER = "checkpoints"
LAST = "last.ckpt"
SUFFIX = ".ckpt"

# What torch's weights-only reader raises on bytes that are no checkpoint, found by trying many.
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
)
_ENTRIES = {"state_dict": dict, "hyper_parameters": dict, "global_step": int, "sepsis_rl": dict}
_IDENTITY = {"format": int, "algorithm": str, "members": list, "names": list}
_REMEMBERED = ("kth_best_model_path", "best_model_path", "last_model_path")
_MAYBE = ("callbacks", "OfflineDataModule")  # dictionaries; weights alone have none


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are whole or not there, and that nothing is ever run from.

    Lightning's own writes into TMPDIR and moves the file; from another file system that is a copy,
    which a kill leaves torn. This one writes beside, syncs and renames.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a checkpoint.

        Args:
            checkpoint: Tensors and primitives.
            path: Where to; an address of a remote file system is left to Lightning.
            storage_options: Not accepted, as in Lightning's own.
        """
        file_system, local = fsspec.core.url_to_fs(str(path))
        if storage_options is not None or not isinstance(file_system, LocalFileSystem):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        for torn in Path(local).parent.glob(f".{Path(local).name}.*.tmp"):
            torn.unlink(missing_ok=True)  # of a process that was killed while it wrote
        content = io.BytesIO()  # torch's writer hides what a full disk says
        torch.save(checkpoint, content)
        with atomic_write(local) as file:
            file.write(content.getbuffer())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Reads a checkpoint with `read_checkpoint`, whatever the caller says.

        Lightning's own keeps what it downloads under the last word of the address, and takes it
        for the next file of that name.
        """
        checkpoint = read_checkpoint(path)
        _forget_other_files(checkpoint, path)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint file; Lightning's own removes what it is told, folders too.

        Args:
            path: A file. A folder, and a file of another name, are left as they are.
        """
        file_system, file = fsspec.core.url_to_fs(str(path))
        if str(file).endswith(SUFFIX) and file_system.isfile(file):
            file_system.rm_file(file)


def _forget_other_files(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Takes out what Lightning would delete later, where it lies in another folder.

    A checkpoint names the files that are replaced as the run goes on, and anybody may have
    written it.
    """
    folder = _folder(path)
    callbacks = checkpoint.get("callbacks", {})
    for key in [key for key in callbacks if str(key).startswith("ModelCheckpoint")]:
        state = callbacks[key]
        try:
            files = [*state.get("best_k_models", {}), *(state.get(name) for name in _REMEMBERED)]
            own = all(_folder(file) == folder for file in files if file)
        except (AttributeError, TypeError, ValueError):
            own = False
        if not own:
            del callbacks[key]


def _folder(file: str | Path) -> str:
    """Where a file lies; of an address, what stands before its last word."""
    return str(file).rpartition("/")[0] if "://" in str(file) else str(Path(file).resolve().parent)


def find_last(runs: str | Path, name: str) -> Path:
    """Finds the newest run's last checkpoint.

    Args:
        runs: Folder of all runs.
        name: Name of the run.

    Returns:
        `<runs>/<name>/version_N/checkpoints/last.ckpt` of the largest N that has one.

    Raises:
        InputError: No run of that name has one.
    """
    versions = {
        int(match[1]): folder
        for folder in Path(runs, name).glob("version_*")
        if (match := re.fullmatch(r"version_(\d+)", folder.name))
    }
    for number in sorted(versions, reverse=True):
        path = versions[number] / FOLDER / LAST
        if path.is_file():
            return path
    raise InputError(
        f"--ckpt_path last: no {LAST} in {Path(runs, name)}/version_*/{FOLDER}/. Give the path of "
        "a checkpoint, another run name (--trainer.logger.init_args.name), or leave --ckpt_path "
        "out to start anew"
    )


def run_folder(checkpoint: str | Path) -> Path | None:
    """The folder of the run that a checkpoint belongs to; None for one at an address."""
    if "://" in str(checkpoint):
        return None
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == FOLDER else folder


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint without ever running what is in it.

    Args:
        path: A file, or an address that fsspec opens.

    Returns:
        Tensors, on the CPU, and primitives.

    Raises:
        InputError: There is no such file, or it is no checkpoint of this project.
    """
    try:
        with fsspec.open(str(path), "rb") as file:
            checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"checkpoint {path}: there is no such file") from error
    except ImportError as error:  # a file system whose package is not installed
        raise InputError(f"checkpoint {path} cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise InputError(
            f"checkpoint {path} cannot be read: it is torn, or holds more than tensors and plain "
            "values and was not loaded for safety"
        ) from error
    if (
        not isinstance(checkpoint, dict)
        or not _has(checkpoint, _ENTRIES)
        or not _has(checkpoint["sepsis_rl"], _IDENTITY)
        or not all(isinstance(checkpoint.get(name, {}), dict) for name in _MAYBE)
        or "_instantiator" in checkpoint["hyper_parameters"]
    ):
        raise InputError(f"checkpoint {path} was not written by sepsis-rl")
    about = checkpoint["sepsis_rl"]
    if about["format"] != CHECKPOINT_FORMAT:
        raise InputError(
            f"checkpoint {path} has format {about['format']}; this version reads "
            f"{CHECKPOINT_FORMAT}"
        )
    return checkpoint


def _has(entries: dict[str, Any], kinds: dict[str, type]) -> bool:
    return all(isinstance(entries.get(name), kind) for name, kind in kinds.items())


def load_algorithm(path: str | Path) -> OfflineAlgorithm:
    """Makes the module that a checkpoint holds, as its own settings have it.

    Args:
        path: A file, or an address that fsspec opens.

    Returns:
        The module on the CPU with its weights, without a trainer.

    Raises:
        InputError: There is no such checkpoint, or its algorithm is not one of this package.
    """
    return _rebuild(read_checkpoint(path), path)


def _rebuild(checkpoint: dict[str, Any], path: str | Path) -> OfflineAlgorithm:
    algorithms = {algorithm.__name__: algorithm for algorithm in (BC, CQL, DQN)}
    name, weights = checkpoint["sepsis_rl"]["algorithm"], checkpoint["state_dict"]
    if name not in algorithms:
        raise InputError(f"checkpoint {path} holds {name}; accepted: {', '.join(algorithms)}")
    try:
        module = algorithms[name](**checkpoint["hyper_parameters"])
        module.build(*_sizes(checkpoint, len(module.hidden_dims)))
        module.load_state_dict(weights)
    except (LookupError, AttributeError, TypeError, RuntimeError, ArithmeticError) as error:
        raise InputError(
            f"checkpoint {path}: its weights do not fit its settings: {error}"
        ) from error
    return module.requires_grad_(False)


def compare_with(
    checkpoint: dict[str, Any],
    module: OfflineAlgorithm,
    sizes: tuple[int, int],
    path: str | Path,
) -> list[str]:
    """Compares a checkpoint with the module it is to be loaded into.

    Args:
        checkpoint: As `read_checkpoint` returns it.
        module: As the config and the command line made it.
        sizes: Number of states and actions of the data.
        path: The file, for messages.

    Returns:
        A line for each setting that differs; the module's own is what counts.

    Raises:
        InputError: The checkpoint's weights do not fit: another algorithm, number of members,
            network, or number of states or actions.
    """
    about = checkpoint["sepsis_rl"]
    algorithm = type(module).__name__
    if about["algorithm"] != algorithm:
        raise InputError(
            f"checkpoint {path} holds {about['algorithm']}, and the config asks for {algorithm}; "
            f"use the config of the run that wrote it"
        )
    if len(about["members"]) != len(module.members):
        raise InputError(
            f"checkpoint {path} holds {len(about['members'])} member(s), and the config makes "
            f"{len(module.members)}; use the config of the run that wrote it, or take one member "
            "out with `lightning export`"
        )
    held, given = checkpoint["hyper_parameters"], dict(module.hparams)
    if held.get("share") != given["share"]:
        raise InputError(
            f"checkpoint {path} holds the members of share {held.get('share')}, and the config "
            f"asks for {given['share']}"
        )
    for name in ("embedding_dim", "hidden_dims"):
        if _plain(held.get(name)) != _plain(given[name]):
            raise InputError(
                f"checkpoint {path} holds a network with {name}={_plain(held.get(name))}, and the "
                f"config asks for {_plain(given[name])}"
            )
    _check_optimizer(checkpoint, _rebuild(checkpoint, path), path)
    held_sizes = _sizes(checkpoint, len(held["hidden_dims"]))
    if held_sizes != sizes:
        raise InputError(
            f"checkpoint {path} holds a network of {held_sizes[0]} states and {held_sizes[1]} "
            f"actions, and the data have {sizes[0]} and {sizes[1]}; use the data it was trained on"
        )
    return [
        f"model.{name}: {_plain(held.get(name))} in the checkpoint, {_plain(given[name])} now"
        for name in given
        if _plain(held.get(name)) != _plain(given[name])
    ]


def _check_optimizer(
    checkpoint: dict[str, Any], module: OfflineAlgorithm, path: str | Path
) -> None:
    """Refuses moments of Adam that are not those of the weights, and settings that are not ours.

    Torch takes both as they are: Adam's fused kernel would read past the end of smaller moments,
    and a run would go on with a checkpoint's settings instead of its own.
    """
    if "optimizer_states" not in checkpoint:  # it holds weights alone
        return
    parameters = list(module.q_network.parameters())
    (ours,) = module.configure_optimizers().param_groups
    try:
        (optimizer,) = checkpoint["optimizer_states"]
        (group,) = optimizer["param_groups"]
        places, states = list(range(len(parameters))), optimizer["state"]
        fit = group["params"] == places and sorted(states) == places
        fit = fit and all(
            type(group[name]) is type(value) and group[name] == value
            for name, value in ours.items()
            if name in group and name not in ("params", "lr")  # the rate is set when a fit starts
        )
        fit = fit and all(
            states[place].keys() == {"step", "exp_avg", "exp_avg_sq"}
            and all(
                value.shape == (() if name == "step" else parameters[place].shape)
                and value.is_floating_point()
                and value.is_contiguous()
                and value.device.type == "cpu"
                for name, value in states[place].items()
            )
            for place in places
        )
    except (LookupError, AttributeError, TypeError, ValueError, RuntimeError):
        fit = False
    if not fit:
        raise InputError(f"checkpoint {path}: its optimizer does not fit its weights")


def _sizes(checkpoint: dict[str, Any], depth: int) -> tuple[int, int]:
    """Number of states and actions of a checkpoint's network."""
    weights = checkpoint["state_dict"]
    n_states = weights["q_network.embedding"].shape[1]
    return n_states, weights[f"q_network.biases.{depth}"].shape[-1]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def export_member(source: str | Path, member: int, output: str | Path) -> None:
    """Takes one member out of a population as an ordinary single-run checkpoint.

    It can be resumed, scored and exported with the single-run config and that member's settings.

    Args:
        source: A checkpoint with several members.
        member: Which one, counted from 0.
        output: Destination, a file that is not there yet.

    Raises:
        InputError: There is no such member, or the destination exists.
    """
    checkpoint = read_checkpoint(source)
    about = checkpoint["sepsis_rl"]
    if not 0 <= member < len(about["members"]):
        raise InputError(
            f"--member {member}: {source} has {len(about['members'])} member(s), "
            f"0 to {len(about['members']) - 1}"
        )
    if Path(output).exists():
        raise InputError(f"--output {output} exists already; give another name")
    one = slice(member, member + 1)
    checkpoint["state_dict"] = {
        name: value.clone() if name == "allowed_actions" else value[one].clone()
        for name, value in checkpoint["state_dict"].items()
    }
    for optimizer in checkpoint.get("optimizer_states", []):  # a file may hold weights alone
        for state in optimizer["state"].values():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.ndim > 0:
                    state[name] = value[one].clone()
    settings = about["members"][member]
    checkpoint["hyper_parameters"].update(settings, share=None)
    about.update(members=[settings], names=[""])
    # What callbacks remember is the population's story, not the member's.
    evaluation = checkpoint.pop("callbacks", {}).get("PolicyEvaluation")
    checkpoint["callbacks"] = {}
    if evaluation is not None:
        checkpoint["callbacks"]["PolicyEvaluation"] = {
            "history": [
                {**entry, "members": [entry["members"][member]]} for entry in evaluation["history"]
            ],
            "policies": {
                step: policies[one].clone()
                for step, policies in evaluation.get("policies", {}).items()
            },
        }
    with atomic_write(output) as file:
        torch.save(checkpoint, file)
