"""Where checkpoints are, that reading one is safe, and one member out of many."""

import functools
import pickle
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from sepsis_rl.algorithms import BC, CQL, DQN
from sepsis_rl.errors import InputError
from sepsis_rl.runs.checkpoints import (
    SafeCheckpointIO,
    compare_with,
    export_member,
    find_last,
    read_checkpoint,
    run_folder,
)

SMALL = {"embedding_dim": 8, "hidden_dims": [16]}
ALPHAS, SEEDS = [0.1, 1.0], [42, 7]


def last(runs, config):
    return runs / "runs" / config / "version_0" / "checkpoints" / "last.ckpt"


# -- places ------------------------------------------------------------------------------------


def place(folder, version, name="last.ckpt"):
    path = folder / "cql" / version / "checkpoints" / name
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_the_last_is_of_the_largest_number(tmp_path):
    place(tmp_path, "version_2")
    newest = place(tmp_path, "version_10")
    place(tmp_path, "version_9")
    assert find_last(tmp_path, "cql") == newest
    assert find_last(str(tmp_path), "cql") == newest


def test_a_run_without_a_checkpoint_is_passed_over(tmp_path):
    older = place(tmp_path, "version_0")
    place(tmp_path, "version_1", "step=5.ckpt")
    (tmp_path / "cql" / "version_2").mkdir()
    place(tmp_path, "version_old")
    place(tmp_path, "version_3.bak")
    assert find_last(tmp_path, "cql") == older


def test_no_run_is_an_error(tmp_path):
    place(tmp_path, "version_0")
    for name in ("bc", "c*"):
        with pytest.raises(InputError, match=r"last.*version_"):
            find_last(tmp_path, name)
    with pytest.raises(InputError, match="last"):
        find_last(tmp_path / "nowhere", "cql")


def test_the_run_of_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/cql/version_0")
    assert run_folder(run / "checkpoints" / "last.ckpt") == run.resolve()
    assert run_folder("elsewhere/one.ckpt") == Path("elsewhere").resolve()


# -- reading -----------------------------------------------------------------------------------


def test_a_checkpoint_of_a_run_says_what_it_is(finished_runs):
    checkpoint = read_checkpoint(last(finished_runs, "sweep"))
    about = checkpoint["sepsis_rl"]
    assert about["algorithm"] == "CQL"
    assert [(m["alpha"], m["seed"]) for m in about["members"]] == [
        (a, s) for a in ALPHAS for s in SEEDS
    ]
    assert about["names"][1] == "alpha=0.1,seed=7"
    assert checkpoint["global_step"] == 10
    assert all(tensor.device.type == "cpu" for tensor in checkpoint["state_dict"].values())


def test_the_target_is_saved_and_has_no_optimizer_state(finished_runs):
    checkpoint = read_checkpoint(last(finished_runs, "cql"))
    names = set(checkpoint["state_dict"])
    online = {name for name in names if name.startswith("q_network.")}
    assert names == online | {f"target_{name}" for name in online} | {"allowed_actions"}
    (optimizer,) = checkpoint["optimizer_states"]
    assert len(optimizer["state"]) == len(online)


