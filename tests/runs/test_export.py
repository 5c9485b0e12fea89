"""One member out of many is what it was among them."""

import re
import shlex

import pytest
import torch

from sepsis_rl.algorithms import CQL
from sepsis_rl.errors import InputError
from sepsis_rl.runs.checkpoints import compare_with, load_algorithm
from sepsis_rl.runs.members import export_member
from sepsis_rl.runs.untrusted import read_checkpoint

ALPHAS, SEEDS = [0.1, 1.0], [42, 7]


def last(runs, config):
    return runs / "runs" / config / "version_0" / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("member", range(4))
def test_a_member_is_what_it_was_in_the_sweep(finished_runs, tmp_path, member):
    source, output = last(finished_runs, "sweep"), tmp_path / "folder" / "one.ckpt"
    export_member(source, member, output)
    sweep, one = read_checkpoint(source), read_checkpoint(output)
    own = {"alpha": ALPHAS[member // 2], "seed": SEEDS[member % 2]}
    module = CQL(**{**sweep["hyper_parameters"], **own})
    assert compare_with(one, module, (716, 25), output) == []
    module, whole = load_algorithm(output), load_algorithm(source)
    torch.testing.assert_close(
        module.q_network.table()[0], whole.q_network.table()[member], rtol=1e-5, atol=1e-6
    )
    for name, value in one["state_dict"].items():
        theirs = sweep["state_dict"][name]
        mask = name == "allowed_actions"  # which is all members'
        assert torch.equal(value, theirs if mask else theirs[[member]])
    for index, state in one["optimizer_states"][0]["state"].items():
        theirs = sweep["optimizer_states"][0]["state"][index]
        assert state["step"] == theirs["step"] == 10
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[name][0], theirs[name][member])
    history = one["callbacks"]["PolicyEvaluation"]["history"]
    expected = sweep["callbacks"]["PolicyEvaluation"]["history"]
    assert [entry["step"] for entry in history] == [4, 8, 10]
    for entry, other in zip(history, expected, strict=True):
        assert entry["members"] == [other["members"][member]]
    policies = one["callbacks"]["PolicyEvaluation"]["policies"]
    assert list(policies) == [4, 8, 10]
    for step, actions in policies.items():
        theirs = sweep["callbacks"]["PolicyEvaluation"]["policies"][step]
        assert torch.equal(actions, theirs[[member]])
    (policy,) = module.policies()
    assert policy.name == "CQL"
    assert torch.equal(policies[10][0], torch.tensor(policy.actions).short())


def test_what_export_refuses(finished_runs, tmp_path):
    source, taken = last(finished_runs, "sweep"), tmp_path / "taken.ckpt"
    taken.write_text("mine")
    for member, output, said in (
        (-1, tmp_path / "x.ckpt", "-1.*0 to 3"),
        (4, tmp_path / "x.ckpt", "4.*0 to 3"),
        (0, taken, r"taken\.ckpt"),
    ):
        with pytest.raises(InputError, match=said):
            export_member(source, member, output)
    assert taken.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["taken.ckpt"]


def test_a_member_is_what_a_single_run_writes(finished_runs, tmp_path):
    """The same entries, so that whatever reads the one reads the other."""
    export_member(last(finished_runs, "sweep"), 0, tmp_path / "one.ckpt")
    one = read_checkpoint(tmp_path / "one.ckpt")
    single = read_checkpoint(last(finished_runs, "cql"))
    assert set(one) == set(single)
    assert one["sepsis_rl"] == {
        **single["sepsis_rl"],
        "members": [{**single["sepsis_rl"]["members"][0], "alpha": 0.1}],
    }
    assert one["hyper_parameters"] == {**single["hyper_parameters"], "alpha": 0.1}
    shapes = {name: value.shape for name, value in single["state_dict"].items()}
    assert {name: value.shape for name, value in one["state_dict"].items()} == shapes
    # Saved alone, not as a view into the weights of all.
    size = last(finished_runs, "cql").stat().st_size
    assert (tmp_path / "one.ckpt").stat().st_size < 1.1 * size


@pytest.mark.slow
def test_learning_rates_of_members(lightning, tmp_path):
    """The stack's optimizer holds the largest; a member's has its own."""
    options = ["--model.learning_rate=[0.001,0.0003]", "--trainer.max_steps=2"]
    assert lightning("fit", "bc", *options).code == 0
    source = "runs/bc/version_0/checkpoints/last.ckpt"
    for member, rate in enumerate((0.001, 0.0003)):
        export_member(source, member, f"{member}.ckpt")
        one = read_checkpoint(f"{member}.ckpt")
        assert one["hyper_parameters"]["learning_rate"] == rate
        words = [f"--ckpt_path={member}.ckpt", f"--model.learning_rate={rate}"]
        ran = lightning("fit", "bc", *words, "--trainer.max_steps=3")
        assert ran.code == 0
        # More steps than before; nothing else is said.
        assert re.fullmatch(r"Note: model\.schedule=cosine over .*\n", ran.err)


@pytest.mark.slow
def test_the_commands_that_are_printed_work(runs, lightning):
    """In the terminal as they are; the member goes on under a name of its own."""
    source = "runs/sweep/version_0/checkpoints/last.ckpt"
    words = [f"--ckpt_path={source}", "--member=3", "--output=one.ckpt"]
    said, *lines = lightning.main("export", *words).out.splitlines()
    assert said == "one.ckpt: member 3, alpha=1,seed=7"
    scores, goes_on = (shlex.split(line.partition("lightning ")[2]) for line in lines)
    ran = lightning.main(*scores)
    assert (ran.code, ran.err) == (0, "")
    assert lightning.main(*goes_on).code == 0
    done = read_checkpoint("runs/one/version_0/checkpoints/last.ckpt")
    assert done["global_step"] == 20
    assert done["sepsis_rl"]["members"][0].items() >= {"alpha": 1.0, "seed": 7}.items()
    # With another config of its kind, since what it was trained by makes no difference here.
    assert lightning("validate", "cql", "--ckpt_path=one.ckpt").err == ""
