"""The policies that finished runs have left."""

import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from sepsis_rl.errors import InputError
from sepsis_rl.runs.checkpoints import load_algorithm
from sepsis_rl.runs.finished import candidates, read_run
from sepsis_rl.runs.untrusted import read_checkpoint


@pytest.mark.parametrize("config", ["cql", "dqn", "bc", "sweep"])
def test_the_module_of_a_checkpoint(runs, config):
    """Its weights and its policies, for each algorithm, without the config."""
    path = runs / config / "version_0" / "checkpoints" / "last.ckpt"
    module = load_algorithm(path)
    held = read_checkpoint(path)
    assert type(module).__name__ == held["sepsis_rl"]["algorithm"]
    assert list(module.members.names) == held["sepsis_rl"]["names"]
    for name, weight in module.state_dict().items():
        assert torch.equal(weight, held["state_dict"][name])
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert_policies_are_those_evaluated(module, held)


def assert_policies_are_those_evaluated(module, held):
    """By the run that wrote the checkpoint, in its last evaluation."""
    evaluated = held["callbacks"]["PolicyEvaluation"]["policies"][held["global_step"]]
    policies = module.policies()
    assert [policy.name for policy in policies] == module.labels
    if evaluated.is_floating_point():  # they sample
        found = torch.tensor(np.stack([policy.probabilities for policy in policies]))
        torch.testing.assert_close(found.float(), evaluated, rtol=0, atol=1e-7)
    else:
        found = torch.tensor(np.stack([policy.actions for policy in policies]))
        assert torch.equal(found.short(), evaluated)


@pytest.mark.parametrize(
    ("config", "options"),
    [
        ("cql", ["--model.alpha=[0.1,1.0]"]),
        ("bc", ["--model.sampled=true"]),
    ],
)
def test_a_masked_policy_of_a_checkpoint(lightning, tmp_path, config, options):
    """From the file alone, which has the mask."""
    masked = ["--model.actions=supported", "--model.min_action_count=3"]
    assert lightning("fit", config, *masked, *options).code == 0
    folder = tmp_path / "runs" / config / "version_0"
    path = folder / "checkpoints" / "last.ckpt"
    module = load_algorithm(path)
    assert_policies_are_those_evaluated(module, read_checkpoint(path))
    often = read_run(folder).data.pair_counts >= module.min_action_count
    rare = ~often & often.any(axis=1, keepdims=True)
    assert rare.any()
    for policy in module.policies():
        assert not policy.probabilities[rare].any()


def test_a_checkpoint_of_another_algorithm(runs):
    path = runs / "cql" / "version_0" / "checkpoints" / "last.ckpt"
    held = read_checkpoint(path)
    held["sepsis_rl"]["algorithm"] = "SAC"
    torch.save(held, path)
    with pytest.raises(InputError, match="holds SAC; accepted: BC, CQL, DQN"):
        load_algorithm(path)


def test_every_member_of_every_step(runs):
    found = candidates(
        [read_run(runs / "sweep" / "version_0"), read_run(runs / "bc" / "version_0")]
    )
    steps = [4, 8, 10]
    members = ["alpha=0.1,seed=42", "alpha=0.1,seed=7", "alpha=1,seed=42", "alpha=1,seed=7"]
    assert [(c.label, c.step, c.member, c.member_name) for c in found] == [
        *(("sweep", step, i, member) for step in steps for i, member in enumerate(members)),
        *(("bc", step, 0, "") for step in steps),
    ]
    assert found[0].name == found[0].policy.name == "sweep step 4 alpha=0.1,seed=42"
    assert found[-1].name == "bc step 10"
    for candidate in found:
        assert candidate.checkpoint.parent.parent == candidate.run
        own = load_algorithm(candidate.checkpoint).policies()[candidate.member]
        np.testing.assert_array_equal(candidate.policy.probabilities, own.probabilities)
    assert len({candidate.policy.probabilities.tobytes() for candidate in found}) > 10


