"""How policies are judged by recorded episodes."""

from __future__ import annotations

from dataclasses import dataclass

from sepsis_rl.errors import InputError


@dataclass(frozen=True)
class OffPolicyOptions:
    """What off-policy estimates depend on, apart from the policies and the episodes.

    Args:
        epsilon: A deterministic policy is replaced by (1 - epsilon) * policy + epsilon * recorded
            decisions: few episodes follow one to the end. Its value moves too, by about epsilon
            times its distance from the recorded decisions'.
        clip: Largest cumulative importance ratio; null for none.
        resamples: Number of bootstrap resamples behind an interval; 0 for no intervals.
        seed: Seed of the resamples.

    Raises:
        InputError: A value is out of range.
    """

    epsilon: float = 0.01
    clip: float | None = None
    resamples: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name, accepted, holds in (
            ("epsilon", "a number from 0 to 1", 0 <= self.epsilon <= 1),
            ("clip", "a number above 0, or null", self.clip is None or self.clip > 0),
            ("resamples", "an integer from 0 upward", self.resamples >= 0),
            ("seed", "an integer from 0 upward", self.seed >= 0),
        ):
            if not holds:
                raise InputError(f"{name}={getattr(self, name)} cannot be used: give {accepted}")
