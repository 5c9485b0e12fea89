"""One member of a population as a run of its own."""

from __future__ import annotations

from pathlib import Path

import torch

from sepsis_rl.errors import InputError
from sepsis_rl.files import atomic_write, refuse_existing
from sepsis_rl.runs.checkpoints import rebuild_algorithm
from sepsis_rl.runs.untrusted import check_optimizer, read_checkpoint


def export_member(ckpt_path: str | Path, member: int, output: str | Path) -> None:
    """Takes one member out of a population as an ordinary single-run checkpoint.

    It can be resumed, scored and exported with the single-run config and that member's settings.

    Args:
        ckpt_path: Checkpoint with several members.
        member: Member to take out, counted from 0.
        output: Checkpoint to write, a file that is not there yet.

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
    settings = about["members"][member]
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