def damaged(data):
    """A file that ends early, has holes, or has nothing to do with a checkpoint."""
    rng = np.random.default_rng(0)
    yield b""
    yield b"hello, world\n"
    yield b"PK\x03\x04"
    yield b"\x80\x02."
    yield pickle.dumps({"a": {1, 2}, "b": complex(1)})
    for size in rng.integers(1, len(data), 20):
        yield data[:size]
    for size in rng.integers(1, 300, 200):
        yield rng.bytes(size)
    for size in rng.integers(1, 100, 200):
        yield b"\x80\x02" + rng.bytes(size)  # the beginning of a pickle


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, before it gives up
def test_any_damaged_file_is_refused_by_name(finished_runs, tmp_path):
    path = tmp_path / "bad.ckpt"
    for content in damaged(last(finished_runs, "cql").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.ckpt"):
            read_checkpoint(path)


def test_a_folder_or_nothing_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_checkpoint(tmp_path / "nowhere.ckpt")
    with pytest.raises(InputError, match=tmp_path.name):
        read_checkpoint(tmp_path)


class Payload:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


@pytest.mark.parametrize(
    "plant",
    [
        lambda checkpoint: checkpoint.update(extra=Payload()),
        lambda checkpoint: checkpoint["state_dict"].update(extra=Payload()),
        lambda checkpoint: checkpoint["callbacks"].update(PolicyEvaluation=Payload()),
    ],
)
def test_a_planted_payload_never_runs(finished_runs, tmp_path, monkeypatch, plant):
    monkeypatch.chdir(tmp_path)
    checkpoint = read_checkpoint(last(finished_runs, "cql"))
    plant(checkpoint)
    torch.save(checkpoint, "bad.ckpt")
    for use in (read_checkpoint, lambda path: export_member(path, 0, "out.ckpt")):
        with pytest.raises(InputError, match=r"bad\.ckpt"):
            use("bad.ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ckpt"]
    torch.load("bad.ckpt", weights_only=False)
    assert Path("ran").exists()  # it would have


@pytest.mark.parametrize(
    "spoil",
    [
        lambda checkpoint: checkpoint.pop("sepsis_rl"),
        lambda checkpoint: checkpoint.update(sepsis_rl="CQL"),
        lambda checkpoint: checkpoint.update(sepsis_rl={}),
        lambda checkpoint: checkpoint["sepsis_rl"].pop("members"),
        lambda checkpoint: checkpoint["sepsis_rl"].update(format=999),
        lambda checkpoint: checkpoint["hyper_parameters"].update(_instantiator="os.system"),
        lambda checkpoint: checkpoint.pop("hyper_parameters"),
        lambda checkpoint: checkpoint.update(hyper_parameters=[1]),
        lambda checkpoint: checkpoint.update(callbacks=None),
        lambda checkpoint: checkpoint.update(global_step="8"),
        lambda checkpoint: checkpoint.pop("state_dict"),
        lambda checkpoint: checkpoint.pop("global_step"),
    ],
)
def test_what_this_project_did_not_write_is_refused(finished_runs, tmp_path, spoil):
    checkpoint = read_checkpoint(last(finished_runs, "cql"))
    spoil(checkpoint)
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match=r"foreign\.ckpt"):
        read_checkpoint(tmp_path / "foreign.ckpt")


# -- comparing ---------------------------------------------------------------------------------


def test_what_differs_is_named(finished_runs):
    path = last(finished_runs, "cql")
    checkpoint = read_checkpoint(path)
    assert compare_with(checkpoint, CQL(**SMALL), (716, 25), path) == []
    # A tuple is the list that a YAML file has.
    assert compare_with(checkpoint, CQL(embedding_dim=8, hidden_dims=(16,)), (716, 25), path) == []
    changed = compare_with(checkpoint, CQL(alpha=2.0, learning_rate=0.1, **SMALL), (716, 25), path)
    alpha, rate = sorted(changed)
    assert all(text in alpha for text in ("model.alpha", "0.5", "2.0"))
    assert all(text in rate for text in ("model.learning_rate", "0.0003", "0.1"))


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (lambda: DQN(**SMALL), ["CQL", "DQN"]),
        (lambda: BC(**SMALL), ["CQL", "BC"]),
        (lambda: CQL(alpha=ALPHAS, **SMALL), ["1 member", "2"]),
        (lambda: CQL(embedding_dim=8, hidden_dims=[16, 16]), ["hidden_dims", "[16]", "[16, 16]"]),
        (lambda: CQL(alpha=ALPHAS, share="1/2", **SMALL), ["share None", "1/2"]),
        (lambda: CQL(embedding_dim=9, hidden_dims=[16]), ["embedding_dim", "8", "9"]),
    ],
)
def test_what_does_not_fit_is_refused(finished_runs, module, said):
    path = last(finished_runs, "cql")
    with pytest.raises(InputError) as refused:
        compare_with(read_checkpoint(path), module(), (716, 25), path)
    for text in (str(path), *said):
        assert text in str(refused.value)


