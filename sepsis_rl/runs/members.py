"""One member of a population as a run of its own."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from sepsis_rl.display import shown
from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write, refuse_existing
from sepsis_rl.runs.checkpoints import rebuild_algorithm, run_folder
from sepsis_rl.runs.untrusted import check_optimizer, read_checkpoint


def member_options(name: str) -> list[str]:
    """The options that make a run's config one of a member alone; none for a single run.

    Args:
        name: The member's name, such as `alpha=0.5,seed=42`.
    """
    settings = [*name.split(","), "share=null"] if name else []
    return [f"--model.{setting}" for setting in settings]


def commands_for(exported: str | Path, ckpt_path: str | Path, name: str, step: int) -> list[str]:
    """The commands that score an exported member and go on with it.

    Args:
        exported: Its checkpoint.
        ckpt_path: Where it was taken from.
        name: Its name there.
        step: Optimizer steps it has taken; it goes on for as many.

    Returns:
        Two lines; none where the run's config is not beside the checkpoint.
    """
    folder = run_folder(ckpt_path)
    if folder is None or not (folder / "config.yaml").is_file():
        return []
    config = OmegaConf.load(folder / "config.yaml")
    logger = OmegaConf.select(config, "trainer.logger", throw_on_resolution_failure=False)
    named = isinstance(logger, DictConfig) and "name" in (logger.get("init_args") or {})
    # Under a name of its own, or `--ckpt_path last` of the population would find it.
    own = [f"--trainer.logger.init_args.name={Path(exported).stem}"] if named else []
    words = ["--config", str(shown(folder / "config.yaml")), *member_options(name)]
    words += ["--ckpt_path", str(exported)]
    return [
        shlex.join(["lightning", "validate", *words]),
        shlex.join(["lightning", "fit", *words, f"--trainer.max_steps={2 * step}", *own]),
    ]


def export_member(ckpt_path: str | Path, member: int, output: str | Path) -> tuple[str, int]:
    """Takes one member out of a population as an ordinary single-run checkpoint.

    It can be resumed, scored and exported with the single-run config and that member's settings.

    Args:
        ckpt_path: Checkpoint with several members.
        member: Member to take out, counted from 0.
        output: Checkpoint to write, a file that is not there yet.

    Returns:
        The member's name, and the optimizer steps that it has taken.

    Raises:
        InputError: There is no such member, the destination exists, or the checkpoint's entries
            do not belong together.
    """
    checkpoint = read_checkpoint(ckpt_path)
    about = checkpoint["sepsis_rl"]
    if not 0 <= member < len(about["members"]):
        raise InputError(
            f"--member {member}: {ckpt_path} has {len(about['members'])} member(s), "
            f"0 to {len(about['members']) - 1}"
        )
    refuse_existing(output)
    module = rebuild_algorithm(checkpoint, ckpt_path)
    check_optimizer(checkpoint, module, ckpt_path)
    one = slice(member, member + 1)
    weights = checkpoint["state_dict"]
    for name, _ in module.named_parameters():  # the mask is all members'
        weights[name] = weights[name][one].clone()
    for optimizer in checkpoint.get("optimizer_states", []):  # a file may hold weights alone
        for state in optimizer["state"].values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name][one].clone()
    settings, name = about["members"][member], about["names"][member]
    checkpoint["hyper_parameters"].update(settings, share=None)
    about.update(members=[settings], names=[""])
    # What callbacks remember is the population's story, not the member's.
    evaluation = checkpoint.pop("callbacks", {}).get("PolicyEvaluation")
    checkpoint["callbacks"] = {}
    if evaluation:
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
    return str(name), int(checkpoint["global_step"])
