"""`lightning fit`: what it writes and what it says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import BASELINES, MEMBERS, files, read_json
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sepsis_rl.loggers import tag_of
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.finished import read_run
from sepsis_rl.runs.untrusted import read_checkpoint

EVALUATED_AT = [4, 8, 10]  # every 4 steps, and at the end of 10

TRAIN = {
    "bc": ["loss", "imitation_loss", "grad_norm"],
    "dqn": ["loss", "td_loss", "q_data", "q_max", "grad_norm"],
    "cql": ["loss", "td_loss", "conservative_loss", "q_data", "q_max", "grad_norm"],
}
VAL = [
    "loss",
    "survival_rate",
    "survival_rate_low",
    "survival_rate_high",
    "survival_exact",
    "episode_length",
    "clinician_agreement",
    "unsupported_rate",
    "inadmissible_rate",
]
OPE = {
    "ope/fqe",
    "ope/fqe_zero",
    *(f"ope/{name}{end}" for name in ("wis", "wdr") for end in ("", "_low", "_high")),
    "ope/ess",
    "ope/ess_share",
    "ope/largest_weight",
    "ope/unseen_rate",
    *(f"ope/{name}" for name in ("supported_value", "anchored_value", "rarity")),
}


def events(folder):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def steps(accumulator, tag):
    return [event.step for event in accumulator.Scalars(tag)]


RUN_FOLDER = [
    "checkpoints/last.ckpt",
    "checkpoints/step=10.ckpt",
    "checkpoints/step=4.ckpt",
    "checkpoints/step=8.ckpt",
    "clinician/events.out",
    "config.yaml",
    "events.out",
    "metrics.json",
    "optimal/events.out",
    "tabular/events.out",
]


@pytest.mark.parametrize("config", ["cql", "dqn", "bc", "sweep"])
def test_a_run_folder_is_what_it_should_be(finished_runs, config):
    members = MEMBERS if config == "sweep" else []
    expected = [*RUN_FOLDER, *(f"members/{name}/events.out" for name in members)]
    assert files(finished_runs / "runs" / config) == sorted(f"version_0/{n}" for n in expected)
    assert [path.name for path in finished_runs.iterdir()] == ["runs"]


@pytest.mark.parametrize("config", ["cql", "dqn", "bc"])
def test_curves_have_the_keys_of_the_design_over_optimizer_steps(finished_runs, config):
    curves = events(finished_runs / "runs" / config / "version_0")
    train = {f"train/{name}" for name in TRAIN[config]}
    val = {tag_of(f"val/{name}") for name in VAL} | (
        set() if config == "bc" else {"val/value_estimate"}
    )
    assert set(curves.Tags()["scalars"]) == train | val | OPE
    for tag in train:
        assert steps(curves, tag) == [2, 4, 6, 8, 10], tag
    for tag in val | OPE:
        assert steps(curves, tag) == EVALUATED_AT, tag
    assert [image.step for image in curves.Images("policy/doses")] == EVALUATED_AT


def test_members_are_sub_runs_with_the_same_tags(finished_runs):
    """And the run itself has their medians."""
    run = finished_runs / "runs" / "sweep" / "version_0"
    whole, parts = events(run), [events(run / "members" / name) for name in MEMBERS]
    val = {tag_of(f"val/{name}") for name in [*VAL, "value_estimate"]}
    tags = {f"train/{name}" for name in TRAIN["cql"]} | val | OPE
    assert set(whole.Tags()["scalars"]) == tags
    for part in parts:
        assert set(part.Tags()["scalars"]) == tags
        assert [image.step for image in part.Images("policy/doses")] == EVALUATED_AT[-1:]
    for tag in tags:
        values = np.array([[e.value for e in part.Scalars(tag)] for part in parts])
        assert all(steps(part, tag) == steps(whole, tag) for part in parts)
        median = np.median(values, axis=0)
        np.testing.assert_allclose([e.value for e in whole.Scalars(tag)], median, rtol=1e-5)
    losses = {part.Scalars("train/loss")[-1].value for part in parts}
    assert len(losses) == len(MEMBERS)


@pytest.mark.parametrize("config", ["cql", "bc", "sweep"])
def test_the_figures_of_a_run_are_in_a_file(finished_runs, config):
    run = finished_runs / "runs" / config / "version_0"
    fit = read_json(run / "metrics.json")["fit"]
    learned = {"cql": ["CQL"], "bc": ["BC"], "sweep": [f"CQL {name}" for name in MEMBERS]}[config]
    assert list(fit["policies"]) == [*learned, *BASELINES]
    assert fit["step"] == 10
    assert fit["inadmissible_actions"] == "mean"
    assert [entry["step"] for entry in fit["evaluations"]] == EVALUATED_AT
    for member, name in enumerate(learned):
        # The last policy was evaluated at the last step, on the same patients.
        last = fit["evaluations"][-1]["members"][member]
        assert all(last[key] == fit["policies"][name][key] for key in VAL if key != "loss")
    curves = events(run if config != "sweep" else run / "members" / MEMBERS[0])
    for key in VAL[1:]:
        logged = [event.value for event in curves.Scalars(tag_of(f"val/{key}"))]
        held = [entry["members"][0][key] for entry in fit["evaluations"]]
        np.testing.assert_allclose(logged, held, rtol=1e-6)


def test_evaluations_and_checkpoints_come_together(lightning):
    """At every interval, once; by their steps the newest three are kept."""
    words = ("--checkpoint.monitor=step", "--trainer.max_steps=20")
    assert lightning("fit", "cql", *words).code == 0
    run = Path("runs/cql/version_0")
    history = read_json(run / "metrics.json")["fit"]["evaluations"]
    assert [entry["step"] for entry in history] == [4, 8, 12, 16, 20]
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["last.ckpt", "step=12.ckpt", "step=16.ckpt", "step=20.ckpt"]
    last, newest = (read_checkpoint(run / "checkpoints" / n) for n in ("last.ckpt", "step=20.ckpt"))
    assert last["global_step"] == newest["global_step"] == 20
    assert all(torch.equal(v, newest["state_dict"][k]) for k, v in last["state_dict"].items())
    assert read_checkpoint(run / "checkpoints" / "step=12.ckpt")["global_step"] == 12


def test_a_run_shorter_than_the_interval_is_evaluated_and_saved(lightning):
    assert lightning("fit", "bc", "--trainer.max_steps=3").code == 0
    run = Path("runs/bc/version_0")
    assert [e["step"] for e in read_json(run / "metrics.json")["fit"]["evaluations"]] == [3]
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == 3


def test_a_fit_ends_with_a_table(lightning):
    ran = lightning("fit", "sweep", "--model.alpha=[0.5,2.0]", "--model.seed=1")
    lines = ran.out[: ran.out.index("From recorded data alone")].splitlines()
    policies = read_json("runs/sweep/version_0/metrics.json")["fit"]["policies"]
    assert list(policies) == ["CQL alpha=0.5", "CQL alpha=2", *BASELINES]
    names = tuple(name.removeprefix("CQL ") for name in policies)
    rows = [line for line in lines if line.strip().startswith(names)]
    assert len(rows) == len(policies)
    for row, name, values in zip(rows, names, policies.values(), strict=True):
        assert row.strip().startswith(name)
        numbers = row.replace(name, "", 1)
        percent = {
            key: f"{100 * values[key]:.1f}"
            for key in ("survival_rate", "survival_rate_low", "survival_rate_high")
        }
        assert f"{100 * values['survival_exact']:.2f}" in numbers
        assert (
            f"{percent['survival_rate']} ({percent['survival_rate_low']}–"
            f"{percent['survival_rate_high']})"
        ) in numbers
        assert f"{100 * values['difference']:+.1f}" in numbers
        assert numbers.rstrip().endswith(f"{values['length_exact']:.2f}")
    head = ran.out[: ran.out.index(rows[0])]
    assert "inadmissible actions: mean" in head
    assert "200 simulated validation patients" in head
    assert "runs/sweep/version_0" in ran.out
    assert "tensorboard --logdir runs" in ran.out
    assert ran.err == ""


def test_a_fit_begins_by_saying_what_it_does(lightning):
    """Before the bar, with what is really there; names are no markup."""
    name = "[bold]name"
    options = [
        "--model.alpha=[0.5,2.0]",
        "--model.seed=1",
        f"--trainer.logger.init_args.name={name}",
    ]
    ran = lightning("fit", "sweep", *options, "--trainer.max_steps=2")
    train = read_run(f"runs/{name}/version_0").data.train
    module = load_algorithm(f"runs/{name}/version_0/checkpoints/last.ckpt")
    parameters = sum(p[0].numel() for p in module.q_network.parameters())
    first = [line.split(maxsplit=1) for line in ran.out.splitlines()[:6]]
    trains, device, data, each, actions, place = first
    assert trains == ["Trains", f"CQL, 2 members of {parameters:,} parameters, 2 steps"]
    assert device == ["Device", "cpu, 1 thread"]
    held = read_checkpoint(f"runs/{name}/version_0/checkpoints/last.ckpt")["OfflineDataModule"]
    content = held["content_hash"][:12]
    assert data == ["Data", f"200 episodes, {len(train):,} transitions, content hash {content}"]
    assert each == ["Each", "step  all records, dynamics empirical_bayes"]
    assert actions[1].startswith("admissible: ")
    assert place == ["Writes", f"to  runs/{name}/version_0"]


def test_the_table_fits_a_terminal(lightning, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    ran = lightning("fit", "cql", "--trainer.max_steps=2")
    assert "…" not in ran.out
    assert max(map(len, ran.out.splitlines())) <= 80


def test_the_strategy_is_what_is_evaluated_and_named(lightning):
    ran = lightning("fit", "bc", "--evaluation.strategy=terminate", "--trainer.max_steps=2")
    fit = read_json("runs/bc/version_0/metrics.json")["fit"]
    assert "inadmissible actions: terminate" in ran.out
    assert fit["inadmissible_actions"] == "terminate"
    # The best policy takes no action that ends a stay.
    for name, survival in (("random", 0.008), ("clinician", 0.416), ("optimal", 0.8751)):
        assert fit["policies"][name]["survival_exact"] == pytest.approx(survival, abs=5e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("config", ["cql", "bc"])
def test_a_run_on_a_gpu_ends_near_one_on_the_cpu(runs, lightning, config):
    assert lightning("fit", config, "--trainer.accelerator=gpu").code == 0
    ours, theirs = (
        read_checkpoint(runs / config / f"version_{n}" / "checkpoints" / "last.ckpt")["state_dict"]
        for n in (1, 0)
    )
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name].cpu(), value, rtol=1e-3, atol=1e-4)
    ran = lightning("test", config, "--ckpt_path=last", "--trainer.accelerator=gpu")
    assert (ran.code, ran.err) == (0, "")
    tested = read_json(runs / config / "version_1" / "metrics.json")["test"]["last.ckpt"]
    ran = lightning("test", config, f"--ckpt_path={runs / config}/version_1/checkpoints/last.ckpt")
    assert ran.code == 0
    again = read_json(runs / config / "version_1" / "metrics.json")["test"]["last.ckpt"]
    random, theirs = (scores["policies"]["random"] for scores in (again, tested))
    assert random == pytest.approx(theirs, abs=0.02)
