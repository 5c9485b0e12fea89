"""Small records with rewards on the way, and estimates computed one episode after the other."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.transitions import COLUMNS, Provenance, Transitions
from sepsis_rl.mdp import FloatArray

N_STATES, N_ACTIONS = 4, 3
Step = tuple[int, int, float, int]  # observation, action, reward, next observation


def records(episodes: Sequence[Sequence[Step]], truncated: Sequence[int] = ()) -> Transitions:
    """Episodes written down by hand; those numbered in `truncated` do not end, they break off."""
    rows = [
        (number, step, *row, last and number not in truncated, last and number in truncated)
        for number, episode in enumerate(episodes)
        for step, row in enumerate(episode)
        for last in [step == len(episode) - 1]
    ]
    columns = {name: np.array(column) for name, *column in zip(COLUMNS, *rows, strict=True)}
    columns["reward"] = columns["reward"].astype(np.float64)
    origin = Provenance("Toy-v0", "1", "somebody", None, len(episodes), "by hand")
    transitions = Transitions(**columns, provenance=origin)
    check_rules(transitions)
    return transitions


@pytest.fixture(scope="session")
def make_records() -> Callable[..., Transitions]:
    return records


@pytest.fixture(scope="session")
def make_random_records() -> Callable[..., Transitions]:
    def make(
        seed: int, n_episodes: int = 40, *, length: int | None = None, truncate: bool = False
    ) -> Transitions:
        """Episodes among states 0 to 2 of 4 states and 3 actions, each step with a reward.

        At least two steps, and on with probability 0.6, unless all have one `length`. State 3 ends
        them; with `truncate` every fifth breaks off instead.
        """
        rng = np.random.default_rng(seed)
        episodes = []
        for number in range(n_episodes):
            steps = length or 1 + int(rng.geometric(0.4))
            states = [*rng.integers(3, size=steps).tolist(), 3]
            if truncate and number % 5 == 0:
                states[-1] = int(rng.integers(3))
            actions = rng.choice(3, p=[0.5, 0.3, 0.2], size=steps).tolist()
            # Quarters, so that sums are exact and float32 holds them.
            rewards = (rng.integers(-2, 5, size=steps) / 4).tolist()
            episodes.append(list(zip(states[:-1], actions, rewards, states[1:], strict=True)))
        return records(episodes, truncated=range(0, n_episodes, 5) if truncate else ())

    return make


@pytest.fixture(scope="session")
def split_rows() -> Callable[[Transitions], list[np.ndarray]]:
    """The rows of each episode, the longest first, else in the order of the records."""

    def split(transitions: Transitions) -> list[np.ndarray]:
        numbers = np.unique(transitions.episode)
        rows = [np.flatnonzero(transitions.episode == number) for number in numbers]
        return sorted(rows, key=len, reverse=True)

    return split


@pytest.fixture(scope="session")
def random_tables() -> Callable[..., FloatArray]:
    def make(seed: int, count: int = 2, states: int = N_STATES, actions: int = N_ACTIONS):
        # Near enough to even that no single weight outweighs the others.
        return np.random.default_rng(seed).dirichlet(np.full(actions, 4.0), size=(count, states))

    return make
