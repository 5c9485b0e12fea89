"""`lightning collect`: simulated episodes in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sepsis_rl.data.collection import PolicyName, behavior_policy, collect
from sepsis_rl.data.minari_folders import import_minari, write_minari
from sepsis_rl.display import shown, tell
from sepsis_rl.files import refuse_existing
from sepsis_rl.mdp import load_icu_sepsis


def collect_into(
    output: str,
    episodes: int = 5000,
    seed: int = 42,
    policy: PolicyName = "clinician",
    epsilon: float = 0.1,
    format: Literal["npz", "minari"] = "npz",
) -> None:
    """Simulates episodes.

    Args:
        output: File to write, .npz, or with --format minari the folder.
        episodes: Number of episodes.
        seed: Seed of all draws; the same one gives the same bytes.
        policy: Policy whose decisions are recorded.
        epsilon: Share of random actions of epsilon_clinician.
        format: A file of columns, or the folder of a data set for Minari.
    """
    refuse_existing(output)
    if format == "minari":
        import_minari()
    mdp = load_icu_sepsis()
    data = collect(mdp, behavior_policy(mdp, policy, epsilon=epsilon), episodes=episodes, seed=seed)
    if format == "minari":
        write_minari(data, Path(output), mdp.n_states, mdp.n_actions)
    else:
        data.save(output)
    tell(
        f"{shown(output)}: {data.n_episodes:,} episodes, {len(data):,} transitions, "
        f"{100 * float((data.returns() > 0).mean()):.1f} % survived"
    )
