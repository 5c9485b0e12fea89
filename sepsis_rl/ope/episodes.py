"""Recorded episodes as the estimators read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from sepsis_rl.data.transitions import Transitions
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import FloatArray
from sepsis_rl.policies import Policy

_ELEMENTS_PER_BLOCK: Final = 2**21


class Episodes:
    """Episodes that a policy is judged on, none of which it was trained on.

    Rows are *packed*: step 0 of all episodes, then step 1 of those that have one, and so on, with
    the longest episode first. The rows of a step are then one slice, and the episodes still under
    way are a prefix. Everything per episode stands in that order, longest first.

    Args:
        transitions: The records.
        n_states: Number of states.
        n_actions: Number of actions.
        gamma: Discount of the returns, in (0, 1].
        behavior: Who made the decisions. None estimates it: the share n(s, a) / n(s) of each action
            *in these very episodes*, which has lower variance than the true one (Hanna, Niekum &
            Stone, 2019, "Importance sampling policy evaluation with an estimated behavior policy",
            ICML). One fitted to other episodes gives some decisions a probability of 0 and others
            far too little, and the effective sample falls to 1.

    Attributes:
        behavior: Policy; in states that the episodes never visit an estimated one is uniform.
        observation, action, next_observation: int64 (rows,), packed.
        reward: float64 (rows,), packed.
        terminated: bool (rows,), packed.
        discount: float64 (rows,), gamma to the power of the row's step.
        episode: int64 (rows,), which episode a packed row belongs to.
        lengths: int64 (episodes,), rows of each episode, never increasing.
        returns: float64 (episodes,), discounted.
        starts: int64 (episodes,), first observation of each episode.

    Raises:
        InputError: No rows, a state, action or gamma out of range, or a given behavior policy of
            another shape or under which a recorded decision is impossible.
    """

    def __init__(
        self,
        transitions: Transitions,
        n_states: int,
        n_actions: int,
        *,
        gamma: float = 1.0,
        behavior: Policy | None = None,
    ) -> None:
        if len(transitions) == 0:
            raise InputError("there are no episodes to judge a policy on; accepted: at least one")
        if not 0.0 < gamma <= 1.0:
            raise InputError(f"gamma is {gamma}; accepted: above 0, at most 1")
        for name, limit in (
            ("observation", n_states),
            ("next_observation", n_states),
            ("action", n_actions),
        ):
            column = getattr(transitions, name)
            if column.min() < 0 or column.max() >= limit:
                raise InputError(
                    f"{name} lies between {column.min()} and {column.max()}; accepted: 0 to "
                    f"{limit - 1}"
                )
        self.transitions = transitions
        self.n_states, self.n_actions, self.gamma = n_states, n_actions, gamma
        is_first = np.append(True, transitions.episode[1:] != transitions.episode[:-1])
        index = np.cumsum(is_first) - 1
        lengths = np.bincount(index)
        longest_first = np.argsort(-lengths, kind="stable")
        place = np.empty_like(longest_first)
        place[longest_first] = np.arange(len(lengths))
        step = np.arange(len(index)) - np.flatnonzero(is_first)[index]
        order = np.lexsort((place[index], step))

        self.observation = transitions.observation[order]
        self.action = transitions.action[order]
        self.next_observation = transitions.next_observation[order]
        self.reward = transitions.reward[order].astype(np.float64)
        self.terminated = transitions.terminated[order]
        self.discount = gamma ** step[order].astype(np.float64)
        self.episode = place[index[order]]
        self.lengths = lengths[longest_first]
        self.returns = self.sum_by_episode(self.discount * self.reward)
        self.starts = self.observation[: len(lengths)]
        self.behavior = self._estimated_behavior() if behavior is None else behavior
        self._check_behavior()

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    def __repr__(self) -> str:
        """Size in a line."""
        return f"Episodes({len(self):,} episodes, {len(self.action):,} rows, gamma {self.gamma:g})"

    def steps(self) -> Iterator[slice]:
        """The packed rows of step 0, of step 1, and so on."""
        first = 0
        under_way = np.searchsorted(-self.lengths, -np.arange(self.lengths[0]), side="left")
        for count in under_way.tolist():
            yield slice(first, first + count)
            first += count

    def sum_by_episode(self, values: FloatArray) -> FloatArray:
        """Sums packed rows within each episode, (..., rows) to (..., episodes)."""
        flat = values.reshape(-1, values.shape[-1])
        sums = [np.bincount(self.episode, row, minlength=len(self)) for row in flat]
        result: FloatArray = np.array(sums, dtype=np.float64)
        return result.reshape(*values.shape[:-1], len(self))

    def resamples(self, count: int, seed: int = 0) -> Iterator[FloatArray]:
        """Draws bootstrap samples of whole episodes (Efron, 1979).

        Resample b is a function of (seed, b), so that whatever is computed on the same episodes is
        paired.

        Args:
            count: Number of resamples.
            seed: From 0 upward.

        Yields:
            float64 (resamples, episodes): how often each episode was drawn; a few resamples at a
            time, to bound the memory.
        """
        n = len(self)
        # An estimator may make a row of all pairs, or of all episodes, for each resample.
        block = max(1, _ELEMENTS_PER_BLOCK // max(n, self.n_states * self.n_actions))
        for first in range(0, count, block):
            # numpy's generator, for its speed: hashing every draw would take most of the time.
            draws = (
                np.random.default_rng([seed, resample]).integers(n, size=n)
                for resample in range(first, min(first + block, count))
            )
            yield np.stack([np.bincount(drawn, minlength=n) for drawn in draws]).astype(np.float64)

    def _estimated_behavior(self) -> Policy:
        pair = self.observation * self.n_actions + self.action
        shape = (self.n_states, self.n_actions)
        counts = np.bincount(pair, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
        counts[counts.sum(axis=1) == 0] = 1.0
        return Policy("behavior", counts / counts.sum(axis=1, keepdims=True))

    def _check_behavior(self) -> None:
        table = self.behavior.probabilities
        if table.shape != (self.n_states, self.n_actions):
            raise InputError(
                f"the behavior policy has shape {table.shape}; accepted: "
                f"({self.n_states}, {self.n_actions})"
            )
        impossible = table[self.observation, self.action] == 0
        if impossible.any():
            row = int(np.flatnonzero(impossible)[0])
            raise InputError(
                f"the behavior policy {self.behavior.name!r} cannot have made "
                f"{int(impossible.sum())} of the recorded decisions, first action "
                f"{self.action[row]} in state {self.observation[row]}; accepted: the policy that "
                "made them, or None to estimate it"
            )
