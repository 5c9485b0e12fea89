"""Checkpoint files: where they are, how they are written, and the module in one."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path
from typing import Any, Final

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem
from lightning.fabric.plugins.io import TorchCheckpointIO

from sepsis_rl.algorithms import BC, CQL, DQN, OfflineAlgorithm
from sepsis_rl.algorithms.optimizer import cosine_decay
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write
from sepsis_rl.runs.described import FOLDER, LAST
from sepsis_rl.runs.patterns import WRONG_ENTRY
from sepsis_rl.runs.untrusted import check_optimizer, forget_other_files, read_checkpoint

ALGORITHMS: Final[dict[str, type[OfflineAlgorithm]]] = {"CQL": CQL, "DQN": DQN, "BC": BC}
"""What is trained, by the name that a checkpoint has for it."""

SUFFIX = ".ckpt"


class SafeCheckpointIO(TorchCheckpointIO):
    """Checkpoint files that are whole or not there, and that nothing is ever run from.

    Lightning's own writes into TMPDIR and moves the file; from another file system that is a copy,
    which a kill leaves torn. This one writes beside, syncs and renames.
    """

    def __init__(self) -> None:
        super().__init__()
        self._inspected: tuple[str, dict[str, Any]] | None = None

    def inspect(self, path: str | Path) -> dict[str, Any]:
        """Reads a checkpoint that Lightning is about to load, which then gets the same one.

        Args:
            path: A file, or an address that fsspec opens.

        Returns:
            As `read_checkpoint`; Lightning changes it when it has loaded it.
        """
        checkpoint = read_checkpoint(path)
        forget_other_files(checkpoint, path)
        self._inspected = str(path), checkpoint
        return checkpoint

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
        held, self._inspected = self._inspected, None  # it is large, and Lightning's from now on
        if held is not None and held[0] == str(path):
            return held[1]
        checkpoint = read_checkpoint(path)
        forget_other_files(checkpoint, path)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Removes a checkpoint file; Lightning's own removes what it is told, folders too.

        Args:
            path: A file. A folder, and a file of another name, are left as they are.
        """
        file_system, file = fsspec.core.url_to_fs(str(path))
        if str(file).endswith(SUFFIX) and file_system.isfile(file):
            file_system.rm_file(file)


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
    found = {
        int(match[1]): path
        for path in Path(runs, name).glob(f"version_*/{FOLDER}/{LAST}")
        if (match := re.fullmatch(r"version_(\d+)", path.parents[1].name)) and path.is_file()
    }
    if found:
        return found[max(found)]
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


def load_algorithm(path: str | Path) -> OfflineAlgorithm:
    """Makes the module of a checkpoint, a file or an address, as `rebuild_algorithm` does."""
    return rebuild_algorithm(read_checkpoint(path), path)


def rebuild_algorithm(checkpoint: dict[str, Any], path: str | Path) -> OfflineAlgorithm:
    """Makes the module that a checkpoint holds, as its own settings have it.

    Args:
        checkpoint: As `read_checkpoint` returns it.
        path: The file, for messages.

    Returns:
        The module on the CPU with its weights and its action mask, without a trainer.

    Raises:
        InputError: Its algorithm is not one of this package, or weights and settings differ.
    """
    name, weights = checkpoint["sepsis_rl"]["algorithm"], checkpoint["state_dict"]
    if name not in ALGORITHMS:
        raise InputError(
            f"checkpoint {path} holds {name}; accepted: {', '.join(sorted(ALGORITHMS))}"
        )
    try:
        module = ALGORITHMS[name](**checkpoint["hyper_parameters"])
        n_states, n_actions = weights["allowed_actions"].shape
        module.build(n_states, n_actions)
        module.load_state_dict(weights)
        if list(module.members.settings) != checkpoint["sepsis_rl"]["members"]:
            raise ValueError("they make other members")
    except WRONG_ENTRY as error:
        what = " ".join(str(error).split())  # torch's takes several lines
        raise InputError(
            f"checkpoint {path}: its weights do not fit its settings: {what}"
        ) from error
    return module.requires_grad_(False)


def compare_with(
    checkpoint: dict[str, Any], module: OfflineAlgorithm, sizes: tuple[int, int], path: str | Path
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
    about, algorithm = checkpoint["sepsis_rl"], type(module).__name__
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
    settings = {
        name: (_as_list(checkpoint["hyper_parameters"].get(name)), _as_list(given))
        for name, given in module.hparams.items()
    }
    for name in ("share", "embedding_dim", "hidden_dims"):
        held, given = settings[name]
        if held != given:
            raise InputError(
                f"checkpoint {path} was made with model.{name}={held}, and the config asks for "
                f"{given}"
            )
    rebuilt = rebuild_algorithm(checkpoint, path)
    check_optimizer(checkpoint, rebuilt, path)
    held_sizes = tuple(rebuilt.allowed_actions.shape)
    if held_sizes != sizes:
        raise InputError(
            f"checkpoint {path} holds a network of {held_sizes[0]} states and {held_sizes[1]} "
            f"actions, and the data have {sizes[0]} and {sizes[1]}; use the data it was trained on"
        )
    return [
        f"model.{name}: {held} in the checkpoint, {given} now"
        for name, (held, given) in settings.items()
        if held != given
    ]


def compare_schedules(
    checkpoint: dict[str, Any], module: OfflineAlgorithm, max_steps: int
) -> list[str]:
    """Compares the learning rate that a run ended at with the one it goes on at.

    A cosine schedule over another number of steps is another one from the first step on: a run
    that has ended near 0 would start again at a large rate.

    Args:
        checkpoint: As `read_checkpoint` returns it, with the state of its optimizer.
        module: As the config and the command line made it; settings that differ are named by
            `compare_with`, and explain another rate.
        max_steps: Number of optimizer steps, from the start of the run, that are asked for now.

    Returns:
        A line if it is another schedule; none if it is the same, or no step is left to take.
    """
    settings, step = checkpoint["hyper_parameters"], int(checkpoint["global_step"])
    changed = any(settings.get(n) != module.hparams[n] for n in ("schedule", "learning_rate"))
    if changed or module.schedule != "cosine" or not 0 < step < max_steps:
        return []
    full = max(module.members.values("learning_rate"))
    held = checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]  # of the last step
    if math.isclose(held, full * cosine_decay(step - 1, max_steps), rel_tol=1e-6):
        return []
    now = full * cosine_decay(step, max_steps)
    return [
        f"model.schedule=cosine over trainer.max_steps={max_steps}, not the checkpoint's number of "
        f"steps: the learning rate was {held:.2g} last and is {now:.2g} now"
    ]


def _as_list(value: Any) -> Any:
    """A value as a YAML file would have it, which knows no tuples."""
    return list(value) if isinstance(value, tuple) else value
