"""Patients treated by policies, in the batched environment and in the real one."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from icu_sepsis.utils.exceptions import InadmissibleActionError

from sepsis_rl.errors import InputError
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy, random_policy
from sepsis_rl.rollouts import roll_out, roll_out_real

RealEnv = Callable[..., gymnasium.Env[Any, Any]]

WAIT = np.array([[1.0, 0.0]] * 5)
TREAT = np.array([[0.0, 1.0]] * 5)
EVEN = np.full((5, 2), 0.5)


@pytest.fixture(autouse=True)
def _real_tables_are_shared(monkeypatch: pytest.MonkeyPatch, make_real_env: RealEnv) -> None:
    monkeypatch.setattr("sepsis_rl.rollouts.make_env", make_real_env)


@pytest.mark.parametrize("make", [clinician_policy, optimal_policy])
def test_rollouts_agree_with_the_real_environment_and_the_exact_value(mdp, make) -> None:
    table = make(mdp).probabilities[None]
    exact = evaluate(mdp, table[0])
    many = roll_out(mdp, table, patients=torch.arange(40_000), seed=3, stage=1)
    few = roll_out_real(table, patients=torch.arange(400), seed=3, stage=1)
    spread = (exact.survival * (1 - exact.survival)) ** 0.5
    length_spread = many.length.double().std().item()
    for rollout, n in ((many, 40_000), (few, 400)):
        survival = rollout.survived.double().mean().item()
        length = rollout.length.double().mean().item()
        assert abs(survival - exact.survival) < 3.5 * spread / n**0.5
        assert abs(length - exact.expected_length) < 3.5 * length_spread / n**0.5


@pytest.mark.parametrize("make", [clinician_policy, random_policy])
def test_rollouts_under_terminate(mdp: TabularMDP, make) -> None:
    table = make(mdp).probabilities[None]
    exact = evaluate(mdp, table[0], strategy="terminate")
    many = roll_out(
        mdp, table, patients=torch.arange(20_000), seed=3, stage=1, strategy="terminate"
    )
    few = roll_out_real(table, patients=torch.arange(300), seed=3, stage=1, strategy="terminate")
    for rollout, n in ((many, 20_000), (few, 300)):
        error = (exact.survival * (1 - exact.survival) / n) ** 0.5
        assert abs(rollout.survived.double().mean().item() - exact.survival) < 3.5 * error


def test_several_policies_at_once_are_each_of_them_alone(mdp: TabularMDP) -> None:
    tables = np.stack([make(mdp).probabilities for make in (clinician_policy, optimal_policy)])
    arguments: dict[str, Any] = {"patients": torch.arange(300), "seed": 1, "stage": 0}
    together = roll_out(mdp, tables, **arguments)
    assert together.survived.shape == together.length.shape == (2, 300)
    assert together.survived.dtype == torch.bool
    assert together.length.dtype == torch.int64
    for i in range(2):
        alone = roll_out(mdp, torch.tensor(tables[i : i + 1]), **arguments)
        assert torch.equal(alone.survived[0], together.survived[i])
        assert torch.equal(alone.length[0], together.length[i])
    assert not torch.equal(together.length[0], together.length[1])


@pytest.mark.parametrize("run", ["batched", "real"])
def test_shares_of_the_patients_meet_the_same_fate(mdp: TabularMDP, run: str) -> None:
    table = clinician_policy(mdp).probabilities[None]

    def roll(patients: torch.Tensor, seed: int = 1, stage: int = 0) -> torch.Tensor:
        if run == "real":
            return roll_out_real(table, patients=patients, seed=seed, stage=stage).length
        return roll_out(mdp, table, patients=patients, seed=seed, stage=stage).length

    whole = roll(torch.arange(60))
    shares = torch.cat([roll(torch.arange(0, 60, 2)), roll(torch.arange(1, 60, 2))], dim=1)
    order = torch.cat([torch.arange(0, 60, 2), torch.arange(1, 60, 2)])
    assert torch.equal(shares, whole[:, order])
    assert not torch.equal(roll(torch.arange(60), stage=1), whole)
    assert not torch.equal(roll(torch.arange(60), seed=2), whole)


def test_policies_on_the_same_patients_correlate(mdp: TabularMDP) -> None:
    tables = np.stack([clinician_policy(mdp).probabilities, optimal_policy(mdp).probabilities])
    survived = roll_out(mdp, tables, patients=torch.arange(5000), seed=1, stage=0).survived
    assert np.corrcoef(survived.double().numpy())[0, 1] > 0.3


@pytest.mark.parametrize(
    ("table", "strategy", "survival", "length"),
    [
        (WAIT, "mean", 0.75, 2.5),
        (TREAT, "mean", 0.4375, 1.0),
        (TREAT, "terminate", 0.375, 1.0),
        (EVEN, "mean", 0.5, 1.5),
        (EVEN, "terminate", 0.4375, 1.5),
    ],
)
def test_chain_by_hand(chain_mdp: TabularMDP, table, strategy, survival, length) -> None:
    n = 50_000
    rollout = roll_out(
        chain_mdp, table[None], patients=torch.arange(n), seed=0, stage=0, strategy=strategy
    )
    error = (survival * (1 - survival) / n) ** 0.5
    assert abs(rollout.survived.double().mean().item() - survival) < 3.5 * error
    lengths = rollout.length.double()
    assert abs(lengths.mean().item() - length) <= 3.5 * lengths.std().item() / n**0.5


def test_deterministic_and_nearly_deterministic_policies_do_the_same(mdp: TabularMDP) -> None:
    sure = optimal_policy(mdp).probabilities
    nearly = (1 - 1e-12) * sure + 1e-12 / mdp.n_actions
    rollout = roll_out(mdp, np.stack([sure, nearly]), patients=torch.arange(500), seed=1, stage=0)
    alone = roll_out(mdp, sure[None], patients=torch.arange(500), seed=1, stage=0)
    assert torch.equal(rollout.length[0], rollout.length[1])
    assert torch.equal(alone.length[0], rollout.length[0])


def test_truncated_patients_did_not_survive(waiting_mdp: TabularMDP) -> None:
    rollout = roll_out(waiting_mdp, WAIT[None], patients=torch.arange(9), seed=0, stage=0)
    assert not rollout.survived.any()
    assert (rollout.length == 7).all()


@pytest.mark.parametrize("shape", [(716, 25), (1, 716, 24), (0, 716, 25)])
def test_wrong_tables_and_patients(mdp: TabularMDP, shape: tuple[int, ...]) -> None:
    run: Callable[..., object]
    for run in (roll_out_real, lambda *a, **k: roll_out(mdp, *a, **k)):
        with pytest.raises(InputError, match=r"accepted: \(policies, 716, 25\)"):
            run(np.ones(shape), patients=torch.arange(3), seed=0, stage=0)
        with pytest.raises(InputError, match=r"patients have shape \(0,\)"):
            run(np.full((1, 716, 25), 0.04), patients=torch.arange(0), seed=0, stage=0)


def test_inadmissible_actions_may_be_refused(mdp: TabularMDP) -> None:
    table = random_policy(mdp).probabilities[None]
    run: Callable[..., object]
    for run in (roll_out_real, lambda *a, **k: roll_out(mdp, *a, **k)):
        with pytest.raises(InadmissibleActionError):
            run(table, patients=torch.arange(5), seed=0, stage=0, strategy="raise_exception")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_plays_the_same_episodes(mdp: TabularMDP) -> None:
    tables = np.stack([clinician_policy(mdp).probabilities, optimal_policy(mdp).probabilities])
    here, there = (
        roll_out(mdp, tables, patients=torch.arange(2000), seed=1, stage=0, device=device)
        for device in ("cpu", "cuda")
    )
    assert there.length.device.type == "cuda"
    assert torch.equal(there.length.cpu(), here.length)
    assert torch.equal(there.survived.cpu(), here.survived)
