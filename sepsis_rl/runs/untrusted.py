"""Reading a checkpoint that anybody may have written, and every guard against what may be in it.

Nothing in a file is ever run, and an entry that this project would not have written is refused by
name before anything uses it.
"""

from __future__ import annotations

import copy
import pickle
import struct
from pathlib import Path
from typing import Any, Final

import fsspec
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from packaging.version import Version

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.algorithms.base import CHECKPOINT_FORMAT
from sepsis_rl.errors import InputError
from sepsis_rl.runs.structure import has_entries, is_alike, is_plain

# What values of another type or structure lead to where they are used.
WRONG_ENTRY = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# What torch's weights-only reader raises on bytes that are no checkpoint, found by trying many.
_UNREADABLE = (*WRONG_ENTRY, pickle.UnpicklingError, struct.error, EOFError, AssertionError)
_REQUIRED_ENTRIES: Final = {
    "state_dict": dict,
    "hyper_parameters": dict,
    "global_step": int,
    "sepsis_rl": dict,
}
_IDENTITY: Final = {"format": int, "algorithm": str, "members": list, "names": list}
_OPTIONAL_ENTRIES: Final = {  # a file may hold weights alone
    "callbacks": dict,
    "loops": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "OfflineDataModule": dict,
}
_CALLBACKS: Final = ("PolicyEvaluation", "RecordedSettings")
_OLDEST_LIGHTNING: Final = Version("2.0.0")  # it rewrites the entries of older ones
_FILES: Final = ("best_model_path", "kth_best_model_path", "last_model_path")
_SCORES: Final = ("best_model_score", "current_score", "kth_value")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint without ever running what is in it.

    Args:
        path: A file, or an address that fsspec opens.

    Returns:
        Tensors, on the CPU, and primitives. All but the weights, the state of the optimizer and
        what belongs to Lightning have the types and the structure that this project writes.

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
    if not (
        has_entries(checkpoint, _REQUIRED_ENTRIES)
        and has_entries(checkpoint, _OPTIONAL_ENTRIES, optional=True)
        and has_entries(checkpoint["sepsis_rl"], _IDENTITY)
    ):
        raise InputError(f"checkpoint {path} was not written by sepsis-rl")
    if (found := checkpoint["sepsis_rl"]["format"]) != CHECKPOINT_FORMAT:
        raise InputError(
            f"checkpoint {path} has format {found}; this version reads {CHECKPOINT_FORMAT}"
        )
    _check_entries(checkpoint, path)
    return checkpoint


