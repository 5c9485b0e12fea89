"""The essay's figures 3 to 5, their numbers and what they say."""

import numpy as np
import pandas as pd
import pytest
from reading import numbers

from sepsis_rl.report.figures.survival import (
    algorithm_comparison,
    alpha_sensitivity,
    checkpoint_choice,
    checkpoints_shown,
    seed_differences,
)
from sepsis_rl.report.protocol import REPORTED


@pytest.fixture(scope="module")
def by_key(experiment):
    return {(member.alpha, member.seed): member for member in experiment.members}


def test_alpha(experiment, protocol, by_key, line):
    exhibit = alpha_sensitivity(experiment, protocol)
    members = experiment.of("DQN") + experiment.of("CQL")
    assert len(exhibit.rows) == 2 * len(members) == 12
    for row in exhibit.rows:
        member = by_key[row["alpha"], row["seed"]]
        exact = row["figure"] == "exact"
        assert row["survival"] == (
            member.metrics["survival_exact"][-1] if exact else protocol.on_record(member)
        )
    for axes, kind in zip(exhibit.figure.axes, ("exact", "reported"), strict=True):
        drawn = pd.DataFrame(exhibit.rows).query(f"figure == '{kind}'")
        expected = 100 * drawn.groupby("alpha")["survival"].mean()
        assert line(axes, "mean")[1].tolist() == pytest.approx(expected.tolist())
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.1", "0.5", "1"]


def test_algorithms(experiment, protocol, line):
    exhibit = algorithm_comparison(experiment, protocol)
    learned = [row for row in exhibit.rows if row["algorithm"] != "random"]
    assert {row["algorithm"] for row in learned} == {"BC", "DQN", "CQL α=0.5"}
    for row in learned:
        (member,) = [
            m for m in experiment.members if (m.setting, m.seed) == (row["algorithm"], row["seed"])
        ]
        exact = row["figure"] == "exact"
        assert row["survival"] == (member.survival if exact else protocol.on_record(member))
    random = [row for row in exhibit.rows if row["algorithm"] == "random"]
    assert [row["seed"] for row in random] == [42]
    assert [row["survival"] for row in random] == protocol.random[:, 0, 0].tolist()
    reports = protocol.random.mean(axis=0)
    # Of the text the figures of the random policy: exact, reported, the essay's 86 and how often.
    exact = experiment.reference_survival["random"]
    expected = [exact, reports.mean(), REPORTED["CQL"], (reports >= REPORTED["CQL"]).mean()]
    assert "the best of 3 evaluations (in the essay 20) on 100 patients" in exhibit.text
    assert "with seed 42 and the best of 3: it survives" in exhibit.text
    said = numbers(exhibit.text.partition("the best of 3: ")[2])[:4]
    assert said == pytest.approx([100 * share for share in expected], abs=0.51)
    essay = 100 * np.array([REPORTED[name] for name in ("CQL", "BC", "DQN", "random")])
    assert line(exhibit.figure.axes[0], "in the essay")[1].tolist() == essay.tolist()


def test_one_seed_has_no_differences_and_another_alpha_is_named(only, protocol):
    assert seed_differences(only("DQN", "CQL α=0.5"), protocol) is None
    text = algorithm_comparison(only("CQL α=0.1"), protocol).text
    assert "the essay's CQL has α 0.5, not 0.1" in text


def test_the_heat_map(experiment, protocol, by_key):
    exhibit = seed_differences(experiment, protocol)
    assert len(exhibit.rows) == 6
    for row in exhibit.rows:
        member = by_key[row["alpha"], row["seed"]]
        assert (row["exact"], row["reported"]) == (member.survival, protocol.on_record(member))
    left = exhibit.figure.axes[0]
    assert {text.get_text() for text in left.texts} == {
        f"{100 * row['exact']:.1f}" for row in exhibit.rows
    }
    # Alpha 0.1 and 1 have two seeds, the others one, which has no spread.
    spread = np.mean(
        [np.std([by_key[alpha, seed].survival for seed in (7, 42)], ddof=1) for alpha in (0.1, 1.0)]
    )
    assert f"{100 * spread:.1f} points" in left.get_title()


def test_the_choice_of_checkpoints(experiment, protocol):
    exhibit = checkpoint_choice(experiment, protocol)
    assert exhibit.figure is None
    assert len(exhibit.rows) == 7
    for row, member in zip(exhibit.rows, experiment.members, strict=True):
        exact, choices = member.metrics["survival_exact"], protocol.choices(member)
        assert (row["setting"], row["seed"]) == (member.setting, member.seed)
        assert row["last_step"] == 10
        assert row["protocol_step"] == member.steps[choices["protocol"]]
        assert row["protocol_survival"] == exact[choices["protocol"]]
        assert row["exact_survival"] == max(exact)
        assert row["reported"] == protocol.rates[member][:, 0].max()
    (shown,) = [r for r in checkpoints_shown(exhibit.rows) if r["setting"] == "CQL α=1"]
    mean = np.mean([row["last_survival"] for row in exhibit.rows if row["setting"] == "CQL α=1"])
    assert shown["seeds"] == "2"
    assert shown["last, exact %"] == f"{100 * mean:.2f}"
