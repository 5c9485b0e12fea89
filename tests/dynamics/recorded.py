"""Small records, by hand and random, and how a slow reader counts them."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from sepsis_rl.dynamics import CountedEpisodes

# state, action, reward, next state, whether the episode ended there
Row = tuple[int, int, float, int, bool]

# Of `chain_mdp`. The last episode breaks off.
CHAIN: list[list[Row]] = [
    [(0, 0, 0.0, 0, False), (0, 0, 0.0, 1, False), (1, 0, 1.0, 3, True)],
    [(0, 1, 0.0, 2, True)],
    [(1, 0, 0.0, 2, True)],
    [(0, 0, 0.0, 0, False)],
]


def counted(episodes: list[list[Row]], n_states: int, n_actions: int) -> CountedEpisodes:
    rows = [(number, *row) for number, episode in enumerate(episodes) for row in episode]
    names = ("episode", "observation", "action", "reward", "next_observation", "terminated")
    return CountedEpisodes(
        **{name: np.array(part) for name, part in zip(names, zip(*rows, strict=True), strict=True)},
        starts=np.array([episode[0][0] for episode in episodes]),
        returns=np.array([sum(row[2] for row in episode) for episode in episodes]),
        n_states=n_states,
        n_actions=n_actions,
    )


@dataclass(frozen=True)
class Tally:
    """One sample, counted row by row."""

    pairs: np.ndarray
    arrivals: np.ndarray  # (n_states, n_actions, n_states), where the episode went on
    reward_sums: np.ndarray
    start: np.ndarray
    mean_return: float


def tally(episodes: list[list[Row]], weights: np.ndarray, n_states: int, n_actions: int) -> Tally:
    pairs, sums = np.zeros((2, n_states, n_actions))
    arrivals, start = np.zeros((n_states, n_actions, n_states)), np.zeros(n_states)
    mean_return = 0.0
    for weight, episode in zip(weights, episodes, strict=True):
        start[episode[0][0]] += weight / weights.sum()
        for s, a, reward, after, terminated in episode:
            pairs[s, a] += weight
            sums[s, a] += weight * reward
            mean_return += weight / weights.sum() * reward
            if not terminated:
                arrivals[s, a, after] += weight
    return Tally(pairs, arrivals, sums, start, mean_return)


@st.composite
def recorded(draw: st.DrawFn) -> tuple[list[list[Row]], np.ndarray, int, int]:
    """Episodes, weights (samples, episodes), and the numbers of states and actions."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_states, n_actions, n_samples, n_episodes = (
        draw(st.integers(1, most)) for most in (5, 4, 3, 6)
    )
    episodes = []
    for _ in range(n_episodes):
        length = int(rng.integers(1, 5))
        states = rng.integers(n_states, size=length + 1).tolist()
        ends = bool(rng.random() < 0.7)
        episodes.append(
            [
                (
                    states[t],
                    int(rng.integers(n_actions)),
                    float(rng.integers(-2, 3)) / 4,
                    states[t + 1],
                    ends and t == length - 1,
                )
                for t in range(length)
            ]
        )
    weights = rng.integers(3, size=(n_samples, n_episodes)).astype(np.float64)
    weights[:, rng.integers(n_episodes)] = 2.0  # no sample is empty
    # An episode may also count for less than one.
    return episodes, weights * draw(st.sampled_from([1.0, 0.25])), n_states, n_actions
