"""A run that is stopped and goes on is the run that was never stopped."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from comparing import age, assert_equal, assert_same_state, last, scalars, story

from sepsis_rl.callbacks import PolicyEvaluation

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
        pytest.param(*kind, id=name, marks=[] if name in ("cql", "sweep") else pytest.mark.slow)
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


@pytest.mark.parametrize(("config", "options"), [KINDS["cql"], KINDS["sweep"]], ids=str)
def test_a_finished_run_is_extended(fit, config, options):
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
        extra = 10 if key[1].startswith(("val/", "ope/")) else None
        assert [point for point in points if point[0] != extra] == expected[key], key


@pytest.mark.slow
def test_a_run_stopped_twice(fit):
    fit("cql", in_folder("straight"))
    fit("cql", killed_at=6)
    age("runs")
    fit("cql", "--ckpt_path=last", killed_at=14)
    assert last("runs/cql/version_0")["global_step"] == 12
    for path in Path("runs").rglob("events.out.tfevents.*"):
        if "tfevents.1000000000" not in path.name:
            path.rename(path.with_name(re.sub(r"tfevents\.\d+", "tfevents.1000000001", path.name)))
    fit("cql", "--ckpt_path=last")
    assert_same_state("runs/cql/version_0", "straight/cql/version_0")
    assert scalars("runs/cql/version_0") == scalars("straight/cql/version_0")


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
    assert {p.name for p in (run / "checkpoints").glob("last*")} == {"last.ckpt"}
    assert [entry["step"] for entry in story(run)] == [4, 8]
    assert [step for step, _ in scalars(run)[".", "val/survival_exact"]] == [4, 8]
    ran = fit("cql", "--ckpt_path=last", "--model.alpha=2.0", "--trainer.max_steps=9")
    assert "step 8" in ran.out


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
    assert "optimal" in ran.out
    assert last(run)["global_step"] == 8
    assert [entry["step"] for entry in story(run)] == [4, 8]


@pytest.mark.slow
def test_the_newest_run_of_the_name_goes_on(fit):
    fit("cql", "--trainer.max_steps=4")
    fit("cql", "--trainer.max_steps=8")
    fit("cql", "--trainer.max_steps=1", "--trainer.logger.init_args.name=other")
    ran = fit("cql", "--ckpt_path=last", "--trainer.max_steps=9")
    assert "step 8" in ran.out
    assert last("runs/cql/version_0")["global_step"] == 4
    assert last("runs/cql/version_1")["global_step"] == 9


def test_a_checkpoint_from_elsewhere_begins_a_run_of_its_own(fit):
    fit("cql", "--trainer.max_steps=4")
    path = "runs/cql/version_0/checkpoints/last.ckpt"
    before = {p: p.read_bytes() for p in Path("runs/cql/version_0").rglob("*") if p.is_file()}
    fit("cql", f"--ckpt_path={path}", "--trainer.max_steps=8", in_folder("elsewhere"))
    assert last("elsewhere/cql/version_0")["global_step"] == 8
    assert {p: p.read_bytes() for p in before} == before


# -- what the command line says beats the checkpoint ---------------------------------------------


def notes(ran):
    return [line for line in ran.err.splitlines() if line]


@pytest.mark.parametrize(
    ("option", "held", "given"),
    [
        ("alpha", "0.5", "2.0"),
        pytest.param("gamma", "0.99", "0.5", marks=pytest.mark.slow),
        pytest.param("learning_rate", "0.0003", "0.01", marks=pytest.mark.slow),
        pytest.param("tau", "0.005", "0.1", marks=pytest.mark.slow),
        pytest.param("seed", "42", "7", marks=pytest.mark.slow),
        ("double_q", "False", "True"),
        ("min_action_count", "0", "3"),
    ],
)
def test_a_difference_is_named_and_used(runs, lightning, option, held, given):
    words = ["--ckpt_path=last", "--trainer.max_steps=12"]
    ran = lightning("fit", "cql", *words, f"--model.{option}={given}")
    assert ran.code == 0
    (note,) = notes(ran)
    for text in (f"model.{option}", held, given):
        assert text in note
    checkpoint = last("runs/cql/version_0")
    assert str(checkpoint["hyper_parameters"][option]) == given
    assert lightning("fit", "cql", "--trainer.max_steps=12").code == 0
    unchanged = last("runs/cql/version_1")["state_dict"]
    assert any(not torch.equal(v, unchanged[k]) for k, v in checkpoint["state_dict"].items())


@pytest.mark.parametrize(
    ("option", "held", "given"),
    [
        ("data.batch_size", "256", "64"),
        ("evaluation.patients", "200", "100"),
        ("trainer.gradient_clip_val", "1.0", "0.5"),
    ],
)
def test_a_difference_outside_the_model_is_named(runs, lightning, option, held, given):
    ran = lightning(
        "fit", "cql", "--ckpt_path=last", "--trainer.max_steps=12", f"--{option}={given}"
    )
    assert ran.code == 0
    (note,) = notes(ran)
    assert re.match(rf"Note: {option}: {held} in the checkpoint, {given}(\.0)? now", note)


def test_a_finished_run_says_so(runs, lightning):
    ran = lightning("fit", "cql", "--ckpt_path=last")
    assert (ran.code, ran.err) == (0, "")
    assert "has taken its trainer.max_steps=10 steps already" in ran.out
    assert "90-day survival" in ran.out


def test_the_learning_rate_given_is_the_one_used(runs, lightning):
    """With next to none, weights stay what they are."""
    before = last("runs/cql/version_0")
    words = ["--ckpt_path=last", "--trainer.max_steps=12"]
    assert lightning("fit", "cql", *words, "--model.learning_rate=1e-30").code == 0
    after = last("runs/cql/version_0")
    assert after["global_step"] == 12
    (group,) = after["optimizer_states"][0]["param_groups"]
    assert group["lr"] == 1e-30
    for name, value in before["state_dict"].items():
        if name.startswith("q_network"):
            assert torch.equal(after["state_dict"][name], value)


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


def test_the_tau_given_is_the_one_used(runs, lightning):
    words = ["--ckpt_path=last", "--trainer.max_steps=11", "--model.tau=1.0"]
    assert lightning("fit", "cql", *words).code == 0
    weights = last("runs/cql/version_0")["state_dict"]
    online = [name for name in weights if name.startswith("q_network")]
    assert online
    for name in online:
        assert torch.equal(weights[f"target_{name}"], weights[name])


def test_other_data_are_named(runs, lightning):
    with pytest.warns(UserWarning, match="other data"):
        ran = lightning("fit", "cql", "--ckpt_path=last", "--trainer.max_steps=12", "--data.seed=1")
    assert ran.code == 0


def test_an_unchanged_run_is_not_commented_on(runs, lightning):
    ran = lightning("fit", "cql", "--ckpt_path=last", "--trainer.max_steps=12")
    assert (ran.code, ran.err) == (0, "")


def test_a_member_of_a_sweep_goes_on_alone(runs, lightning):
    """And becomes what it becomes in the sweep."""
    members = ["--model.alpha=[0.1,1.0]", "--model.seed=[42,7]"]
    path = "runs/sweep/version_0/checkpoints/last.ckpt"
    assert (
        lightning.main("export", f"--ckpt_path={path}", "--member=1", "--output=one.ckpt").code == 0
    )
    words = ["--ckpt_path=one.ckpt", "--model.alpha=0.1", "--model.seed=7"]
    ran = lightning("fit", "cql", *words, "--trainer.max_steps=20")
    assert (ran.code, ran.err) == (0, "")
    ran = lightning("fit", "sweep", *members, "--ckpt_path=last", "--trainer.max_steps=20")
    assert ran.code == 0
    ours, theirs = last("runs/cql/version_1"), last("runs/sweep/version_0")
    for name, value in ours["state_dict"].items():
        torch.testing.assert_close(value[0], theirs["state_dict"][name][1], rtol=1e-5, atol=1e-7)
    # The sweep was evaluated at 10, when it ended there; so was its member.
    steps = [entry["step"] for entry in story("runs/cql/version_1")]
    assert steps == [entry["step"] for entry in story("runs/sweep/version_0")]