def moments(checkpoint, **changes):
    checkpoint["optimizer_states"][0]["state"][1].update(changes)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda held: held["state_dict"].pop("q_network.biases.0"), "weights do not fit"),
        (
            lambda held: held["state_dict"].update({"q_network.weights.1": torch.ones(1, 16, 3)}),
            "weights do not fit",
        ),
        (lambda held: held["state_dict"].update({"q_network.embedding": 1}), "weights do not fit"),
        (lambda held: moments(held, exp_avg=torch.zeros(1, 2, 3)), "optimizer does not fit"),
        (lambda held: moments(held, step=torch.zeros(0)), "optimizer does not fit"),
        (
            lambda held: moments(held, exp_avg=torch.zeros(1, 8, 16, device="meta")),
            "optimizer does not fit",
        ),
        (
            lambda held: held["optimizer_states"][0]["state"][1].pop("step"),
            "optimizer does not fit",
        ),
        (lambda held: held["optimizer_states"][0]["state"].pop(0), "optimizer does not fit"),
        (lambda held: held["optimizer_states"].clear(), "optimizer does not fit"),
        (  # moments that go to other weights
            lambda held: held["optimizer_states"][0]["param_groups"][0]["params"].reverse(),
            "optimizer does not fit",
        ),
        (  # settings that nobody gave
            lambda held: held["optimizer_states"][0]["param_groups"][0].update(maximize=True),
            "optimizer does not fit",
        ),
        (lambda held: held["hyper_parameters"].update(alpha=10**400), "weights do not fit"),
        (  # of a single number, shown as many
            lambda held: moments(held, exp_avg_sq=torch.zeros(1).expand(1, 8, 16)),
            "optimizer does not fit",
        ),
        (
            lambda held: moments(held, exp_avg=torch.zeros(1, 8, 16).long()),
            "optimizer does not fit",
        ),
        (lambda held: moments(held, exp_avg=1.0), "optimizer does not fit"),
        (
            lambda held: held["optimizer_states"][0]["state"].update({99: {"step": torch.ones(1)}}),
            "optimizer does not fit",
        ),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(finished_runs, spoil, said):
    """Adam's fused kernel goes by the weights' sizes alone, and would read past the end."""
    path = last(finished_runs, "cql")
    checkpoint = read_checkpoint(path)
    spoil(checkpoint)
    with pytest.raises(InputError, match=f"last.ckpt: its {said}"):
        compare_with(checkpoint, CQL(**SMALL), (716, 25), path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last_model_path", "local://{victim}"),
        ("last_model_path", "{victim}"),
        ("best_k_models", {"runs/cql/version_0/checkpoints/../../../../victim": torch.tensor(1.0)}),
        ("kth_best_model_path", "s3://somewhere/else.ckpt"),
        ("best_k_models", 5),
    ],
)
def test_files_elsewhere_are_not_taken_for_its_own(finished_runs, tmp_path, name, value):
    """Lightning deletes what a checkpoint names as its predecessors, with all that is in it."""
    path = tmp_path / "runs" / "cql" / "version_0" / "checkpoints" / "last.ckpt"
    shutil.copytree(last(finished_runs, "cql").parent, path.parent)
    checkpoint = read_checkpoint(path)
    (key,) = [key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint")]
    state = checkpoint["callbacks"][key]
    state.pop("dirpath")
    state.update(best_k_models={}, kth_best_model_path="", best_model_path="")
    state["last_model_path"] = str(path)
    torch.save(checkpoint, path)
    assert key in SafeCheckpointIO().load_checkpoint(path)["callbacks"]
    state[name] = value.format(victim=tmp_path / "victim") if isinstance(value, str) else value
    torch.save(checkpoint, path)
    assert key not in SafeCheckpointIO().load_checkpoint(path)["callbacks"]


def test_a_folder_is_never_removed(tmp_path):
    victim = tmp_path / "victim.ckpt"
    victim.mkdir()
    (victim / "file").touch()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "old.ckpt").touch()
    for place in (victim, f"local://{victim}", tmp_path / "notes.txt", tmp_path / "none.ckpt"):
        SafeCheckpointIO().remove_checkpoint(place)
    assert (victim / "file").exists()
    assert (tmp_path / "notes.txt").exists()
    SafeCheckpointIO().remove_checkpoint(tmp_path / "old.ckpt")
    assert not (tmp_path / "old.ckpt").exists()


