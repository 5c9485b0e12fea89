"""Finished runs put together, and the essay's protocol on them."""

import pytest

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy, random_policy
from sepsis_rl.report.experiment import read_experiment
from sepsis_rl.report.protocol import carry_out


@pytest.fixture(scope="session")
def experiment(finished_runs):
    """BC, DQN and three alphas of CQL, of 10 steps. Not to be changed."""
    runs = finished_runs / "runs"
    return read_experiment([runs / name / "version_0" for name in ("bc", "dqn", "cql", "sweep")])


@pytest.fixture(scope="session")
def protocol(experiment):
    """Of three tries."""
    return carry_out(experiment, tries=3)


@pytest.fixture(scope="session")
def baselines(mdp):
    """Exact survival."""
    makers = {"random": random_policy, "clinician": clinician_policy, "optimum": optimal_policy}
    return {
        name: evaluate(true_dynamics(mdp), make(mdp).probabilities).survival
        for name, make in makers.items()
    }
