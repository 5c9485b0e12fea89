"""What a page has of every state, against planning and records counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from sepsis_rl.dynamics import count_rows, true_dynamics
from sepsis_rl.explorer import states
from sepsis_rl.explorer.meanings import FEATURES, features_of
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy


def test_where_a_dose_leads_by_hand(monkeypatch):
    monkeypatch.setattr(states, "LARGEST", 2)
    rows = sp.csr_array([[0.2, 0, 0.3, 0.5], [0, 1, 0, 0]])
    assert states.leads_to(rows) == [[1, 3, 500, 2, 300], [0, 1, 1000]]


def test_records_without_an_environment_by_hand():
    """Three decisions in state 1: on to state 2, survived, died; one in state 2, survived."""
    counts = count_rows(
        observation=np.array([1, 2, 1, 1]),
        action=np.array([0, 1, 0, 0]),
        reward=np.array([0.0, 1, 1, 0]),
        next_observation=np.array([2, 2, 1, 1]),
        terminated=np.array([False, True, True, True]),
        is_first=np.array([True, False, True, True]),
        n_states=4,
        n_actions=2,
    )
    data = SimpleNamespace(counts=counts, pair_counts=counts.pairs.astype(int), mdp=None)
    data.n_states = 4
    found = states.records_by_state(data)
    assert found["states"] == {
        "id": [1, 2],
        "counts": [[3, 0], [0, 1]],
        "visits": [750_000, 250_000],
        "row": [[0, -1], [-1, 1]],
    }
    assert (found["death"], found["survival"]) == (4, 5)
    assert found["rows"] == [[0, 2, 333, 4, 333, 5, 333], [0, 5, 1000]]


def test_values_are_those_of_planning(mdp, content):
    truth, shown = true_dynamics(mdp), content["states"]
    for name, policy in (("clinician", clinician_policy(mdp)), ("optimum", optimal_policy(mdp))):
        values, exact = content["values"][name], evaluate(truth, policy.probabilities)
        assert values["start"] == pytest.approx(exact.survival)
        by_state = np.array(values["state"]) / 1e4
        assert mdp.start[shown["id"]] @ by_state == pytest.approx(exact.survival, abs=1e-4)
        # A state is worth what its doses are worth, as often as they are given.
        by_dose = np.array(values["row"])[np.array(shown["row"])] / 1e4
        given = policy.probabilities[shown["id"]]
        np.testing.assert_allclose((given * by_dose).sum(axis=1), by_state, atol=2e-4)


def test_a_state_is_the_environments(mdp, content):
    shown = content["states"]
    assert shown["id"] == list(range(713))
    assert (content["death"], content["survival"]) == (713, 714)
    np.testing.assert_allclose(np.array(shown["sofa"]) / 10, mdp.sofa_scores[:713], atol=0.05)
    allowed = [[cell == "1" for cell in row] for row in shown["admissible"]]
    np.testing.assert_array_equal(allowed, mdp.admissible[:713])
    clinician = np.array(shown["clinician"]) / 1000
    np.testing.assert_allclose(clinician, mdp.clinician[:713], atol=5e-4)
    assert sum(shown["visits"]) == pytest.approx(1e6, abs=400)
    others, *listed = content["rows"][shown["row"][40][7]]
    row = mdp.rows.toarray()[mdp.row_index[40, 7]]
    np.testing.assert_allclose(np.array(listed[1::2]) / 1000, row[listed[::2]], atol=5e-4)
    assert others + len(listed) / 2 == (row > 0).sum()
    assert min(listed[1::2]) / 1000 >= np.sort(row)[-9] - 5e-4


def test_policies_have_q_unless_they_are_cloned(content):
    cql, bc, sweep = content["policies"]
    assert (cql["name"], bc["name"], sweep["name"]) == ("cql", "bc", "sweep")
    assert bc["q"] is None
    allowed = [[cell == "1" for cell in row] for row in content["states"]["admissible"]]
    q = np.where(allowed, cql["q"], -1e9)
    at = np.arange(713)
    assert (q[at, cql["choice"]] >= q.max(axis=1)).all()
    assert sum(cql["visits"]) == pytest.approx(1e6, abs=400)


def test_features_are_where_their_names_say(mdp):
    """The list of the environment's own program, held against the numbers of the package."""
    names = [feature.name for feature in FEATURES]
    own = {f.name: f.read(v[:713]) for f, v in zip(FEATURES, mdp.state_vectors.T, strict=True)}
    assert len(set(names)) == mdp.state_vectors.shape[1] == 47
    assert np.corrcoef(own["SOFA"], mdp.sofa_scores[:713])[0, 1] > 0.99
    for name in ("gender, as coded", "mechanical ventilation", "readmission"):
        assert -1e-9 < own[name].min() < own[name].max() < 1 + 1e-9, name
    assert own["highest vasopressor dose, 4 h"].min() > -1e-9
    assert np.corrcoef(own["mean pressure"], own["systolic pressure"])[0, 1] > 0.7
    shocked = own["heart rate"] - own["systolic pressure"]
    assert np.corrcoef(own["shock index"], shocked)[0, 1] > 0.7
    assert np.corrcoef(own["blood urea nitrogen"], own["creatinine"])[0, 1] > 0.6
    # Doses of the same 4 hours are among the features.
    _, vasopressor = mdp.dose_grid.levels(np.arange(25))
    fluid, _ = mdp.dose_grid.levels(np.arange(25))
    for name, level in (
        ("fluid input, 4 h", fluid),
        ("highest vasopressor dose, 4 h", vasopressor),
    ):
        assert np.corrcoef(own[name], mdp.clinician[:713] @ level)[0, 1] > 0.7, name


def test_features_of_another_process_are_numbered(chain_mdp):
    assert [feature.name for feature in features_of(chain_mdp)] == ["feature 0", "feature 1"]


def test_a_states_features_stand_beside_the_populations(mdp, content):
    weights = np.array(content["states"]["visits"]) / 1e6
    for feature, column in zip(content["features"], mdp.state_vectors[:713].T, strict=True):
        values = np.array(feature["values"]) / 100
        assert abs(np.corrcoef(values, column)[0, 1]) > 0.99
        assert feature["mean"] == pytest.approx(weights @ values / weights.sum(), abs=0.01)
        assert feature["low"] <= feature["mean"] <= feature["high"] or feature["kind"] == "dose"
        assert weights[values <= feature["low"] + 0.006].sum() >= 0.099
        assert weights[values >= feature["high"] - 0.006].sum() >= 0.099
