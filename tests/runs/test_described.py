"""What the folders of runs say in plain text."""

from pathlib import Path

import pytest

from sepsis_rl.errors import InputError
from sepsis_rl.runs.described import (
    Description,
    data_differences,
    describe,
    run_labels,
    setting_differences,
)

SIMULATED = {"path": None, "policy": "clinician", "episodes": 5000, "seed": 42, "n_states": None}
TABLE = {"path": "stays.csv", "n_states": 300, "n_actions": 9, "seed": 42, "report_share": 0.2}


def described(data, *, report=None, **settings):
    result = {"step": 10, "off_policy": {"content_hash": report}}
    return Description(Path("runs/a/version_0"), settings, data, result)


def test_a_finished_run(finished_runs):
    folder = finished_runs / "runs" / "sweep" / "version_0"
    run = describe(folder)
    assert (run.folder, run.name) == (folder, "runs/sweep/version_0")
    assert (run.sizes, run.strategy, run.result["step"]) == (None, "mean", 10)
    assert run.data["episodes"] == 200
    expected = {"model": "CQL", "model.alpha": [0.1, 1.0], "data.batch_size": "all", "ope.seed": 0}
    assert {name: run.settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (SIMULATED, {**SIMULATED, "cache_dir": "elsewhere", "batch_size": 8}, []),
        (SIMULATED, {**SIMULATED, "seed": 5}, ["data.seed (42 and 5)"]),
        (
            SIMULATED,
            {**SIMULATED, "episodes": 9, "policy": "random"},
            ["data.policy (clinician and random)", "data.episodes (5000 and 9)"],
        ),
        # One of them says what the other takes by default.
        ({**SIMULATED, "held_out_seed": None}, {**SIMULATED, "held_out_seed": 1000042}, []),
        (SIMULATED, {**SIMULATED, "path": "e.npz"}, ["data.path (None and e.npz)"]),
        (SIMULATED, TABLE, ["states and actions (ICU-Sepsis's and 300 × 9)"]),
        (TABLE, {**TABLE, "n_states": 200}, ["states and actions (300 × 9 and 200 × 9)"]),
        (TABLE, {**TABLE, "path": str(Path("stays.csv").resolve()), "episodes": 9}, []),
        (TABLE, {**TABLE, "report_share": 0.3}, ["data.report_share (0.2 and 0.3)"]),
    ],
)
def test_what_makes_records_differ(first, second, said):
    assert data_differences(described(first), described(second)) == said


def test_the_reports_episodes_tell_records_apart():
    one, two = "a" * 64, "b" * 64
    copied = {**TABLE, "path": "copy.csv"}
    assert data_differences(described(TABLE, report=one), described(copied, report=one)) == []
    (said,) = data_differences(described(TABLE, report=one), described(TABLE, report=two))
    assert said == f"the report's episodes (content hash {'a' * 12} and {'b' * 12})"
    (said,) = data_differences(described(TABLE), described(copied, report=one))
    assert said.startswith("data.path (")


def test_settings_that_differ():
    runs = [
        described({}, **{"model": "CQL", "model.alpha": 0.5, "model.tau": 1, "ckpt_path": "a"}),
        described({}, **{"model": "CQL", "model.alpha": [0.1, 1.0], "model.tau": 1}),
        described({}, **{"model": "BC", "ckpt_path": "b", "trainer.logger.init_args.name": "x"}),
    ]
    assert setting_differences(runs) == {
        "model": ["CQL", "CQL", "BC"],
        "model.alpha": ["0.5", "[0.1, 1.0]", "–"],
    }
    assert setting_differences(runs[:1]) == {}


def test_labels_tell_runs_apart():
    folders = [Path(f"/runs/{end}") for end in ("cql/version_0", "bc/version_1", "cql/version_1")]
    assert run_labels(folders[:1]) == [""]
    assert run_labels(folders[:2]) == ["cql", "bc"]
    assert run_labels(folders) == ["cql/version_0", "bc/version_1", "cql/version_1"]
    twice = [Path("/a/cql/version_0"), Path("/b/cql/version_0")]
    assert run_labels(twice) == [str(folder) for folder in twice]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metrics.json", None, "unfinished; `lightning fit --config runs/cql/version_0/"),
        ("metrics.json", '{"test": {}}', "unfinished"),
        ("metrics.json", "{", "metrics.json is damaged"),
        ("metrics.json", "[" * 100_000, "metrics.json is damaged"),
        ("metrics.json", "[3]", "metrics.json is damaged: it does not hold figures by name"),
        ("checkpoints/last.ckpt", None, "unfinished"),
        ("config.yaml", None, "is no run: accepted is a folder with config.yaml"),
        ("config.yaml", "data: [", "config.yaml: its settings of `data` cannot be used"),
        ("config.yaml", "data: 3", "config.yaml: its settings of `data` cannot be used"),
        ("config.yaml", "- data", "config.yaml: its settings of `data` cannot be used"),
        ("config.yaml", "\x00", "config.yaml: its settings of `data` cannot be used"),
    ],
)
def test_a_folder_that_cannot_be_used(runs, name, text, said):
    path = runs / "cql" / "version_0" / name
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError) as raised:
        describe(runs / "cql" / "version_0")
    assert said in str(raised.value)
