"""Records in which patients survive or die, and a slow reader's empirical Bayes: loops and dense.

An array `led` (n_states, n_actions, n_states + 2) says how often each decision led to each state,
to survival and to death, in this order.
"""

import numpy as np
import scipy.sparse as sp

from sepsis_rl.dynamics import Counts, Dynamics

GRID = [10 ** (step / 10) for step in range(-80, 1)]


def random_led(rng: np.random.Generator, n_states: int, n_actions: int, most: int) -> np.ndarray:
    """A tenth of the states was never visited, a third of the other pairs never recorded."""
    led = np.zeros((n_states, n_actions, n_states + 2), dtype=int)
    for s in range(n_states):
        of_state = rng.dirichlet(np.full(n_states + 2, 0.3))
        for a in range(n_actions):
            shares = 0.6 * of_state + 0.4 * rng.dirichlet(np.full(n_states + 2, 0.3))
            led[s, a] = rng.multinomial(rng.integers(1, most), shares) * (rng.random() < 2 / 3)
    led[rng.random(n_states) < 0.1] = 0
    led[0, :, n_states:] += 1
    return led


def odd_records() -> dict[str, np.ndarray]:
    """Six states and three actions, in which something is missing or everything is alike."""
    rng = np.random.default_rng(4)
    led = random_led(rng, 6, 3, 20)
    one_episode = np.zeros_like(led)
    one_episode[0, 1, 4] = one_episode[4, 0, 0] = one_episode[0, 2, 6] = 1
    one_action, nobody_dies, everybody_dies = led.copy(), led.copy(), led.copy()
    one_action[:, [0, 2]] = 0
    nobody_dies[..., 6], nobody_dies[..., 7] = led[..., 6:].sum(axis=2), 0
    everybody_dies[..., 7], everybody_dies[..., 6] = led[..., 6:].sum(axis=2), 0
    one_state = np.zeros_like(led)
    one_state[2, :2] = [[0, 0, 4, 0, 0, 0, 1, 0], [0, 0, 2, 0, 0, 0, 0, 3]]
    lost = led.copy()  # most states are never visited, though one leads to them
    lost[2:] = 0
    lost[1, 0, 2:6] = 2
    # Three states in which one dose is given and nobody dies, and three in which doses act.
    sure = np.zeros_like(led)
    sure[:3, 1, :3] = [[7, 11, 13], [17, 3, 10], [1, 9, 20]]
    sure[:3, 1, 6] = [1, 3, 2]
    sure[3:, :, 6:] = [[10, 90], [50, 50], [90, 10]]
    found = [one_episode, one_action, nobody_dies, everybody_dies, one_state, lost, sure]
    names = "one episode, one action, all live, all die, one state, lost states, sure states"
    return dict(zip(names.split(", "), found, strict=True))


def counts_of(led: np.ndarray) -> Counts:
    n_states, n_actions, _ = led.shape
    visits, n_pairs = led.sum(axis=(1, 2)), n_states * n_actions
    # Zeros are stored too, as they are in a sample that leaves episodes out.
    stored = np.tile(np.arange(n_states), n_pairs), np.arange(n_pairs + 1) * n_states
    next_states = led[:, :, :n_states].astype(float).ravel()
    return Counts(
        pairs=led.sum(axis=2).astype(float),
        transitions=sp.csr_array((next_states, *stored), shape=(n_pairs, n_states)),
        reward_sums=led[:, :, n_states].astype(float),
        starts=visits.astype(float),
        return_sums=np.array([0.5]) * visits.sum(),
    )


