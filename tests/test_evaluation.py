"""Scores of policies: against exact values, by hand, and shared out over processes."""

import math

import numpy as np
import pytest
import torch

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.errors import InputError
from sepsis_rl.evaluation import Stage, score_policies
from sepsis_rl.planning import value_iteration
from sepsis_rl.policies import (
    Policy,
    clinician_mode_policy,
    clinician_policy,
    optimal_policy,
    random_policy,
)
from sepsis_rl.rollouts import roll_out, roll_out_real

PATIENTS = 4000


def score(mdp, policies, **options):
    everything = np.ones((mdp.n_states, mdp.n_actions), dtype=bool)
    defaults = {"supported": everything, "patients": PATIENTS, "seed": 0, "stage": Stage.VALIDATE}
    return score_policies(mdp, policies, **{**defaults, **options})


@pytest.fixture(scope="module")
def five(mdp):
    """Policies from the worst to the best."""
    plan = value_iteration(true_dynamics(mdp), maximize=False)
    makers = random_policy, clinician_policy, clinician_mode_policy, optimal_policy
    return [Policy("worst", np.eye(mdp.n_actions)[plan.actions]), *(make(mdp) for make in makers)]


# -- against the truth -------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["mean", "terminate"])
def test_rollouts_agree_with_exact_values(mdp, five, strategy):
    scores = score(mdp, five, strategy=strategy)
    exact = scores.survival_exact
    known = {
        "mean": [0.6330, 0.7801, 0.7818, 0.7868, 0.8751],
        "terminate": [None, 0.008, 0.416, None, None],
    }[strategy]
    for value, expected in zip(exact.tolist(), known, strict=True):
        assert expected is None or value == pytest.approx(expected, abs=5e-4)
    error = (exact * (1 - exact) / PATIENTS).sqrt()
    rate = scores.survival_rate
    assert ((rate.estimate - exact).abs() <= 4 * error + 1e-12).all()
    # Lengths have a standard deviation of about their mean.
    gap = (scores.episode_length - scores.length_exact).abs()
    assert (gap <= 4 * scores.length_exact / math.sqrt(PATIENTS)).all()
    if strategy == "mean":
        assert (rate.low < rate.estimate).all()
        assert (rate.estimate < rate.high).all()
        # 95 % intervals: about 1.96 standard errors to each side.
        width = (rate.high - rate.low) / (2 * 1.96 * error)
        torch.testing.assert_close(width, torch.ones_like(width), rtol=0.1, atol=0)


def test_the_real_environment_on_request(mdp, five, make_real_env, monkeypatch):
    monkeypatch.setattr("sepsis_rl.rollouts.make_env", make_real_env)
    scores = score(mdp, five[:1], patients=50, real_environment=True)
    met = {"patients": torch.arange(50), "seed": 0, "stage": Stage.VALIDATE}
    assert scores.episode_length == roll_out_real(five[:1], **met).length.double().mean()
    assert scores.episode_length != roll_out(mdp, five[:1], **met).length.double().mean()


# -- by hand -----------------------------------------------------------------------------------

WAIT = Policy("wait", np.eye(2)[[0, 0, 0, 0, 0]])
TREAT = Policy("treat", np.eye(2)[[1, 1, 0, 0, 0]])
HALF = Policy("half", np.full((5, 2), 0.5))


@pytest.fixture
def chain_scores(chain_mdp):
    # The data has "wait" in both states, and "treat" in state 1 alone.
    supported = np.array([[1, 0], [1, 1], [0, 0], [0, 0], [0, 0]], dtype=bool)
    return score(chain_mdp, [WAIT, TREAT, HALF], supported=supported)


def test_exact_figures_by_hand(chain_scores):
    # Visits of (state 0, state 1): waiting 1.5 and 1, treating 3/4 and 1/4. Choosing at random one
    # stays in 0 with 1/4 and moves on to 1 with 1/4: 1 and 1/2.
    np.testing.assert_allclose(chain_scores.visits.sum((1, 2)), [2.5, 1.0, 1.5], rtol=0, atol=1e-12)
    np.testing.assert_allclose(chain_scores.visits[0, :2], [[1.5, 0], [1, 0]], atol=1e-12)
    for figure, expected in {
        "length_exact": [2.5, 1.0, 1.5],
        # Waiting, everybody reaches state 1. At random: 1/2 treated in 0, half of them survive;
        # in state 1 survival is 3/4 or 1/4.
        "survival_exact": [0.75, 0.75 * 0.5 + 0.25 * 0.25, 0.5],
        # The clinician waits with 0.5 in state 0 and 0.9 in state 1.
        "clinician_agreement": [
            (1.5 * 0.5 + 1 * 0.9) / 2.5,
            0.75 * 0.5 + 0.25 * 0.1,
            0.5,
        ],
        "unsupported_rate": [0.0, 0.75, 0.5 * 1 / 1.5],
        "inadmissible_rate": [0.0, 0.25, 0.5 * 0.5 / 1.5],
    }.items():
        np.testing.assert_allclose(getattr(chain_scores, figure), expected, atol=1e-12)


