"""Small records with rewards on the way, and estimates computed one episode after the other."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sepsis_rl.data.collection import collect
from sepsis_rl.data.rules import check_rules
from sepsis_rl.data.transitions import COLUMNS, Provenance, Transitions
from sepsis_rl.mdp import FloatArray, TabularMDP
from sepsis_rl.ope import Episodes
from sepsis_rl.policies import Policy

N_STATES, N_ACTIONS = 4, 3
Step = tuple[int, int, float, int]  # observation, action, reward, next observation


def records(episodes: Sequence[Sequence[Step]], truncated: Sequence[int] = ()) -> Transitions:
    """Episodes written down by hand; those numbered in `truncated` do not end, they break off."""
    rows = [
        (
            number,
            step,
            *row[:3],
            row[3],
            last and number not in truncated,
            last and number in truncated,
        )
        for number, episode in enumerate(episodes)
        for step, row in enumerate(episode)
        for last in [step == len(episode) - 1]
    ]
    columns = {
        name: np.array(column)
        for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)
    }
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
    """The rows of each episode, in the order of the records."""

    def split(transitions: Transitions) -> list[np.ndarray]:
        return [
            np.flatnonzero(transitions.episode == number)
            for number in np.unique(transitions.episode)
        ]

    return split


@pytest.fixture(scope="session")
def random_tables() -> Callable[..., FloatArray]:
    def make(seed: int, count: int = 2, states: int = N_STATES, actions: int = N_ACTIONS):
        # Near enough to even that no single weight outweighs the others.
        return np.random.default_rng(seed).dirichlet(np.full(actions, 4.0), size=(count, states))

    return make


END = [[0.5, 0.5]] * 3


@pytest.fixture(scope="session")
def chain_behavior() -> Policy:
    return Policy("behavior", np.array([[0.5, 0.5], [0.6, 0.4], *END]))


@pytest.fixture(scope="session")
def chain_policy() -> Policy:
    """Close to the behavior: mild overlap, an effective sample of more than nine tenths."""
    return Policy("policy", np.array([[0.4, 0.6], [0.75, 0.25], *END]))


@pytest.fixture(scope="session")
def chain_data_sets(
    chain_mdp: TabularMDP, chain_behavior: Policy
) -> Callable[..., list[Transitions]]:
    def make(count: int, n_episodes: int, seed: int = 0) -> list[Transitions]:
        """Independent data sets: one collection, cut into pieces."""
        every = collect(chain_mdp, chain_behavior, episodes=count * n_episodes, seed=seed)
        ends = np.searchsorted(every.episode, np.arange(0, count * n_episodes + 1, n_episodes))
        return [
            Transitions(
                **{name: getattr(every, name)[begin:end] for name in COLUMNS},
                provenance=every.provenance,
            )
            for begin, end in itertools.pairwise(ends)
        ]

    return make


@pytest.fixture(scope="session")
def every_episode() -> Callable[[Episodes], FloatArray]:
    """Counts in which each episode stands once."""
    return lambda episodes: np.ones((1, len(episodes)))