def test_labels_are_as_short_as_the_runs_allow(runs):
    shutil.copytree(runs / "cql" / "version_0", runs / "cql" / "version_1")
    shutil.copytree(runs / "cql", runs / "other" / "cql")

    def labels(*folders):
        found = candidates([read_run(runs / folder) for folder in folders])
        return list(dict.fromkeys(candidate.label for candidate in found))

    assert labels("cql/version_0") == [""]
    assert labels("cql/version_0", "dqn/version_0") == ["cql", "dqn"]
    assert labels("cql/version_0", "cql/version_1") == ["cql/version_0", "cql/version_1"]
    full = [str((runs / folder / "cql" / "version_0").resolve()) for folder in ("", "other")]
    assert labels("cql/version_0", "other/cql/version_0") == full


def test_last_counts_where_it_stands_alone(runs):
    folder = runs / "cql" / "version_0" / "checkpoints"
    (folder / "step=10.ckpt").unlink()
    found = candidates([read_run(folder.parent)])
    assert [(c.step, c.checkpoint.name) for c in found] == [
        (4, "step=4.ckpt"),
        (8, "step=8.ckpt"),
        (10, "last.ckpt"),
    ]


def test_only_the_last_checkpoints_on_request(runs):
    folders = [runs / "sweep" / "version_0", runs / "bc" / "version_0"]
    found = candidates([read_run(folder) for folder in folders], last=True)
    assert [(c.label, c.step) for c in found] == [*[("sweep", 10)] * 4, ("bc", 10)]


@pytest.fixture
def read(monkeypatch):
    """The names of the checkpoints that were read."""
    names = []
    opened = fsspec.open

    def open_and_note(path, *args, **options):
        names.append(Path(path).name)
        return opened(path, *args, **options)

    monkeypatch.setattr("fsspec.open", open_and_note)
    return names


@pytest.mark.slow
def test_each_checkpoint_is_read_once(runs, lightning, read):
    assert lightning.main("select", "runs/cql/version_0", "--resamples=2").code == 0
    assert sorted(read) == ["last.ckpt", "step=10.ckpt", "step=4.ckpt", "step=8.ckpt"]
    for command in ("validate", "predict", "fit"):
        read.clear()
        ran = lightning(command, "cql", "--ckpt_path=last", "--trainer.max_steps=11")
        assert (ran.code, read) == (0, ["last.ckpt"])


def test_what_is_no_run(runs, tmp_path):
    for folder in (tmp_path / "nowhere", runs, runs / "cql"):
        with pytest.raises(InputError, match=r"is no run: accepted is a folder with config\.yaml"):
            read_run(folder)
    run = runs / "cql" / "version_0"
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="holds no checkpoint"):
        candidates([read_run(run)])


@pytest.mark.parametrize(
    "text", ["", "data: 3", "data: {episode: 5}", "data: {seed: -1}", "{", "data: ${nowhere}"]
)
def test_a_config_that_names_no_data(runs, text):
    run = runs / "cql" / "version_0"
    (run / "config.yaml").write_text(text)
    with pytest.raises(InputError):
        read_run(run)


def test_a_checkpoint_of_other_data(runs):
    """A config that was changed after the training would judge by episodes that trained."""
    run = runs / "cql" / "version_0"
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        config.replace("  seed: 42\n  held_out", "  seed: 43\n  held_out")
    )
    with pytest.raises(InputError, match="was trained on other data"):
        candidates([read_run(run)])


def test_reading_a_run_of_somebody_else_writes_nothing(runs, tmp_path):
    """Its episodes are simulated in memory, where the folder that it names does not have them."""
    theirs = read_run(runs / "cql/version_0").data
    path = runs / "cql/version_0/config.yaml"
    text = path.read_text()
    path.write_text(text.replace(str(theirs.cache_dir), str(tmp_path / "elsewhere")))
    assert path.read_text() != text
    assert read_run(runs / "cql/version_0").data.content_hash == theirs.content_hash
    assert not (tmp_path / "elsewhere").exists()
