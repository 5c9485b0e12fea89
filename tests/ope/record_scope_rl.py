"""Records what SCOPE-RL says of a few made-up episodes, for `test_scope_rl.py`.

It pins numpy and gymnasium where this project needs others, so it has an environment of its own:

    python -m venv /tmp/scope
    /tmp/scope/bin/pip install scope-rl==0.2.1 torch==2.13.0
    /tmp/scope/bin/python tests/ope/record_scope_rl.py
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scope_rl.ope import discrete

RECORD = Path(__file__).parent / "data" / "scope_rl.json"
EPISODES, LENGTH, N_STATES, N_ACTIONS = 30, 4, 4, 3  # it knows episodes of one length alone
ESTIMATORS = {
    "is": discrete.TrajectoryWiseImportanceSampling,
    "wis": discrete.SelfNormalizedTIS,
    "pdis": discrete.PerDecisionImportanceSampling,
    "wpdis": discrete.SelfNormalizedPDIS,
    "dr": discrete.DoublyRobust,
    "wdr": discrete.SelfNormalizedDR,
}


def main() -> None:
    rng = np.random.default_rng(51)
    # State 3 ends an episode.
    state = np.append(rng.integers(3, size=(EPISODES, LENGTH)), np.full((EPISODES, 1), 3), axis=1)
    behavior, policy = rng.dirichlet(np.full(N_ACTIONS, 4.0), size=(2, N_STATES))
    q = rng.normal(size=(N_STATES, N_ACTIONS))
    observation = state[:, :-1].ravel()
    action = np.array([rng.choice(N_ACTIONS, p=behavior[s]) for s in observation])
    reward = rng.integers(-2, 5, size=len(action)) / 4
    given = {
        "step_per_trajectory": LENGTH,
        "action": action,
        "reward": reward,
        "pscore": behavior[observation, action],
        "evaluation_policy_action_dist": policy[observation],
        "state_action_value_prediction": q[observation],
    }
    record = {
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("scope-rl", "numpy", "torch")},
        },
        "length": LENGTH,
        "observation": observation.tolist(),
        "action": action.tolist(),
        "reward": reward.tolist(),
        "next_observation": state[:, 1:].ravel().tolist(),
        "behavior": behavior.tolist(),
        "policy": policy.tolist(),
        "q": q.tolist(),
        "estimates": {
            str(gamma): {
                name: float(estimator().estimate_policy_value(**given, gamma=gamma))
                for name, estimator in ESTIMATORS.items()
            }
            for gamma in (1.0, 0.9)
        },
    }
    lines = (f" {json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
