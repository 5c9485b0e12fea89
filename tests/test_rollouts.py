"""Patients treated by policies, in the batched environment and in the real one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from icu_sepsis.utils.exceptions import InadmissibleActionError

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy, clinician_policy, optimal_policy, random_policy
from sepsis_rl.rollouts import roll_out, roll_out_real

RealEnv = Callable[..., gymnasium.Env[Any, Any]]

WAIT = Policy("wait", np.array([[1.0, 0.0]] * 5))
EVEN = Policy("even", np.full((5, 2), 0.5))


@pytest.fixture(autouse=True)
def _real_tables_are_shared(monkeypatch: pytest.MonkeyPatch, make_real_env: RealEnv) -> None:
    monkeypatch.setattr("sepsis_rl.rollouts.make_env", make_real_env)


@pytest.fixture(params=["batched", "real"])
def run(request: pytest.FixtureRequest, mdp: TabularMDP) -> Callable[..., object]:
    return roll_out_real if request.param == "real" else partial(roll_out, mdp)


@pytest.mark.parametrize("make", [clinician_policy, optimal_policy])
def test_rollouts_agree_with_the_real_environment_and_the_exact_value(mdp, make) -> None:
    policy = make(mdp)
    exact = evaluate(true_dynamics(mdp), policy.probabilities)
    many = roll_out(mdp, [policy], patients=torch.arange(40_000), seed=3, stage=1)
    few = roll_out_real([policy], patients=torch.arange(400), seed=3, stage=1)
    spread = (exact.survival * (1 - exact.survival)) ** 0.5
    length_spread = many.length.double().std().item()
    for rollout, n in ((many, 40_000), (few, 400)):
        survival = rollout.survived.double().mean().item()
        length = rollout.length.double().mean().item()
        assert abs(survival - exact.survival) < 3.5 * spread / n**0.5
        assert abs(length - exact.expected_length) < 3.5 * length_spread / n**0.5


def test_courses_follow_the_table_and_change_nothing(chain_mdp: TabularMDP) -> None:
    policies = [clinician_policy(chain_mdp), optimal_policy(chain_mdp)]
    arguments: dict[str, Any] = {"patients": torch.arange(500), "seed": 1, "stage": 0}
    bare = roll_out(chain_mdp, policies, **arguments)
    assert bare.states is bare.actions is None
    full = roll_out(chain_mdp, policies, courses=True, **arguments)
    assert full.states is not None
    assert full.actions is not None
    assert torch.equal(full.survived, bare.survived)
    assert torch.equal(full.length, bare.length)
    steps = int(full.length.max())
    assert full.states.shape == (2, 500, steps + 1)
    assert full.actions.shape == (2, 500, steps)
    assert torch.equal((full.actions >= 0).sum(dim=2), full.length)
    assert torch.equal((full.states >= 0).sum(dim=2), full.length + 1)
    last = full.states.gather(2, full.length[..., None]).squeeze(2)
    assert torch.equal(last == chain_mdp.survival_state, full.survived)
    # Waiting in state 0 leads to 0 or 1, treating there to the end.
    before, after = full.states[:, :, :-1], full.states[:, :, 1:]
    waits, treats = ((before == 0) & (full.actions == action) for action in (0, 1))
    assert set(after[waits].tolist()) == {0, 1}
    assert set(after[treats].tolist()) == {2, 3}
    assert torch.equal(full.states[0, :, 0], full.states[1, :, 0])


def test_several_policies_at_once_are_each_of_them_alone(mdp: TabularMDP) -> None:
    policies = [clinician_policy(mdp), optimal_policy(mdp)]
    arguments: dict[str, Any] = {"patients": torch.arange(300), "seed": 1, "stage": 0}
    together = roll_out(mdp, policies, **arguments)
    assert together.survived.shape == together.length.shape == (2, 300)
    assert together.survived.dtype == torch.bool
    assert together.length.dtype == torch.int64
    for i, policy in enumerate(policies):
        alone = roll_out(mdp, [policy], **arguments)
        assert torch.equal(alone.survived[0], together.survived[i])
        assert torch.equal(alone.length[0], together.length[i])
    assert not torch.equal(together.length[0], together.length[1])


def test_shares_of_the_patients_meet_the_same_fate(run, mdp: TabularMDP) -> None:
    policies = [clinician_policy(mdp)]

    def roll(patients: torch.Tensor, seed: int = 1, stage: int = 0) -> torch.Tensor:
        return run(policies, patients=patients, seed=seed, stage=stage).length

    whole = roll(torch.arange(60))
    shares = torch.cat([roll(torch.arange(0, 60, 2)), roll(torch.arange(1, 60, 2))], dim=1)
    order = torch.cat([torch.arange(0, 60, 2), torch.arange(1, 60, 2)])
    assert torch.equal(shares, whole[:, order])
    assert not torch.equal(roll(torch.arange(60), stage=1), whole)
    assert not torch.equal(roll(torch.arange(60), seed=2), whole)


def test_deterministic_and_nearly_deterministic_policies_do_the_same(mdp: TabularMDP) -> None:
    sure = optimal_policy(mdp)
    nearly = sure.softened(1e-12, random_policy(mdp))
    assert not nearly.is_deterministic
    rollout = roll_out(mdp, [sure, nearly], patients=torch.arange(500), seed=1, stage=0)
    alone = roll_out(mdp, [sure], patients=torch.arange(500), seed=1, stage=0)
    assert torch.equal(rollout.length[0], rollout.length[1])
    assert torch.equal(alone.length[0], rollout.length[0])


def test_truncated_patients_did_not_survive(waiting_mdp: TabularMDP) -> None:
    rollout = roll_out(waiting_mdp, [WAIT], patients=torch.arange(9), seed=0, stage=0)
    assert not rollout.survived.any()
    assert (rollout.length == 7).all()


@pytest.mark.parametrize(
    ("policies", "n_patients", "message"),
    [
        ([Policy("p", np.eye(716, 24)[[0] * 716])], 3, r"\(716, 24\); accepted: \(716, 25\)"),
        ([EVEN], 3, r"\(5, 2\); accepted: \(716, 25\)"),
        ([], 3, "no policies"),
        ([Policy("p", np.full((716, 25), 0.04))], 0, r"patients have shape \(0,\)"),
    ],
)
def test_wrong_policies_and_patients(run, policies, n_patients: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(policies, patients=torch.arange(n_patients), seed=0, stage=0)


def test_inadmissible_actions_may_be_refused(run, mdp: TabularMDP) -> None:
    arguments: dict[str, Any] = {"patients": torch.arange(5), "seed": 0, "stage": 0}
    with pytest.raises(InadmissibleActionError):
        run([random_policy(mdp)], strategy="raise_exception", **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_plays_the_same_episodes(mdp: TabularMDP) -> None:
    policies = [clinician_policy(mdp), optimal_policy(mdp)]
    here, there = (
        roll_out(mdp, policies, patients=torch.arange(2000), seed=1, stage=0, device=device)
        for device in ("cpu", "cuda")
    )
    assert there.length.device.type == "cuda"
    assert torch.equal(there.length.cpu(), here.length)
    assert torch.equal(there.survived.cpu(), here.survived)
