"""Which doses policies give: the essay's figures 6 and 7, and the clinician's page."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from reading import numbers

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_mode_policy, clinician_policy
from sepsis_rl.report.figures.actions import (
    STATE,
    action_distribution,
    dose_grids,
    draw_actions,
    q_values,
    sofa_strata,
)
from sepsis_rl.report.figures.patients import (
    SHOWN,
    by_sofa,
    by_sofa_shown,
    disagreements,
    disagreements_shown,
)

SETTINGS = ("BC", "DQN", "CQL α=0.5")


@pytest.fixture(scope="module")
def visits(experiment, mdp):
    """By policy, of its last evaluation."""
    found = {"clinician": evaluate(true_dynamics(mdp), clinician_policy(mdp).probabilities).visits}
    for setting in SETTINGS:
        (member,) = [m for m in experiment.members if m.setting == setting]
        found[setting] = evaluate(true_dynamics(mdp), member.policy.probabilities).visits
    return found


def test_strata_share_out_the_patients(mdp):
    strata = sofa_strata(mdp)
    assert sum(states.astype(int) for states in strata.values()).tolist() == (
        (~mdp.terminal).astype(int).tolist()
    )
    ends = [(mdp.sofa_scores[s].min(), mdp.sofa_scores[s].max()) for s in strata.values()]
    assert ends[0][1] < 5 <= ends[1][0]
    assert ends[1][1] < 8 <= ends[2][0]
    assert ends[2][1] < 11 <= ends[3][0]


def test_equal_seeds_whose_mean_is_off_by_a_rounding_are_drawn():
    share = np.full(25, 0.1)
    rows = {"policy": "CQL α=1", "action": np.arange(25), "iv_fluid_level": 0}
    rows |= {"vasopressor_level": 0, "share_of_decisions": share}
    above = np.nextafter(share, 1)
    assert draw_actions(pd.DataFrame({**rows, "lowest_seed": above, "highest_seed": above})).axes


def test_shares_of_actions(only, experiment, mdp):
    """CQL α=1 has two seeds."""
    exhibit = action_distribution(only("BC", "CQL α=1"))
    rows = pd.DataFrame(exhibit.rows)
    assert (rows["action"] == 5 * rows["iv_fluid_level"] + rows["vasopressor_level"]).all()
    assert rows.groupby("policy").size().to_dict() == {"clinician": 25, "BC": 25, "CQL α=1": 25}
    policies = {
        "clinician": [clinician_policy(mdp)],
        "BC": [member.policy for member in experiment.of("BC")],
        "CQL α=1": [member.policy for member in experiment.of("CQL", 1.0)],
    }
    for name, own in rows.groupby("policy"):
        visits = [
            evaluate(true_dynamics(mdp), policy.probabilities).visits.sum(axis=0)
            for policy in policies[name]
        ]
        shares = np.array([seed / seed.sum() for seed in visits])
        np.testing.assert_allclose(own["share_of_decisions"], shares.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(own["lowest_seed"], shares.min(axis=0), rtol=1e-9)
        np.testing.assert_allclose(own["highest_seed"], shares.max(axis=0), rtol=1e-9)
        of_states = [policy.probabilities[:713].mean(axis=0) for policy in policies[name]]
        np.testing.assert_allclose(own["share_of_states"], np.mean(of_states, axis=0))
        assert len(shares) == 1 or not np.allclose(*shares)
    first = sorted(rows.query("policy == 'BC'").nlargest(3, "share_of_decisions")["action"])
    (bc,) = [part for part in exhibit.text.split("; ") if part.startswith("BC")]
    assert numbers(bc)[:3] == first


def test_dose_grids(experiment, visits, mdp):
    exhibit = dose_grids(experiment)
    strata = {"all decisions": ~mdp.terminal, **sofa_strata(mdp)}
    assert len(exhibit.rows) == 4 * 5 * 25
    for row in exhibit.rows:
        own = visits[row["policy"]][strata[row["stratum"]]]
        action = 5 * row["iv_fluid_level"] + row["vasopressor_level"]
        assert row["share"] == pytest.approx(own[:, action].sum() / own.sum(), abs=1e-12)
    # Vasopressors to the right, fluids upward, where the clinicians' first column is the largest.
    axes = exhibit.figure.axes[0]
    drawn = axes.images[0].get_array()
    assert axes.images[0].origin == "lower"
    expected = [
        100 * row["share"]
        for row in exhibit.rows
        if (row["policy"], row["stratum"]) == ("clinician", "all decisions")
    ]
    assert drawn.ravel().tolist() == pytest.approx(expected)
    assert drawn[:, 0].sum() > 80


def test_q_values(experiment):
    exhibit = q_values(experiment)
    counts = experiment.data.pair_counts
    assert len(exhibit.rows) == 2 * 25
    for row in exhibit.rows:
        (member,) = [m for m in experiment.members if m.setting == row["setting"]]
        q, action = member.scores, row["action"]
        assert row[f"q_of_state_{STATE}"] == q[STATE, action]
        assert row["q_mean_over_states"] == pytest.approx(q[:713, action].mean())
        assert row["q_sd_over_states"] == pytest.approx(q[:713, action].std())
        assert row[f"count_in_state_{STATE}"] == counts[STATE, action]
        assert row["count"] == counts[:713, action].sum()
    q = experiment.of("DQN")[0].scores[:713]
    seen = counts[:713] > 0
    said = numbers(exhibit.text.partition("DQN: ")[2])[:3]
    expected = [q[seen].mean(), q[~seen].mean(), q.std(axis=1).mean()]
    assert said == pytest.approx(expected, rel=0.01)


def test_survival_by_severity(experiment):
    exhibit = by_sofa(experiment)
    assert len(exhibit.rows) == len(by_sofa_shown(exhibit.rows)) == 4 * 5
    found = {(row["stratum"], row["policy"]): row for row in exhibit.rows}
    # FACTS: exact survival by start SOFA.
    for stratum, clinician, optimum in (
        ("SOFA < 5", 0.816, 0.915),
        ("SOFA 5–<8", 0.795, 0.884),
        ("SOFA 8–<11", 0.758, 0.849),
        ("SOFA ≥ 11", 0.685, 0.799),
    ):
        assert found[stratum, "clinician"]["survival"] == pytest.approx(clinician, abs=6e-4)
        assert found[stratum, "optimum"]["survival"] == pytest.approx(optimum, abs=6e-4)
    gains, fluids, vasopressors = exhibit.figure.axes
    assert [text.get_text() for text in gains.texts] == ["↑+10", "↑+9", "↑+9", "↑+11"]
    assert gains.get_ylim()[1] < 8  # the optimum is beyond it
    for axes in (fluids, vasopressors):
        assert axes.get_yticks().tolist() == [0, 1, 2, 3, 4]
        assert axes.get_ylim() == pytest.approx((-0.1, 4.1))
    for policy in ("clinician", *SETTINGS, "optimum"):
        own = [row["share_of_patients"] for row in exhibit.rows if row["policy"] == policy]
        assert sum(own) == pytest.approx(1)


def test_what_is_done_for_a_stratum(experiment, mdp):
    rows = by_sofa(experiment).rows
    (row,) = [r for r in rows if (r["stratum"], r["policy"]) == ("SOFA ≥ 11", "BC")]
    start = np.where((mdp.sofa_scores >= 11) & ~mdp.terminal, mdp.start, 0)
    of_stratum = dataclasses.replace(mdp, start=start / start.sum())
    value = evaluate(true_dynamics(of_stratum), experiment.of("BC")[0].policy.probabilities)
    assert row["survival"] == pytest.approx(value.survival)
    share = value.visits / value.visits.sum()
    fluids, vasopressors = np.divmod(np.arange(25), 5)
    assert row["iv_fluid_level"] == pytest.approx((share @ fluids).sum())
    assert row["vasopressor_level"] == pytest.approx((share @ vasopressors).sum())
    assert row["agreement"] == pytest.approx((share * mdp.clinician).sum())
    counts = experiment.data.pair_counts
    assert row["unsupported"] == pytest.approx(share[counts == 0].sum())
    assert row["share_of_patients"] == pytest.approx(start.sum())
    assert 0 < row["unsupported"] < 1


def test_disagreements(experiment, mdp, visits):
    exhibit = disagreements(experiment)
    (member,) = experiment.of("CQL", 0.5)
    clinicians = clinician_mode_policy(mdp).actions
    own = visits["CQL α=0.5"].sum(axis=1)
    differs = [s for s in range(713) if member.actions[-1][s] != clinicians[s]]
    assert sorted(row["state"] for row in exhibit.rows) == differs
    shares = [row["share_of_visits"] for row in exhibit.rows]
    assert shares == sorted(shares, reverse=True)
    shown = disagreements_shown(exhibit.rows)
    assert len(shown) == min(SHOWN, len(differs))
    q, counts = member.scores, experiment.data.pair_counts
    for row in exhibit.rows:
        state, ours, theirs = row["state"], row["policy_action"], row["clinician_action"]
        assert (ours, theirs) == (member.actions[-1][state], clinicians[state])
        assert row["share_of_visits"] == pytest.approx(own[state] / own.sum())
        assert (row["policy_q"], row["clinician_q"]) == (q[state, ours], q[state, theirs])
        assert (row["policy_count"], row["clinician_count"]) == (
            counts[state, ours],
            counts[state, theirs],
        )
        assert row["sofa"] == mdp.sofa_scores[state]
    first = exhibit.rows[0]
    assert shown[0]["policy"] == mdp.dose_grid.name(first["policy_action"])
    assert shown[0]["Q gap"] == f"{first['policy_q'] - first['clinician_q']:+.3f}"
    said = numbers(exhibit.text)[-3:]  # after alpha and seed
    assert said == [len(differs), pytest.approx(100 * sum(shares), abs=0.51), len(shown)]
