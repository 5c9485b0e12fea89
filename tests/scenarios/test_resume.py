"""A run that is stopped and goes on is the run that was never stopped."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from comparing import age, assert_equal, assert_same_state, last, scalars, story

from sepsis_rl.callbacks import PolicyEvaluation
from sepsis_rl.runs.untrusted import read_checkpoint

STEPS = 20  # in all; evaluated and saved every 4
SWEEP = [
    "--model.alpha=1.0",
    "--model.learning_rate=[0.001,0.0003]",
    "--model.tau=[0.005,0.5]",
]
KINDS = {
    "cql": ("cql", []),
    "dqn with double_q": ("dqn", ["--model.double_q=true"]),
    "bc": ("bc", []),
    "sweep": ("sweep", [*SWEEP, "--model.seed=3"]),
    "accumulated gradients": (
        "cql",
        ["--trainer.accumulate_grad_batches=2", "--trainer.val_check_interval=8"],
    ),
}


class Killed(BaseException):
    """Ends a run where nobody expects it."""


@pytest.fixture
def fit(lightning, monkeypatch, capsys):
    def fit(config, *options, killed_at=None):
        """Fits; at a step, before anything of that step is logged, the power goes off."""
        with monkeypatch.context() as patch:
            if killed_at is not None:
                proceed = PolicyEvaluation.on_train_batch_end

                def stop(self, trainer, *args):
                    if trainer.global_step == killed_at:
                        raise Killed
                    proceed(self, trainer, *args)

                patch.setattr(PolicyEvaluation, "on_train_batch_end", stop)
                with pytest.raises(Killed):
                    lightning("fit", config, f"--trainer.max_steps={STEPS}", *options)
                capsys.readouterr()
                return None
            ran = lightning("fit", config, f"--trainer.max_steps={STEPS}", *options)
        assert ran.code == 0
        return ran

    return fit


def in_folder(name):
    return f"--trainer.logger.init_args.save_dir={name}"


@pytest.mark.parametrize(
    ("config", "options"),
    [
        pytest.param(*kind, id=name, marks=[] if name == "cql" else pytest.mark.slow)
        for name, kind in KINDS.items()
    ],
)
def test_a_killed_run_goes_on_to_the_bit(fit, config, options):
    """From its last checkpoint, and TensorBoard hides what was logged past it."""
    fit(config, *options, in_folder("straight"))
    fit(config, *options, killed_at=11)
    run, straight = Path("runs") / config / "version_0", Path("straight") / config / "version_0"
    assert last(run)["global_step"] == 8
    before = scalars(run)
    assert before[".", "train/loss"][-1][0] == 10
    age(run)

    ran = fit(config, *options, "--ckpt_path=last")
    assert "step 8" in ran.out
    assert ran.err == ""
    assert [path.name for path in run.parent.iterdir()] == ["version_0"]
    assert_same_state(run, straight)
    assert scalars(run) == scalars(straight)
    assert story(run) == story(straight)
    assert [entry["step"] for entry in story(run)] == [4, 8, 12, 16, 20]
    kept = {path.name for path in (run / "checkpoints").iterdir()}
    assert kept == {path.name for path in (straight / "checkpoints").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(("config", "options"), [KINDS["cql"], KINDS["sweep"]], ids=str)
def test_a_finished_run_is_extended(fit, config, options):
    """With a schedule that does not depend on where it was to end."""
    options = [*options, "--model.schedule=constant"]
    fit(config, *options, in_folder("straight"))
    fit(config, *options, "--trainer.max_steps=10")
    run, straight = Path("runs") / config / "version_0", Path("straight") / config / "version_0"
    assert last(run)["global_step"] == 10
    age(run)
    fit(config, *options, "--ckpt_path=last")
    ours, theirs = last(run), last(straight)
    for part in ("global_step", "state_dict", "optimizer_states"):
        assert_equal(ours[part], theirs[part], part)
    # The evaluation at what was the end is the only one that the straight run has not.
    assert [entry["step"] for entry in story(run)] == [4, 8, 10, 12, 16, 20]
    assert [entry for entry in story(run) if entry["step"] != 10] == story(straight)
    expected = scalars(straight)
    for key, points in scalars(run).items():
        extra = 10 if key[1].startswith(("Survival/", "val/", "ope/")) else None
        assert [point for point in points if point[0] != extra] == expected[key], key


@pytest.mark.slow
def test_a_run_killed_between_two_checkpoint_files(fit):
    """The numbered one is there, `last.ckpt` is still the one before."""
    fit("cql", in_folder("straight"))
    fit("cql", killed_at=9)
    folder = Path("runs/cql/version_0/checkpoints")
    shutil.copy(folder / "step=8.ckpt", "kept")
    shutil.copy(folder / "step=4.ckpt", folder / "last.ckpt")
    age("runs")
    fit("cql", "--ckpt_path=last")
    assert_same_state("runs/cql/version_0", "straight/cql/version_0")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in Path("straight/cql/version_0/checkpoints").iterdir()
    )


def test_going_on_from_an_earlier_checkpoint(fit):
    """By its path: in the run's own folder, and `last` is what was trained last."""
    fit("cql", "--trainer.max_steps=12")
    age("runs")
    path = "runs/cql/version_0/checkpoints/step=4.ckpt"
    fit("cql", f"--ckpt_path={path}", "--model.alpha=2.0", "--trainer.max_steps=8")
    run = Path("runs/cql/version_0")
    assert last(run)["global_step"] == 8
    assert last(run)["hyper_parameters"]["alpha"] == 2.0
    folder = run / "checkpoints"
    assert {p.name for p in folder.iterdir()} == {
        *("last.ckpt", "step=4.ckpt", "step=8.ckpt", "abandoned-4")
    }
    # The branch that was left is whole, and nobody's.
    assert {p.name for p in (folder / "abandoned-4").iterdir()} == {
        *("last.ckpt", "step=8.ckpt", "step=12.ckpt", "metrics.json")
    }
    assert read_checkpoint(folder / "abandoned-4/last.ckpt")["global_step"] == 12
    assert [entry["step"] for entry in story(run)] == [4, 8]
    assert [step for step, _ in scalars(run)[".", "Survival/exact"]] == [4, 8]
    ran = fit("cql", "--ckpt_path=last", "--model.alpha=2.0", "--trainer.max_steps=9")
    assert "step 8" in ran.out


