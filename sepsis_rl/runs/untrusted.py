"""Reading a checkpoint that anybody may have written, and every guard against what may be in it.

Nothing in a file is ever run, and an entry that this project would not have written is refused by
name before anything uses it.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

import fsspec
import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from packaging.version import Version
from torch import Tensor

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.algorithms.base import CHECKPOINT_FORMAT
from sepsis_rl.errors import InputError
from sepsis_rl.runs.patterns import (
    WRONG_ENTRY,
    exactly,
    is_count,
    is_number,
    is_plain,
    mismatch,
    pattern_of,
)

# What zipfile and torch's reader raise on bytes that are no checkpoint, found by trying many.
_UNREADABLE = (
    *WRONG_ENTRY,
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    EOFError,
    AssertionError,
)
_OLDEST_LIGHTNING: Final = Version("2.0.0")  # it rewrites the entries of older ones


# A pattern, see `mismatch`. A file may hold weights alone, hence the question marks.
_CHECKPOINT: Final[dict[Any, Any]] = {
    "sepsis_rl": {
        "format": int,
        "algorithm": str,
        "members": [{str: is_number}],
        "names": [lambda name: name.isprintable()],
        str: object,
    },
    "state_dict": dict,
    "hyper_parameters": {str: is_plain},
    "global_step": is_count,
    "pytorch-lightning_version": lambda version: Version(version) >= _OLDEST_LIGHTNING,
    "OfflineDataModule?": {"content_hash": str},
    "callbacks?": {
        "PolicyEvaluation?": {
            "history": [{"step": is_count, "members": [{str: is_number}]}],
            # (members, n_states), or (members, n_states, n_actions).
            "policies?": {int: lambda held: isinstance(held, Tensor) and held.ndim in (2, 3)},
        },
        "RecordedSettings?": {"settings": {str: is_plain}, "hash": str},
        str: object,
    },
    "loops?": dict,
    "optimizer_states?": list,
    "lr_schedulers?": list,
    str: object,
}


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
        with fsspec.open(str(path), "rb") as opened:
            # A server may send files from their beginning only.
            file = io.BytesIO(opened.read()) if "://" in str(path) else opened
            _refuse_damaged(file)
            file.seek(0)
            checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"checkpoint {path}: there is no such file") from error
    except ImportError as error:  # a file system whose package is not installed
        raise InputError(f"checkpoint {path} cannot be read: {error}") from error
    except OSError as error:
        raise InputError(f"checkpoint {path} cannot be read: {error.strerror or error}") from error
    except _UNREADABLE as error:
        raise InputError(
            f"checkpoint {path} cannot be read: it is torn or damaged, or holds more than tensors "
            "and plain values and was not loaded for safety"
        ) from error
    if mismatch(checkpoint, {"sepsis_rl": {"format": int, str: object}, str: object}) is not None:
        raise InputError(f"checkpoint {path} was not written by sepsis-rl")
    if (found := checkpoint["sepsis_rl"]["format"]) != CHECKPOINT_FORMAT:
        raise InputError(
            f"checkpoint {path} has format {found}; this version reads {CHECKPOINT_FORMAT}"
        )
    _require(checkpoint, _CHECKPOINT, path)
    members = len(checkpoint["sepsis_rl"]["members"])
    evaluated = checkpoint.get("callbacks", {}).get("PolicyEvaluation", {"history": []})
    tables = evaluated.get("policies", {}).values()
    by_member = [checkpoint["sepsis_rl"]["names"], *(e["members"] for e in evaluated["history"])]
    if (
        not all(len(part) == members > 0 for part in (*by_member, *tables))
        or len({tuple(row) for rows in by_member[1:] for row in rows}) > 1  # not the same figures
        or "_instantiator" in checkpoint["hyper_parameters"]
    ):
        raise InputError(f"checkpoint {path} cannot be used: its entries do not belong together")
    return checkpoint


def _refuse_damaged(file: IO[bytes]) -> None:
    """Checks the sums of an archive, which torch's reader leaves out: a flipped bit is a weight."""
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise zipfile.BadZipFile("torch compresses nothing")  # and a small file stays small
        if archive.testzip() is not None:
            raise zipfile.BadZipFile("an entry is not what was written")


def _require(checkpoint: dict[str, Any], pattern: dict[Any, Any], path: str | Path) -> None:
    place = mismatch(checkpoint, pattern)
    if place is not None:
        raise InputError(
            f"checkpoint {path} cannot be used: its entry '{place.lstrip('.')}' is missing or not "
            "what this program writes"
        )


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
    parameters = list(module.q_network.parameters())
    (ours,) = module.configure_optimizers().param_groups
    group: dict[str, Any] = {name: exactly(value) for name, value in ours.items()}
    group["lr"] = is_number  # set when a fit starts
    group["params"] = exactly(list(range(len(parameters))))
    state = {
        place: {
            "step": _is_moment(torch.Size()),
            "exp_avg": _is_moment(parameter.shape),
            "exp_avg_sq": _is_moment(parameter.shape),
        }
        for place, parameter in enumerate(parameters)
    }
    pattern = ({"param_groups": (group,), "state": state},)
    if mismatch(checkpoint, {"optimizer_states?": pattern, str: object}) is not None:
        raise InputError(f"checkpoint {path}: its optimizer does not fit its weights")


def _is_moment(shape: torch.Size) -> Callable[[Any], bool]:
    return lambda held: (
        held.shape == shape
        and held.is_floating_point()
        and held.is_contiguous()
        and held.device.type == "cpu"
    )


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
    written = pattern_of({name: getattr(trainer, name).state_dict() for name in loops})
    optimization = written["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
    optimization["optimizer"]["step"]["total"]["completed"] = exactly(checkpoint["global_step"])
    maybe = "" if "optimizer_states" in checkpoint else "?"
    precision = trainer.precision_plugin
    state = pattern_of(precision.state_dict())
    own = {f"loops{maybe}": written, f"lr_schedulers{maybe}": list}
    own |= {f"{type(precision).__qualname__}?": state, "native_amp_scaling_state?": state}
    _require(checkpoint, {**own, str: object}, path)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        key = callback.state_key
        state = checkpoint.get("callbacks", {}).get(key)
        checked = f"{key}?" in _CHECKPOINT["callbacks?"] or isinstance(callback, ModelCheckpoint)
        if checked or not state:
            continue
        own = pattern_of(callback.state_dict(), loose=True)
        _require(checkpoint, {"callbacks": {key: own, str: object}, str: object}, path)
        try:  # as Lightning will once more
            callback.load_state_dict(copy.deepcopy(state))
        except WRONG_ENTRY as error:
            raise InputError(
                f"checkpoint {path} cannot be used: its entry 'callbacks.{key}' is not what that "
                f"callback writes ({type(error).__name__}: {error})"
            ) from error


_FILES: Final = ("best_model_path", "kth_best_model_path", "last_model_path")
_REPLACED: Final = re.compile(r"(step=\d+[^/]*|/last)\.ckpt$")
"""Names of files that a run replaces; others beside them are somebody's own."""
_SCORES: Final = ("best_model_score", "current_score", "kth_value")


def forget_other_files(checkpoint: dict[str, Any], path: str | Path) -> None:
    """Takes out what Lightning would delete later, where it lies in another folder.

    A checkpoint names the files that are replaced as the run goes on, and anybody may have
    written it: files of other folders, or of names without their step, are none of the run's.
    Without its state a `ModelCheckpoint` begins anew.

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
            not file or (_folder(file) == folder and _REPLACED.search(file) is not None)
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
