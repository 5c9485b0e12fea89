"""Reading a checkpoint is safe, and what is odd in one is refused by name."""

import copy
import functools
import io
import json
import pickle
import re
import shutil
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import assert_equal

from sepsis_rl.algorithms import CQL
from sepsis_rl.errors import InputError
from sepsis_rl.runs.checkpoints import SafeCheckpointIO, compare_with
from sepsis_rl.runs.members import export_member
from sepsis_rl.runs.untrusted import read_checkpoint

STOPPING = {
    "class_path": "lightning.pytorch.callbacks.EarlyStopping",
    "init_args": {"monitor": "ope/fqe", "mode": "max", "patience": 50},
}
WITH_OTHERS = (f"--trainer.callbacks=[{json.dumps(STOPPING)}]", "--trainer.max_time=01:00:00:00")
STOPPED = "EarlyStopping{'monitor': 'ope/fqe', 'mode': 'max'}"


def last(runs, config):
    return runs / "runs" / config / "version_0" / "checkpoints" / "last.ckpt"


class Payload:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("ran"),)


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
    # What unpacks to a thousand times as much.
    with zipfile.ZipFile(packed := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    yield packed.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, before it gives up
def test_any_damaged_file_is_refused_by_name(finished_runs, tmp_path, count):
    path = tmp_path / "bad.ckpt"
    files = list(damaged(last(finished_runs, "cql").read_bytes()))
    for content in files:
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"bad\.ckpt"):
            read_checkpoint(path)
    count(f"torn and foreign checkpoints: {len(files)}, all refused by name")
    with pytest.raises(InputError, match=tmp_path.name):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("number", [30, pytest.param(300, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_refused_or_changes_nothing(finished_runs, tmp_path, number, count):
    """Most bits are a weight's; some of the archive's own are read by nobody."""
    data = last(finished_runs, "cql").read_bytes()
    whole = read_checkpoint(last(finished_runs, "cql"))
    path, rng, refused = tmp_path / "bad.ckpt", np.random.default_rng(1), 0
    for place in rng.integers(len(data), size=number):
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            assert_equal(read_checkpoint(path), whole)
        except InputError:
            refused += 1
    assert refused > 0.7 * number
    count(f"checkpoints with a flipped bit: {number}, {refused} refused, the others as they were")


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


def holding_itself():
    values = [1.0]
    values.append(values)
    return values


def story(checkpoint):
    return checkpoint["callbacks"]["PolicyEvaluation"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda checkpoint: checkpoint.pop("sepsis_rl"),
        lambda checkpoint: checkpoint.update(sepsis_rl="CQL"),
        lambda checkpoint: checkpoint.update(sepsis_rl={}),
        lambda checkpoint: checkpoint["sepsis_rl"].pop("members"),
        lambda checkpoint: checkpoint["sepsis_rl"].update(format=999),
        lambda checkpoint: checkpoint["sepsis_rl"].update(members=[]),
        lambda checkpoint: checkpoint["sepsis_rl"].update(names=[1]),
        lambda checkpoint: checkpoint["hyper_parameters"].update(alpha=torch.ones(2)),
        lambda checkpoint: checkpoint["hyper_parameters"].update(alpha=holding_itself()),
        lambda checkpoint: checkpoint.update({"pytorch-lightning_version": "x"}),
        lambda checkpoint: checkpoint.update({"pytorch-lightning_version": "1.9.0"}),
        lambda checkpoint: checkpoint.update(OfflineDataModule={}),
        lambda checkpoint: checkpoint["callbacks"].update(RecordedSettings={}),
        lambda checkpoint: story(checkpoint).update(history=None),
        lambda checkpoint: story(checkpoint)["history"][0].update(step=None),
        lambda checkpoint: story(checkpoint)["history"][0].update({(1, 2): 3}),
        lambda checkpoint: story(checkpoint)["history"][1]["members"].clear(),
        lambda checkpoint: story(checkpoint)["history"][1]["members"][0].popitem(),
        lambda checkpoint: story(checkpoint)["policies"].update({4: torch.zeros(2, 716)}),
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


# -- entries that do not belong together --------------------------------------------------------


def moments(checkpoint, place=1):
    return checkpoint["optimizer_states"][0]["state"][place]


def group(checkpoint):
    return checkpoint["optimizer_states"][0]["param_groups"][0]


def assert_refused(path, spoil, said):
    checkpoint = read_checkpoint(path)
    spoil(checkpoint)
    with pytest.raises(InputError, match=f"last.ckpt: its {said}"):
        compare_with(checkpoint, CQL(embedding_dim=8, hidden_dims=[16]), (716, 25), path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: held["state_dict"].pop("q_network.biases.0"),
        lambda held: held["state_dict"].pop("allowed_actions"),
        lambda held: held["state_dict"].update({"q_network.weights.1": torch.ones(1, 16, 3)}),
        lambda held: held["state_dict"].update({"q_network.embedding": 1}),
        lambda held: held["state_dict"].update(allowed_actions=torch.ones(700, 25).bool()),
        lambda held: held["hyper_parameters"].update(alpha=10**400),
        lambda held: held["hyper_parameters"].update(gamma=5),
        lambda held: held["sepsis_rl"]["members"][0].update(alpha=0.7),
    ],
)
def test_weights_that_do_not_fit_are_refused(finished_runs, spoil):
    assert_refused(last(finished_runs, "cql"), spoil, "weights do not fit its settings")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda held: moments(held).update(exp_avg=torch.zeros(1, 2, 3)),
        lambda held: moments(held).update(step=torch.zeros(0)),
        lambda held: moments(held).update(exp_avg=torch.zeros(1, 8, 16, device="meta")),
        # Of a single number, shown as many.
        lambda held: moments(held).update(exp_avg_sq=torch.zeros(1).expand(1, 8, 16)),
        lambda held: moments(held).update(exp_avg=torch.zeros(1, 8, 16).long()),
        lambda held: moments(held).update(exp_avg=1.0),
        lambda held: moments(held).pop("step"),
        lambda held: held["optimizer_states"][0]["state"].pop(0),
        lambda held: held["optimizer_states"][0]["state"].update({99: {"step": torch.ones(1)}}),
        lambda held: held["optimizer_states"].clear(),
        lambda held: group(held)["params"].reverse(),  # moments that go to other weights
        lambda held: group(held).update(maximize=True),  # settings that nobody gave
        lambda held: group(held).pop("betas"),
    ],
)
def test_moments_that_are_not_of_the_weights_are_refused(finished_runs, spoil):
    """Adam's fused kernel goes by the weights' sizes alone, and would read past the end."""
    assert_refused(last(finished_runs, "cql"), spoil, "optimizer does not fit its weights")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("last_model_path", "local://{victim}"),
        ("last_model_path", "{victim}"),
        ("best_k_models", {"runs/cql/version_0/checkpoints/../../../../victim": torch.tensor(1.0)}),
        ("kth_best_model_path", "s3://somewhere/else.ckpt"),
        # In the same folder, but no name that a run gives.
        ("kth_best_model_path", "{victim}/../runs/cql/version_0/checkpoints/precious.ckpt"),
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


# -- what Lightning restores ---------------------------------------------------------------------


def progress(checkpoint):
    return checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]


