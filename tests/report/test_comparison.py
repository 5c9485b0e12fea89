"""The essay's figures 3 to 5, their numbers and what they say."""

import dataclasses

import numpy as np
import pytest

from sepsis_rl.report.comparison import (
    algorithm_comparison,
    alpha_sensitivity,
    checkpoint_choice,
    heat_map,
)
from sepsis_rl.report.protocol import REPORTED, SEEDS


@pytest.fixture(scope="module")
def by_key(experiment):
    return {(member.alpha, member.seed): member for member in experiment.members}


def only(experiment, *settings):
    kept = [member for member in experiment.members if member.setting in settings]
    return dataclasses.replace(experiment, members=kept)


def reported(protocol, member):
    return protocol.rates[member][:, 0].max()


def test_alpha(experiment, protocol, baselines, by_key):
    exhibit = alpha_sensitivity(experiment, protocol, baselines)
    members = experiment.of("DQN") + experiment.of("CQL")
    assert len(exhibit.rows) == 2 * len(members) == 12
    for row in exhibit.rows:
        member = by_key[row["alpha"], row["seed"]]
        exact = row["figure"] == "exact"
        assert row["survival"] == (
            member.metrics["survival_exact"][-1] if exact else reported(protocol, member)
        )
    for axes, kind in zip(exhibit.figure.axes, ("exact", "reported"), strict=True):
        (means,) = [line for line in axes.lines if line.get_label() == "mean"]
        expected = [
            100
            * np.mean(
                [
                    row["survival"]
                    for row in exhibit.rows
                    if (row["figure"], row["alpha"]) == (kind, alpha)
                ]
            )
            for alpha in (0.0, 0.1, 0.5, 1.0)
        ]
        assert means.get_ydata().tolist() == pytest.approx(expected)
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "0.1", "0.5", "1"]


def test_algorithms(experiment, protocol, baselines, by_key):
    exhibit = algorithm_comparison(experiment, protocol, baselines)
    learned = [row for row in exhibit.rows if row["algorithm"] != "random"]
    assert {row["algorithm"] for row in learned} == {"BC", "DQN", "CQL α=0.5"}
    for row in learned:
        (member,) = [
            m for m in experiment.members if (m.setting, m.seed) == (row["algorithm"], row["seed"])
        ]
        exact = row["figure"] == "exact"
        assert row["survival"] == (member.survival if exact else reported(protocol, member))
    random = [row for row in exhibit.rows if row["algorithm"] == "random"]
    assert [row["seed"] for row in random] == list(SEEDS)
    assert [row["survival"] for row in random] == protocol.random[:, 0, 0].tolist()
    share = (protocol.random.mean(axis=0) >= REPORTED["CQL"]).mean()
    assert f"86 % or more in {100 * share:.0f} % of the tries" in exhibit.text
    assert f"{100 * protocol.random.mean():.1f} % on average" in exhibit.text
    assert f"survives {100 * baselines['random']:.1f} % exactly" in exhibit.text
    left = exhibit.figure.axes[0]
    essay = [line for line in left.lines if line.get_marker() == "_"]
    drawn = sorted(100 * REPORTED[name] for name in ("CQL", "BC", "DQN", "random"))
    assert sorted(float(line.get_ydata()[0]) for line in essay if line.get_markersize() == 14) == (
        pytest.approx(drawn)
    )


def test_the_heat_map(experiment, protocol, by_key):
    exhibit = heat_map(experiment, protocol)
    assert len(exhibit.rows) == 6
    for row in exhibit.rows:
        member = by_key[row["alpha"], row["seed"]]
        assert (row["exact"], row["reported"]) == (member.survival, reported(protocol, member))
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
        choice = protocol.choices[member]
        assert (row["setting"], row["seed"]) == (member.setting, member.seed)
        assert row["last_step"] == 10
        assert row["protocol_step"] == member.steps[choice.protocol]
        assert row["exact_survival"] == max(member.metrics["survival_exact"])
        assert row["reported"] == choice.reported
    (shown,) = [row for row in exhibit.shown if row["setting"] == "CQL α=1"]
    mean = np.mean([row["last_survival"] for row in exhibit.rows if row["setting"] == "CQL α=1"])
    assert shown["seeds"] == "2"
    assert shown["last, exact %"] == f"{100 * mean:.2f}"


def test_what_the_runs_do_not_have_is_not_drawn(experiment, protocol, baselines):
    bc = only(experiment, "BC")
    assert alpha_sensitivity(bc, protocol, baselines) is None
    assert heat_map(bc, protocol) is None
    exhibit = algorithm_comparison(bc, protocol, baselines)
    assert {row["algorithm"] for row in exhibit.rows} == {"BC", "random"}
    assert algorithm_comparison(only(experiment), protocol, baselines) is None
    assert alpha_sensitivity(only(experiment, "CQL α=0.1"), protocol, baselines) is None