# -- patients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"stage": Stage.TEST}, {"seed": 1}])
def test_other_stages_and_seeds_meet_other_patients(mdp, five, change):
    first, second = score(mdp, five), score(mdp, five, **change)
    assert not (first.episode_length == second.episode_length).any()
    assert torch.equal(first.survival_exact, second.survival_exact)


# -- pairs -------------------------------------------------------------------------------------


def test_a_difference_is_that_of_the_pairs(mdp, five):
    """Its interval by hand, and narrower than that of independent samples."""
    patients = 2000
    scores = score(mdp, five, patients=patients, reference=five[2])
    rollout = roll_out(mdp, five, patients=torch.arange(patients), seed=0, stage=Stage.VALIDATE)
    survived = rollout.survived.double().numpy()
    for policy in range(5):
        pairs = survived[policy] - survived[2]
        spread = 1.959964 * pairs.std(ddof=1) / math.sqrt(patients)
        estimate, low, high = (float(part[policy]) for part in scores.difference)
        assert estimate == pytest.approx(pairs.mean(), abs=1e-12)
        assert low == pytest.approx(pairs.mean() - spread, abs=1e-9)
        assert high == pytest.approx(pairs.mean() + spread, abs=1e-9)
    assert [float(part[2]) for part in scores.difference] == [0, 0, 0]
    mode = 3
    rates = survived.mean(1)
    independent = math.sqrt(sum(rates[p] * (1 - rates[p]) / patients for p in (2, mode)))
    width = float(scores.difference.high[mode] - scores.difference.low[mode]) / 2 / 1.96
    assert width < 0.95 * independent
    # The truth: 0.8751 - 0.7818.
    assert scores.difference.low[4] < 0.0933 < scores.difference.high[4]


# -- several processes -------------------------------------------------------------------------


@pytest.mark.parametrize("patients", [301, 300, 31])
@pytest.mark.parametrize("world_size", [2, 3])
def test_shares_add_up(mdp, five, patients, world_size):
    """Each patient is met once, whoever meets them."""
    whole = score(mdp, five, patients=patients, reference=five[2])
    shares = [
        score(mdp, five, patients=patients, reference=five[2], rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    sizes = [len(range(rank, patients, world_size)) for rank in range(world_size)]
    assert sum(sizes) == patients

    def joined(figure):
        return sum(n * figure(part) for n, part in zip(sizes, shares, strict=True)) / patients

    for figure in (
        lambda part: part.survival_rate.estimate,
        lambda part: part.episode_length,
        lambda part: part.difference.estimate,
    ):
        torch.testing.assert_close(joined(figure), figure(whole), rtol=0, atol=1e-12)
    for part in shares:
        # From its own patients alone a share is less certain than the whole.
        width = part.survival_rate.high - part.survival_rate.low
        assert (width > whole.survival_rate.high - whole.survival_rate.low).all()
        assert torch.equal(part.survival_exact, whole.survival_exact)
        assert torch.equal(part.clinician_agreement, whole.clinician_agreement)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # torchmetrics, on rank 0 alone
def test_a_process_without_patients_only_adds_nothing(mdp, five):
    share = score(mdp, five, patients=1, rank=1, world_size=2, reference=five[2])
    assert share.survival_rate.estimate.isnan().all()
    assert share.survival_exact.isfinite().all()


# -- refusals ----------------------------------------------------------------------------------


def test_raise_exception_refuses_inadmissible_policies(mdp, five):
    with pytest.raises(InputError, match="inadmissible"):
        score(mdp, five, strategy="raise_exception")
    policies = [Policy("p", mdp.admissible / mdp.admissible.sum(1, keepdims=True))]
    scores = score(mdp, policies, patients=500, strategy="raise_exception")
    assert torch.equal(scores.survival_exact, score(mdp, policies, patients=500).survival_exact)
    assert scores.inadmissible_rate.item() == 0