@pytest.fixture
def resume(lightning, tmp_path):
    """Goes on from a spoiled checkpoint of a run that has callbacks of somebody else's."""
    assert lightning("fit", "cql", *WITH_OTHERS).code == 0
    path = last(tmp_path, "cql")
    held = torch.load(path, weights_only=True)

    def resume(spoil, command="fit"):
        checkpoint = copy.deepcopy(held)
        spoil(checkpoint)
        torch.save(checkpoint, path)
        options = [f"--ckpt_path={path}", "--trainer.max_steps=12"]
        return lightning(command, "cql", *WITH_OTHERS, *options)

    return resume


@pytest.mark.slow
def test_callbacks_of_somebody_else_are_restored(resume):
    ran = resume(lambda held: held["callbacks"][STOPPED].update(wait_count=7))
    assert ran.code == 0
    # More steps than before; nothing else is said.
    assert re.fullmatch(r"Note: model\.schedule=cosine over .*\n", ran.err)
    held = read_checkpoint(last(Path(), "cql"))
    assert held["global_step"] == 12
    assert held["callbacks"][STOPPED]["wait_count"] in (0, 8)
    assert held["callbacks"]["Timer"]["time_elapsed"]["train"] > 0


def test_entries_that_lightning_cannot_restore_are_refused(resume):
    for spoil in (
        lambda held: held.update(loops={}),
        lambda held: held.pop("loops"),
        lambda held: held.pop("lr_schedulers"),
        lambda held: progress(held).pop("current"),
        lambda held: progress(held)["current"].update(ready=1.0),
        lambda held: progress(held)["current"].update(ready=10**30),
        lambda held: progress(held)["current"].update(new=1),
        lambda held: held["loops"]["fit_loop"]["state_dict"].update(combined_loader=[1]),
        lambda held: held.update(global_step=9),
        lambda held: held.update(MixedPrecision={"scale": "large"}, Precision={"scale": 1.0}),
        lambda held: held["callbacks"][STOPPED].pop("patience"),
        lambda held: held["callbacks"][STOPPED].update(best_score=torch.ones(2)),
        lambda held: held["callbacks"][STOPPED].update(stopping_reason=99),  # there is no such
        lambda held: held["callbacks"]["Timer"]["time_elapsed"].update(train="long"),
    ):
        ran = resume(spoil)
        assert ran.code == 2, ran.out
        assert ran.err.startswith("lightning: error: checkpoint ")
        assert ran.err.count("\n") == 1
        assert "last.ckpt" in ran.err