def sparse_counts(rng: np.random.Generator, n_states: int, n_actions: int, n: int) -> Counts:
    """Of n transitions. Half of them go on, to one of ten states; higher actions save more."""
    state, action = rng.integers(n_states, size=n), rng.integers(n_actions, size=n)
    goes_on = rng.random(n) < 0.5
    survived = ~goes_on & (rng.random(n) < 0.2 + action / (2 * n_actions))
    reached = (state * 7 + rng.integers(10, size=n)) % n_states
    pair, n_pairs = state * n_actions + action, n_states * n_actions
    moves = np.ones(goes_on.sum()), (pair[goes_on], reached[goes_on])
    return Counts(
        pairs=np.bincount(pair, minlength=n_pairs).reshape(n_states, -1).astype(float),
        transitions=sp.csr_array(moves, shape=(n_pairs, n_states)),
        reward_sums=np.bincount(pair, survived, n_pairs).reshape(n_states, -1),
        starts=np.ones(n_states),
        return_sums=np.array([0.5]) * n_states,
    )


def outcomes_of(dynamics: Dynamics) -> np.ndarray:
    """The distributions, survival and death among them."""
    next_states = (dynamics.mixture @ dynamics.rows).toarray()
    survival = dynamics.rewards.reshape(-1, 1)
    death = 1 - next_states.sum(axis=1, keepdims=True) - survival
    return np.hstack([next_states, survival, death]).reshape(*dynamics.rewards.shape, -1)


def slow_state_rows(led: np.ndarray, vectors: np.ndarray | None) -> np.ndarray:
    of_state = led.sum(axis=1)
    n = of_state.sum(axis=1)
    visited = [s for s in range(len(led)) if n[s] > 0]
    near = {}
    if vectors is not None and len(visited) > 1:
        for s in range(len(led)):
            others = [(((vectors[s] - vectors[o]) ** 2).sum(), o) for o in visited if o != s]
            near[s] = sorted(others)[:30]
        scale = np.median([squared for found in near.values() for squared, _ in found])
    rows = np.zeros(of_state.shape)
    for s in range(len(led)):
        borrowed = of_state.sum(axis=0) / n.sum()
        if near:
            weights = [np.exp(-squared / scale) for squared, _ in near[s]]
            shares = [of_state[o] / n[o] for _, o in near[s]]
            borrowed = np.average(shares, axis=0, weights=weights)
        rows[s] = (of_state[s] + 10 * borrowed) / (n[s] + 10)
    return rows


def slow_ratio(led: np.ndarray, chosen: np.ndarray) -> float:
    between, explained = 0.0, 0.0
    for s in range(len(led)):
        actions = np.flatnonzero(chosen[s])
        n = [led[s, a].sum() for a in actions]
        if len(actions) < 2 or sum(n) == len(n):
            continue
        own = [((led[s, a] / led[s, a].sum()) ** 2).sum() for a in actions]
        pooled = led[s, actions].sum(axis=0) / sum(n)
        between += sum(n_a * p for n_a, p in zip(n, own, strict=True)) - sum(n) * (pooled**2).sum()
        within = sum(n_a * (1 - p) for n_a, p in zip(n, own, strict=True)) / (sum(n) - len(n))
        explained += (len(actions) - 1) * within
    return max(between / explained - 1, 0.02) if explained else 0.02


def slow_shown(led: np.ndarray, cohort: np.ndarray) -> np.ndarray:
    """Neighbors by N that fall are pooled until none does (pool adjacent violators)."""
    found: dict[int, list[tuple[float, float]]] = {}
    for s in range(len(led)):
        state = led[s].sum(axis=0)
        many = state.sum()
        drawn = many * (many - 1)
        v = 1 - (state * (state - 1)).sum() / drawn if many > 1 else 0
        for a in range(led.shape[1]):
            n = led[s, a].sum()
            if 0 < n < many and v > 0:
                rest = (state - led[s, a]) / (many - n)
                chance = 1 / n + 1 / (many - n)
                squared = ((led[s, a] / n - rest) ** 2).sum()
                y = (squared - v * chance) / (v / cohort[s, a])
                found.setdefault(n, []).append((y, 1 / (chance * cohort[s, a]) ** 2))
    if not found:
        return np.ones(led.shape[:2])
    blocks = []  # mean, weight, its N
    for n in sorted(found):
        values, weights = zip(*found[n], strict=True)
        blocks.append((np.average(values, weights=weights), sum(weights), [n]))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (y, w, ns), (y_last, w_last, ns_last) = blocks[-2:]
            mean = (y * w + y_last * w_last) / (w + w_last)
            blocks[-2:] = [(mean, w + w_last, ns + ns_last)]
    fitted = {n: min(max(mean, 0.01), 1) for mean, _, ns in blocks for n in ns}
    return np.interp(led.sum(axis=2), sorted(fitted), [fitted[n] for n in sorted(fitted)])