def _check_entries(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Checks what can be checked without a trainer."""
    about, settings = checkpoint["sepsis_rl"], checkpoint["hyper_parameters"]
    names, members = about["names"], about["members"]
    callbacks, data = checkpoint.get("callbacks", {}), checkpoint.get("OfflineDataModule")
    evaluation, recorded = (callbacks.get(name) for name in _CALLBACKS)
    _require(
        {
            "sepsis_rl": is_plain(about)
            and len(names) == len(members) > 0
            and all(isinstance(name, str) for name in names)
            and all(isinstance(member, dict) for member in members),
            "hyper_parameters": is_plain(settings) and "_instantiator" not in settings,
            "global_step": checkpoint["global_step"] >= 0,
            "pytorch-lightning_version": _is_recent(checkpoint.get("pytorch-lightning_version")),
            "callbacks": all(isinstance(name, str) for name in callbacks),
            "PolicyEvaluation": evaluation is None or _is_evaluation(evaluation, len(members)),
            "RecordedSettings": recorded is None
            or (has_entries(recorded, {"settings": dict, "hash": str}) and is_plain(recorded)),
            "OfflineDataModule": data is None or has_entries(data, {"content_hash": str}),
        },
        path,
    )


def _require(rules: dict[str, bool], path: str | Path) -> None:
    for name, holds in rules.items():
        if not holds:
            raise InputError(
                f"checkpoint {path} cannot be used: its entry '{name}' is not what is written there"
            )


def _is_recent(version: Any) -> bool:
    try:
        return Version(version) >= _OLDEST_LIGHTNING
    except WRONG_ENTRY:
        return False


def _is_evaluation(state: Any, members: int) -> bool:
    """Whether it is what `PolicyEvaluation` remembers of so many members."""
    try:
        history, policies = state["history"], state.get("policies", {})
        rows = [row for entry in history for row in entry["members"]]
        return (
            all(has_entries(e, {"step": int, "members": list}) for e in history)
            and all(len(e) == 2 and len(e["members"]) == members for e in history)
            and all(is_plain(row) and row.keys() == rows[0].keys() for row in rows)
            and all(isinstance(figure, int | float) for row in rows for figure in row.values())
            and all(type(step) is int for step in policies)
            # Actions, or probabilities of all of them.
            and all(len(p) == members and p.ndim in (2, 3) for p in policies.values())
        )
    except WRONG_ENTRY:
        return False


# -- what belongs to Lightning and torch ---------------------------------------------------------


def check_optimizer(checkpoint: dict[str, Any], module: OfflineAlgorithm, path: str | Path) -> None:
    """Refuses moments of Adam that are not those of the weights, and settings that are not ours.

    Torch takes both as they are: Adam's fused kernel would read past the end of smaller moments,
    and a run would go on with a checkpoint's settings instead of its own.

    Args:
        checkpoint: As `read_checkpoint` returns it; weights alone have nothing to check.
        module: With networks of the same shapes.
        path: The file, for messages.

    Raises:
        InputError: The optimizer's state does not fit.
    """
    if "optimizer_states" not in checkpoint:
        return
    parameters = list(module.q_network.parameters())
    (ours,) = module.configure_optimizers().param_groups
    try:
        (optimizer,) = checkpoint["optimizer_states"]
        (group,) = optimizer["param_groups"]
        places, states = list(range(len(parameters))), optimizer["state"]
        fit = group["params"] == places and sorted(states) == places
        fit = fit and all(
            type(group[name]) is type(value) and (name == "lr" or group[name] == value)
            for name, value in ours.items()
            if name != "params"  # and the rate is set when a fit starts
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
    except WRONG_ENTRY:
        fit = False
    if not fit:
        raise InputError(f"checkpoint {path}: its optimizer does not fit its weights")


def check_restorable(checkpoint: dict[str, Any], trainer: pl.Trainer, path: str | Path) -> None:
    """Refuses entries that Lightning could not restore, by comparing them with the trainer's own.

    Args:
        checkpoint: As `read_checkpoint` returns it.
        trainer: With its callbacks, before it has started.
        path: The file, for messages.

    Raises:
        InputError: An entry has another structure or other types than this trainer writes.
    """
    loops = ("fit_loop", "validate_loop", "test_loop", "predict_loop")
    precision = trainer.precision_plugin
    written = {
        "loops": {name: getattr(trainer, name).state_dict() for name in loops},
        type(precision).__qualname__: precision.state_dict(),
        "native_amp_scaling_state": precision.state_dict(),
    }
    required = ("loops", "lr_schedulers") if "optimizer_states" in checkpoint else ()
    _require({name: name in checkpoint for name in required}, path)
    alike = {n: n not in checkpoint or is_alike(checkpoint[n], own) for n, own in written.items()}
    _require(alike, path)
    if "loops" in checkpoint:
        optimization = "epoch_loop.automatic_optimization.optim_progress"
        steps = checkpoint["loops"]["fit_loop"][optimization]["optimizer"]["step"]["total"]
        _require({"global_step": checkpoint["global_step"] == steps["completed"]}, path)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if not state or callback.state_key in _CALLBACKS or isinstance(callback, ModelCheckpoint):
            continue  # those are checked without it
        _require({callback.state_key: is_alike(state, callback.state_dict(), loose=True)}, path)
        try:  # as Lightning will once more
            callback.load_state_dict(copy.deepcopy(state))
        except WRONG_ENTRY as error:
            raise InputError(
                f"checkpoint {path} cannot be used: its entry '{callback.state_key}' is not what "
                f"that callback writes ({type(error).__name__}: {error})"
            ) from error


def forget_other_files(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Takes out what Lightning would delete later, where it lies in another folder.

    A checkpoint names the files that are replaced as the run goes on, and anybody may have
    written it. Without its state a `ModelCheckpoint` begins anew.

    Args:
        checkpoint: As `read_checkpoint` returns it; it is changed.
        path: The file; those beside it are its own.
    """
    callbacks = checkpoint.get("callbacks", {})
    for key, state in list(callbacks.items()):
        names_files = isinstance(state, dict) and not state.keys().isdisjoint(
            (*_FILES, "best_k_models")
        )
        if (names_files or key.startswith("ModelCheckpoint")) and not _is_own(state, _folder(path)):
            del callbacks[key]


def _is_own(state: Any, folder: str) -> bool:
    """Whether it is what a `ModelCheckpoint` remembers of files in a folder."""
    try:
        models = state["best_k_models"]
        return all(
            isinstance(file, str) and (not file or _folder(file) == folder)
            for file in (*models, *(state[name] for name in _FILES))
        ) and all(
            score is None or (score.ndim == 0 and score.isreal() and score.device.type == "cpu")
            for score in (*models.values(), *(state[name] for name in _SCORES))
        )
    except WRONG_ENTRY:
        return False


def _folder(file: str | Path) -> str:
    """Where a file lies; of an address, what stands before its last word."""
    return str(file).rpartition("/")[0] if "://" in str(file) else str(Path(file).resolve().parent)