VALUES = (None, "", "x", 5, -1, 1.5, True, [], [1], {}, {5: 5}, (1,), 10**30, 10**5000, 1j, b"x")
TENSORS = (
    torch.tensor(1.0),
    torch.ones(2),
    torch.ones(1, 716, 8, dtype=torch.long),
    torch.ones(3, device="meta"),
    torch.ones(2).to_sparse(),
)


def places(value):
    """All dictionaries and lists in a nested value that have something in them."""
    if isinstance(value, dict | list):
        keys = list(value) if isinstance(value, dict) else range(len(value))
        yield from ((value, key) for key in keys)
        for key in keys:
            yield from places(value[key])


def change_something(checkpoint, rng):
    everywhere = list(places(checkpoint))
    parent, key = everywhere[rng.integers(len(everywhere))]
    values = [*VALUES, *TENSORS]
    match rng.integers(3):
        case 0:
            del parent[key]
        case 1 if isinstance(parent[key], dict):
            parent[key][(1, 2)] = values[rng.integers(len(values))]
        case _:
            parent[key] = values[rng.integers(len(values))]


@pytest.mark.parametrize("number", [15, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # of a ModelCheckpoint that knows no files, and of torch
def test_any_other_value_is_refused_or_does_no_harm(resume, number, count):
    """Whatever is changed: one message or a run to the end."""
    refused = 0
    for index in range(number):
        rng = np.random.default_rng(index)
        command = ("fit", "fit", "validate", "predict")[index % 4]
        ran = resume(lambda held, rng=rng: change_something(held, rng), command)
        assert ran.code in (0, 2), (index, ran.err)
        refused += ran.code == 2
        assert ran.code == 0 or "last.ckpt" in ran.err.splitlines()[-1], (index, ran.err)
    assert 0.5 * number < refused < number
    count(f"checkpoints with a changed entry: {number}, {refused} refused, the others ran")


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