def slow_effects(led, rows, values, features, chosen, cohort) -> np.ndarray:
    """By restricted likelihood (Patterson & Thompson, 1971), with an intercept for each state."""
    m, noise, x, states = [], [], [], []
    for s in range(len(led)):
        actions = np.flatnonzero(chosen[s])
        squares, freedom = 10 * (rows[s] @ values**2 - (rows[s] @ values) ** 2), 10
        means = [led[s, a] @ values / led[s, a].sum() for a in actions]
        for a, mean in zip(actions, means, strict=True):
            squares += led[s, a] @ (values - mean) ** 2
            freedom += led[s, a].sum() - 1
        for a, mean in zip(actions, means, strict=True):
            m.append(mean)
            noise.append(squares / freedom * (1 / led[s, a].sum() + 1 / cohort[s, a]))
            x.append(features[s, a])
            states.append(s)
    m, x = np.array(m), np.array(x)
    intercepts = (np.array(states)[:, None] == np.unique(states)).astype(float)
    best = -np.inf
    for variance in GRID:
        precision = np.linalg.inv(np.diag(noise) + variance * x @ x.T)
        of_states = intercepts.T @ precision @ intercepts
        left = precision - precision @ intercepts @ np.linalg.solve(
            of_states, intercepts.T @ precision
        )
        logs = np.linalg.slogdet(precision)[1] - np.linalg.slogdet(of_states)[1]
        if (evidence := (logs - m @ left @ m) / 2) > best:
            best, coefficients = evidence, variance * x.T @ left @ m
    effects = features @ coefficients
    for s in range(len(led)):
        n = led[s].sum(axis=1) * chosen[s]
        effects[s] -= n @ effects[s] / n.sum() if n.any() else 0.0
    return effects


def slow_mixed(led, rows, values, effects, weights) -> np.ndarray:
    mixed = np.zeros(led.shape)
    for s in range(len(led)):
        mean = rows[s] @ values
        variance = rows[s] @ (values - mean) ** 2
        for a in range(led.shape[1]):
            slope = min(max(effects[s, a] / variance, -0.98 / (1 - mean)), 0.98 / mean)
            prior_row = rows[s] * (1 + slope * (values - mean))
            weight = weights[s, a]
            mixed[s, a] = (led[s, a] + weight * prior_row) / (led[s, a].sum() + weight)
    return mixed


def slow_values(moves: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Of the best there is, of all outcomes."""
    values = np.zeros(len(moves) + 2)
    values[-2] = 1.0
    for _ in range(2000):
        for s in range(len(moves)):
            values[s] = max(moves[s, a] @ values for a in np.flatnonzero(allowed[s]))
    return values


def slow_empirical_bayes(led, admissible, vectors, doses, masked) -> np.ndarray:
    recorded = led.sum(axis=2) > 0
    chosen = recorded & admissible
    rows, ratio = slow_state_rows(led, vectors), slow_ratio(led, chosen)
    cohort = np.maximum(led.sum(axis=2) / ratio, 20)
    weights = cohort / (1 + ratio) / (1 if masked else slow_shown(led, cohort))
    values = slow_values(rows[:, None], np.ones((len(led), 1), dtype=bool))
    first = values[:-2]
    seen = first[recorded.any(axis=1)]
    z = np.clip((first - seen.mean()) / seen.std(), -2.5, 2.5)
    features = np.array([[[*dose, *(dose * score)] for dose in doses] for score in z])
    for _ in range(2):
        effects = slow_effects(led, rows, values, features, chosen, cohort)
        mixed = slow_mixed(led, rows, values, effects, weights)
        values = slow_values(mixed, admissible)
    return mixed
