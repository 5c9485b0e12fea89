"""The TensorBoard logger: whose curves go where, and what TensorBoard makes of them."""

import json
import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.loggers import LAYOUT, METRICS, SETTINGS, RunLogger, tag_of
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import clinician_policy, optimal_policy


@pytest.fixture
def logger(tmp_path):
    logger = RunLogger(str(tmp_path), "cql")
    yield logger
    logger.finalize("success")


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def points(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


def hyper_parameters(folder):
    """What the HPARAMS page has of a run: its settings, its row's name, columns and metrics."""
    events, found = read(folder), {}
    for part in ("experiment", "session_start_info"):
        plugin = events.SummaryMetadata(f"_hparams_/{part}").plugin_data
        content = plugin_data_pb2.HParamsPluginData.FromString(plugin.content)
        found[part] = getattr(content, part)
    start, page = found["session_start_info"], found["experiment"]
    values = start.hparams.items()
    settings = {name: value.string_value or value.number_value for name, value in values}
    columns = [info.name for info in page.hparam_infos]
    return settings, start.group_name, columns, [info.name.tag for info in page.metric_infos]


# -- folders -----------------------------------------------------------------------------------


def test_a_run_takes_the_next_number(tmp_path):
    for name in ("version_0", "version_7", "notes"):
        (tmp_path / "cql" / name).mkdir(parents=True)
    assert Path(RunLogger(str(tmp_path), "cql").log_dir) == tmp_path / "cql" / "version_8"
    assert Path(RunLogger(str(tmp_path), "bc").log_dir) == tmp_path / "bc" / "version_0"


def test_nothing_is_written_before_there_is_something(tmp_path):
    logger = RunLogger(str(tmp_path), "cql")
    logger.log_hyperparams({"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_parents_own_file_is_not_written(logger):
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.log_hyperparams({"alpha": 1.0})
    logger.save()
    assert [path.name.split(".tfevents")[0] for path in Path(logger.log_dir).iterdir()] == [
        "events.out"
    ]


# -- curves ------------------------------------------------------------------------------------


def test_metrics_go_to_the_run_and_to_its_members(logger):
    logger.log_metrics({"train/loss": 1.0, "a=1,seed=2/train/loss": 2.0, "a=0.5/val/x": 3.0}, 5)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0.0}, 6)
    logger.save()
    run = Path(logger.log_dir)
    assert points(run, "train/loss") == [(5, 1.0), (6, 0.5)]
    assert read(run).Tags()["scalars"] == ["train/loss"]
    assert points(run / "members" / "a=1,seed=2", "train/loss") == [(5, 2.0)]
    assert points(run / "members" / "a=0.5", "val/x") == [(5, 3.0)]


def test_a_point_is_written_once(logger):
    """When a run stops, Lightning logs its last values once more."""
    for step, value in ((5, 1.0), (5, 1.0), (6, 1.0), (6, 1.0)):
        logger.log_metrics({"train/loss": value, "m=1/train/loss": value}, step)
    logger.log_metrics({"val/loss": 2.0}, 6)
    logger.save()
    for folder in (Path(logger.log_dir), Path(logger.log_dir, "members", "m=1")):
        assert points(folder, "train/loss") == [(5, 1.0), (6, 1.0)]
    assert points(logger.log_dir, "val/loss") == [(6, 2.0)]


# -- pages -------------------------------------------------------------------------------------


def test_the_layout_is_a_page_of_custom_scalars(logger):
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.log_metrics({"train/loss": 1.0}, 2)
    logger.save()
    (event,) = read(logger.log_dir).Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [category.title for category in layout.category] == list(LAYOUT)
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    margin = charts["rollouts with 95 % interval"].margin.series[0]
    assert (margin.value, margin.lower, margin.upper) == (
        "Survival/rollouts",
        "val/survival_rate_low",
        "val/survival_rate_high",
    )


@pytest.mark.parametrize("config", ["cql", "bc"])
def test_every_chart_of_the_layout_has_its_curves(finished_runs, config):
    """Its tags are regular expressions, which TensorBoard anchors at the beginning."""
    tags = read(finished_runs / "runs" / config / "version_0").Tags()["scalars"]
    for charts in LAYOUT.values():
        for title, (_, patterns) in charts.items():
            shown = [tag for tag in tags if any(re.match(pattern, tag) for pattern in patterns)]
            values = title.startswith(("Q of", "the network's own"))
            assert shown or (config == "bc" and values), title
    if config == "cql":
        charts = {title: chart for group in LAYOUT.values() for title, chart in group.items()}
        for title, expected in (
            ("Q of the data's actions and largest Q", {"train/q_data", "train/q_max"}),
            ("exact, with clinician, tabular baseline and optimum", {"Survival/exact"}),
            ("the network's own estimate", {"val/value_estimate"}),
        ):
            _, patterns = charts[title]
            assert {tag for tag in tags if any(re.match(p, tag) for p in patterns)} == expected


def test_survival_comes_first(finished_runs):
    """Before all other groups in the order of TensorBoard's first page, and alone in its group."""
    tags = sorted(read(finished_runs / "runs/cql/version_0").Tags()["scalars"])
    assert tags[:3] == ["Survival/exact", "Survival/rollouts", "ope/anchored_value"]


def test_baselines_are_lines_beside_exact_survival(finished_runs, mdp):
    dynamics = true_dynamics(mdp)
    for config in ("cql", "sweep"):
        run = finished_runs / "runs" / config / "version_0"
        for name, policy in (("clinician", clinician_policy), ("optimal", optimal_policy)):
            survival = evaluate(dynamics, policy(mdp).probabilities).survival
            expected = [(step, pytest.approx(survival, rel=1e-6)) for step in (4, 8, 10)]
            assert points(run / name, "Survival/exact") == expected
        fit = json.loads((run / "metrics.json").read_text())["fit"]["policies"]["tabular"]
        (*_, (step, survival)) = points(run / "tabular", "Survival/exact")
        assert (step, survival) == (10, pytest.approx(fit["survival_exact"], rel=1e-6))
        assert read(run / "tabular").Tags()["scalars"] == ["Survival/exact"]


@pytest.mark.parametrize(
    ("config", "member", "settings"),
    [
        ("cql", "", {"algorithm": "CQL", "alpha": 0.003, "temperature": 0.01, "seed": "42"}),
        ("bc", "", {"algorithm": "BC", "seed": "42", "learning_rate": 1e-3}),
        ("sweep", "alpha=1,seed=7", {"algorithm": "CQL", "alpha": 1.0, "seed": "7", "gamma": 1.0}),
    ],
)
def test_hyper_parameters_are_shown_with_the_figures(finished_runs, config, member, settings):
    """TensorBoard takes the columns of one run for all, and rows of one name for one."""
    run = finished_runs / "runs" / config / "version_0"
    run = run / "members" / member if member else run
    shown, row, columns, metrics = hyper_parameters(run)
    data = {"train_data": "simulated", "train_episodes": "200", "train_seed": "42"}
    assert shown.items() >= {**settings, **data}.items()
    assert set(shown) <= set(columns)
    assert columns == list(SETTINGS)
    assert row == f"{config}/version_0 {member}".strip()
    assert (
        metrics
        == [tag_of(metric) for metric in METRICS]
        == [
            "Survival/exact",
            "ope/supported_value",
        ]
    )
    assert set(metrics) <= set(read(run).Tags()["scalars"])