# -- one member --------------------------------------------------------------------------------


@pytest.mark.parametrize("member", range(4))
def test_a_member_is_what_it_was_in_the_sweep(finished_runs, tmp_path, member):
    source, output = last(finished_runs, "sweep"), tmp_path / "folder" / "one.ckpt"
    export_member(source, member, output)
    sweep, one = read_checkpoint(source), read_checkpoint(output)
    alpha, seed = ALPHAS[member // 2], SEEDS[member % 2]
    module = CQL(alpha=alpha, seed=seed, **SMALL)
    assert compare_with(one, module, (716, 25), output) == []
    module.build(716, 25)
    module.load_state_dict(one["state_dict"])
    whole = CQL(alpha=ALPHAS, seed=SEEDS, **SMALL)
    whole.build(716, 25)
    whole.load_state_dict(sweep["state_dict"])
    torch.testing.assert_close(
        module.q_network.table()[0], whole.q_network.table()[member], rtol=1e-5, atol=1e-6
    )
    for name, value in one["state_dict"].items():
        held = sweep["state_dict"][name]
        assert torch.equal(
            *((value, held) if name == "allowed_actions" else (value[0], held[member]))
        )
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
    assert np.array_equal(policy.probabilities, np.eye(25)[policies[10][0].long()])


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
        assert (ran.code, ran.err) == (0, "")


def test_what_export_refuses(finished_runs, tmp_path):
    source = last(finished_runs, "sweep")
    for member in (-1, 4):
        with pytest.raises(InputError, match=rf"{member}.*0 to 3"):
            export_member(source, member, tmp_path / "x.ckpt")
    (tmp_path / "taken.ckpt").write_text("mine")
    with pytest.raises(InputError, match=r"taken\.ckpt"):
        export_member(source, 0, tmp_path / "taken.ckpt")
    assert (tmp_path / "taken.ckpt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["taken.ckpt"]


# -- at an address -------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A server of the files in a folder of its own, and that folder."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", tmp_path / "served"
        server.shutdown()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def test_a_checkpoint_at_an_address(finished_runs, lightning, address):
    url, folder = address
    for name in ("cql", "dqn"):
        (folder / name).mkdir()
        shutil.copy(last(finished_runs, name), folder / name / "last.ckpt")
    for name in ("cql", "dqn"):  # one of the same name does not stand in for the other
        ran = lightning("validate", name, f"--ckpt_path={url}/{name}/last.ckpt")
        assert ran.code == 0, ran.err
    ran = lightning("fit", "cql", f"--ckpt_path={url}/cql/last.ckpt", "--trainer.max_steps=12")
    assert ran.code == 0, ran.err
    assert last(Path(), "cql").is_file()
    assert {path.name for path in Path().iterdir()} == {"runs", "served"}
    ran = lightning("fit", "cql", f"--ckpt_path={url}/none.ckpt")
    assert (ran.code, "there is no such file" in ran.err) == (2, True)


def test_a_payload_at_an_address_never_runs(finished_runs, lightning, address):
    url, folder = address
    checkpoint = read_checkpoint(last(finished_runs, "cql"))
    checkpoint["hyper_parameters"]["payload"] = Payload()
    torch.save(checkpoint, folder / "bad.ckpt")
    ran = lightning("fit", "cql", f"--ckpt_path={url}/bad.ckpt")
    assert ran.code == 2
    assert "bad.ckpt" in ran.err
    assert not Path("ran").exists()