@pytest.mark.slow
@pytest.mark.parametrize("kept", [1, 2])
def test_going_on_with_fewer_best_checkpoints(fit, kept):
    """There are two, and the third one is better or is not."""
    fit("cql", "--trainer.max_steps=8", "--model.schedule=constant")
    words = (f"--checkpoint.save_top_k={kept}", "--model.schedule=constant")
    fit("cql", "--ckpt_path=last", "--trainer.max_steps=16", *words)
    (state,) = (
        state
        for state in last("runs/cql/version_0")["callbacks"].values()
        if isinstance(state, dict) and "best_k_models" in state
    )
    scores = state["best_k_models"]
    assert len(scores) == kept
    assert all(Path(path).is_file() for path in scores)
    assert state["kth_value"] == min(scores.values())
    assert state["best_model_score"] == max(scores.values())


def test_an_end_that_was_not_written_is_written(fit):
    """The power went off between the last checkpoint and `metrics.json`."""
    fit("cql", "--trainer.max_steps=8")
    path = Path("runs/cql/version_0/metrics.json")
    before = json.loads(path.read_text())
    path.unlink()
    fit("cql", "--ckpt_path=last", "--trainer.max_steps=8")
    assert json.loads(path.read_text()) == before


@pytest.mark.slow
def test_going_on_leaves_the_first_config(fit):
    fit("cql", "--trainer.max_steps=4")
    run = Path("runs/cql/version_0")
    first = (run / "config.yaml").read_bytes()
    fit("cql", "--ckpt_path=last", "--trainer.max_steps=8")
    assert (run / "config.yaml").read_bytes() == first
    (path,) = set(run.glob("*.yaml")) - {run / "config.yaml"}
    assert yaml.safe_load(path.read_text())["trainer"]["max_steps"] == 8
    # The same words again: nothing is left to do, and it is said once more what came out.
    ran = fit("cql", "--ckpt_path=last", "--trainer.max_steps=8")
    assert "has taken its trainer.max_steps=8 steps already" in ran.out
    assert "optimal" in ran.out
    assert last(run)["global_step"] == 8
    assert [entry["step"] for entry in story(run)] == [4, 8]


