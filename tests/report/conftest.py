"""Finished runs put together, the essay's protocol on them, and members made by hand."""

import dataclasses
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sepsis_rl.data import collect
from sepsis_rl.policies import clinician_policy
from sepsis_rl.report.experiment import Experiment, read_experiment
from sepsis_rl.report.protocol import carry_out
from sepsis_rl.runs.history import Member


@pytest.fixture(scope="session")
def essay_runs(finish):
    """A folder with `runs/` of the essay's settings, of 10 steps. Not to be written to."""
    return finish("essay/")


@pytest.fixture
def runs(essay_runs, lightning, tmp_path):
    """A copy of them in the folder where `lightning` runs."""
    return Path(shutil.copytree(essay_runs / "runs", tmp_path / "runs"))


@pytest.fixture(scope="session")
def essay(essay_runs):
    """The runs put together, and the protocol on them."""
    runs = essay_runs / "runs"
    found = read_experiment([runs / name / "version_0" for name in ("bc", "dqn", "cql", "sweep")])
    return found, carry_out(found, tries=3)


@pytest.fixture(scope="session")
def experiment(essay):
    """BC, DQN and three alphas of CQL. Not to be changed."""
    return essay[0]


@pytest.fixture(scope="session")
def protocol(essay):
    """Of three tries."""
    return essay[1]


@pytest.fixture(scope="session")
def only(essay):
    """The experiment with some settings alone."""
    experiment, _ = essay

    def keep(*settings):
        kept = [member for member in experiment.members if member.setting in settings]
        return dataclasses.replace(experiment, members=kept)

    return keep


@pytest.fixture(scope="session")
def episodes(mdp):
    """Data sets as a member has them, by number of episodes."""

    def collected(count):
        train = collect(mdp, clinician_policy(mdp), episodes=count, seed=3)
        return SimpleNamespace(train=train, content_hash=train.content_hash, n_actions=25)

    return {count: collected(count) for count in (60, 20, 150)}


@pytest.fixture
def member(mdp, episodes, tmp_path):
    """Makes members that were evaluated three times."""

    def make(algorithm="CQL", alpha=0.5, seed=1, *, data=60, steps=(10, 20, 30), **given):
        survival = np.array(given.pop("survival", (0.70, 0.75, 0.80)))
        estimate = np.array(given.pop("estimate", (0.1, 0.2, 5.0)))
        settings = {
            "alpha": math.nan if algorithm == "BC" else alpha,
            "seed": seed,
            "gamma": 0.9,
            "learning_rate": 3e-4,
            "embedding_dim": 8,
            "hidden_dims": (16,),
            "batch_size": 256,
            "actions": "all",
        }
        generator = np.random.default_rng(seed)
        return Member(
            algorithm=algorithm,
            settings={**settings, **given},
            data=episodes[data],
            run=tmp_path,
            index=0,
            name=f"{algorithm}{alpha},seed={seed}",
            steps=np.array(steps),
            metrics={
                "survival_exact": survival,
                "survival_rate": survival + 0.01,
                "survival_rate_low": survival - 0.02,
                "survival_rate_high": survival + 0.04,
                "value_estimate": estimate,
            },
            actions=generator.integers(mdp.n_actions, size=(len(steps), mdp.n_states)),
            scores=generator.normal(size=(mdp.n_states, mdp.n_actions)),
        )

    return make


@pytest.fixture
def of(mdp, episodes):
    """An experiment of members made by hand."""
    return lambda *members, **variations: Experiment(
        mdp, episodes[60], members=list(members), variations=variations
    )


@pytest.fixture
def line():
    """The one line of some axes that has a label: x and y."""

    def find(axes, label):
        (found,) = [own for own in axes.lines if own.get_label() == label]
        return np.asarray(found.get_xdata(), dtype=float), np.asarray(
            found.get_ydata(), dtype=float
        )

    return find


@pytest.fixture
def drawn():
    """Whether the picture can be laid out, and the rows make a table."""

    def draw(exhibit):
        exhibit.figure.draw_without_rendering()
        return all(list(row) == list(exhibit.rows[0]) for row in exhibit.rows)

    return draw