@pytest.mark.slow
def test_a_checkpoint_from_elsewhere_begins_a_run_of_its_own(fit):
    fit("cql", "--trainer.max_steps=4")
    path = "runs/cql/version_0/checkpoints/last.ckpt"
    before = {p: p.read_bytes() for p in Path("runs/cql/version_0").rglob("*") if p.is_file()}
    fit("cql", f"--ckpt_path={path}", "--trainer.max_steps=8", in_folder("elsewhere"))
    assert last("elsewhere/cql/version_0")["global_step"] == 8
    assert {p: p.read_bytes() for p in before} == before


# -- what the command line says beats the checkpoint ---------------------------------------------

DIFFERENT = {
    "model.actions": ("admissible", "supported"),
    "model.alpha": (0.003, 2.0),
    "model.double_q": (False, True),
    "model.learning_rate": (0.001, 1e-30),
    "model.min_action_count": (1, 3),
    "model.schedule": ("cosine", "constant"),
    "model.tau": (0.2, 1.0),
    "data.batch_size": ("all", 64),
    "data.dynamics": ("empirical_bayes", "counts"),
    "checkpoint.monitor": ("ope/supported_value", "ope/fqe"),
    "evaluation.patients": (200, 100),
    "trainer.deterministic": (None, True),
    "trainer.gradient_clip_val": (1.0, 0.5),
    "trainer.limit_train_batches": (None, 100),
}
"""What the checkpoint holds, and what is given."""


def test_what_is_given_is_used_and_named(runs, lightning):
    """With next to no learning rate weights stay what they are, with tau 1 the target follows."""
    before = last("runs/cql/version_0")["state_dict"]
    words = [f"--{name}={given}" for name, (_, given) in DIFFERENT.items()]
    ran = lightning("fit", "cql", "--ckpt_path=last", "--trainer.max_steps=12", *words)
    assert ran.code == 0
    for note, (name, (held, given)) in zip(
        sorted(ran.err.splitlines()),
        sorted((name, values) for name, values in DIFFERENT.items()),
        strict=True,
    ):
        assert note.startswith(f"Note: {name}: {held} in the checkpoint, {given} now")
    checkpoint = last("runs/cql/version_0")
    assert checkpoint["global_step"] == 12
    for name, (_, given) in DIFFERENT.items():
        if name.startswith("model."):
            assert checkpoint["hyper_parameters"][name.removeprefix("model.")] == given
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["lr"] == 1e-30
    weights = checkpoint["state_dict"]
    assert not weights["allowed_actions"].all()
    online = [name for name in weights if name.startswith("q_network")]
    for name in online:
        assert torch.equal(weights[name], before[name])
        assert torch.equal(weights[f"target_{name}"], weights[name])


@pytest.mark.slow
def test_another_schedule_is_named(fit, lightning):
    """A cosine over more steps lets the learning rate rise again; over as many it goes on."""
    assert fit("cql", "--trainer.max_steps=8", "--ckpt_path=null").err == ""
    path = "--ckpt_path=runs/cql/version_0/checkpoints/step=4.ckpt"
    assert lightning("fit", "cql", "--trainer.max_steps=8", path).err == ""
    assert fit("cql", "--trainer.max_steps=8", "--ckpt_path=last").err == ""  # nothing left to do
    (note,) = fit("cql", "--trainer.max_steps=16", "--ckpt_path=last").err.splitlines()
    was, becomes = ((1 + math.cos(math.pi * share)) / 2e3 for share in (7 / 8, 8 / 16))
    assert note.startswith("Note: model.schedule=cosine over trainer.max_steps=16, not")
    assert note.endswith(f"the learning rate was {was:.2g} last and is {becomes:.2g} now")
    same = ["--trainer.max_steps=20", "--ckpt_path=last", "--model.schedule=constant"]
    (note,) = fit("cql", *same).err.splitlines()
    assert note.startswith("Note: model.schedule: cosine in the checkpoint, constant now")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["alpha=2.0", "gamma=0.5", "seed=7"])
def test_a_run_goes_on_with_what_is_given(runs, lightning, option):
    assert lightning("fit", "cql", "--trainer.max_steps=12").code == 0
    words = ["--ckpt_path", "runs/cql/version_0/checkpoints/last.ckpt", f"--model.{option}"]
    assert lightning("fit", "cql", *words, "--trainer.max_steps=12").code == 0
    unchanged, ours = (last(f"runs/cql/version_{n}")["state_dict"] for n in (1, 0))
    assert not torch.equal(ours["q_network.embedding"], unchanged["q_network.embedding"])


def test_learning_rates_given_to_members_are_the_ones_used(runs, lightning):
    members = ["--model.alpha=[0.1,1.0]", "--model.seed=[42,7]"]
    before = last("runs/sweep/version_0")["state_dict"]
    rates = "--model.learning_rate=[1e-30,0.01]"
    path = "runs/sweep/version_0/checkpoints/last.ckpt"
    ran = lightning(
        "fit", "sweep", rates, *members[:1], "--model.seed=42", f"--ckpt_path={path}",
        "--trainer.max_steps=12",
    )  # fmt: skip
    assert ran.code == 0
    after = last("runs/sweep/version_0")["state_dict"]
    for name, value in before.items():
        if name.startswith("q_network"):
            torch.testing.assert_close(after[name][::2], value[::2], rtol=1e-6, atol=1e-8)
            assert not torch.equal(after[name][1::2], value[1::2])


@pytest.mark.slow
def test_a_member_of_a_sweep_goes_on_alone(runs, lightning):
    """And becomes what it becomes in the sweep."""
    members = ["--model.alpha=[0.1,1.0]", "--model.seed=[42,7]"]
    path = "runs/sweep/version_0/checkpoints/last.ckpt"
    assert (
        lightning.main("export", f"--ckpt_path={path}", "--member=1", "--output=one.ckpt").code == 0
    )
    words = ["--ckpt_path=one.ckpt", "--model.alpha=0.1", "--model.seed=7"]
    ran = lightning("fit", "cql", *words, "--trainer.max_steps=20")
    assert ran.code == 0
    # More steps than before; nothing else is said.
    assert re.fullmatch(r"Note: model\.schedule=cosine over .*\n", ran.err)
    ran = lightning("fit", "sweep", *members, "--ckpt_path=last", "--trainer.max_steps=20")
    assert ran.code == 0
    ours, theirs = last("runs/cql/version_1"), last("runs/sweep/version_0")
    for name, value in ours["state_dict"].items():
        if name != "allowed_actions":  # which are all members'
            other = theirs["state_dict"][name][1]
            torch.testing.assert_close(value[0], other, rtol=1e-5, atol=1e-7)
    # The sweep was evaluated at 10, when it ended there; so was its member.
    steps = [entry["step"] for entry in story("runs/cql/version_1")]
    assert steps == [entry["step"] for entry in story("runs/sweep/version_0")]
