"""Decision processes and real environments that tests share."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from matplotlib.figure import Figure

from sepsis_rl.cli import main
from sepsis_rl.cli.main import BEGINNING
from sepsis_rl.data import OfflineDataModule
from sepsis_rl.envs import make_env
from sepsis_rl.mdp import DoseGrid, Strategy, TabularMDP, load_icu_sepsis
from sepsis_rl.registration import import_icu_sepsis

# It registers its environments a second time, of which pytest's own filters would make an error.
import_icu_sepsis()

# The tensors of tests are small, and on a busy machine threads that wait for each other cost more
# than they save.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mdp() -> TabularMDP:
    """The real thing."""
    return load_icu_sepsis()


@pytest.fixture(scope="session")
def make_real_env() -> Callable[..., gymnasium.Env[Any, Any]]:
    """`make_env`, but its environments share the tables: reading them takes a second."""
    real: Any = make_env().unwrapped
    from icu_sepsis.utils.io import MDPParameters

    tables = real.dynamics
    params = MDPParameters.create(
        tables["tx_mat"],
        tables["r_mat"],
        tables["d_0"],
        real.expert_policy,
        tables["admissible_actions"],
        real.state_cluster_centers,
        real.sofa_scores,
        real.env_metadata,
    )

    def make(strategy: Strategy = "mean") -> gymnasium.Env[Any, Any]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("icu_sepsis.envs.sepsis.MDPParameters", lambda folder: params)
            return make_env(strategy)

    return make


@pytest.fixture(scope="session")
def real(make_real_env: Callable[[], gymnasium.Env[Any, Any]]) -> Any:
    """A real environment without its wrappers."""
    return make_real_env().unwrapped


@pytest.fixture(scope="session")
def chain_mdp() -> TabularMDP:
    """Two patient states, death (2), survival (3) and the end (4); two actions.

    In state 0, "wait" (0) leads to state 0 or 1, half and half; "treat" (1) to death or survival,
    half and half. In state 1, "wait" leads to survival with probability 3/4, else death; "treat"
    is inadmissible and the other way round. Three quarters of the patients start in state 0.
    """
    rows = [
        [1 / 2, 1 / 2, 0, 0, 0],
        [0, 0, 1 / 2, 1 / 2, 0],
        [0, 0, 1 / 4, 3 / 4, 0],
        [0, 0, 3 / 4, 1 / 4, 0],
        [0, 0, 0, 0, 1],
    ]
    admissible = np.ones((5, 2), dtype=np.bool_)
    admissible[1, 1] = False
    return TabularMDP(
        environment_id="Chain-v0",
        environment_version="1",
        rows=sp.csr_array(rows),
        row_index=np.array([[0, 1], [2, 3], [4, 4], [4, 4], [4, 4]]),
        rewards=np.array([0.0, 0.0, 0.0, 1.0, 0.0]),
        start=np.array([3 / 4, 1 / 4, 0.0, 0.0, 0.0]),
        admissible=admissible,
        clinician=np.array([[0.5, 0.5], [0.9, 0.1], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
        sofa_scores=np.array([4.0, 9.0, 0.0, 0.0, 0.0]),
        state_vectors=np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
        death_state=2,
        survival_state=3,
        terminal=np.array([False, False, True, True, True]),
        max_episode_steps=50,
        dose_grid=DoseGrid(1, 2),
    )


@pytest.fixture
def waiting_mdp(chain_mdp: TabularMDP) -> TabularMDP:
    """The chain whose patients all start in state 0, where "wait" keeps them; 7 steps at most."""
    rows = chain_mdp.rows.toarray()
    rows[0] = [1, 0, 0, 0, 0]
    start = np.array([1.0, 0, 0, 0, 0])
    return replace(chain_mdp, rows=sp.csr_array(rows), start=start, max_episode_steps=7)


# -- counts ------------------------------------------------------------------------------------


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Notes what a test of many cases has counted, for the end of the output."""
    return lambda counted: record_property("counted", counted)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Shows what tests have counted, whichever process they ran in."""
    reports = [report for report in terminalreporter.stats.get("", ()) if report.when == "teardown"]
    counted = [value for report in reports for _, value in report.user_properties]
    if counted:
        terminalreporter.section("counted")
        terminalreporter.write("".join(f"{line}\n" for line in sorted(counted)))


# -- the command -------------------------------------------------------------------------------

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Ran:
    """What a command left on the screen, but for the line that it begins with."""

    code: int
    out: str
    err: str


class Command:
    """The `lightning` command in this process: small networks, few episodes, few steps."""

    def __init__(self, records: Path, capsys: pytest.CaptureFixture[str] | None = None) -> None:
        self.small = (
            "--model.embedding_dim=8",
            "--model.hidden_dims=[16]",
            "--data.episodes=200",
            "--data.held_out_episodes=50",
            "--data.report_episodes=50",
            f"--data.cache_dir={records}",
            "--evaluation.patients=200",
            "--ope.resamples=10",
            "--trainer.accelerator=cpu",
            "--trainer.max_steps=10",
            "--trainer.val_check_interval=4",
            "--trainer.log_every_n_steps=2",
        )
        self._capsys = capsys

    def main(self, *words: str) -> Ran:
        """Runs just these words."""
        code = main([str(word) for word in words])
        out, err = self._capsys.readouterr() if self._capsys is not None else ("", "")
        return Ran(code, out, err.removeprefix(f"{BEGINNING}\n"))

    def __call__(self, command: str, config: str, *options: str) -> Ran:
        """Runs a command on one of `configs/`, made small."""
        return self.main(command, f"--config={CONFIGS / config}.yaml", *self.small, *options)


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for simulated episodes."""
    return tmp_path_factory.mktemp("episodes")


@pytest.fixture(scope="session")
def data(records: Path) -> OfflineDataModule:
    """About 1,900 real transitions, loaded; batches of 32. Not to be changed."""
    data = OfflineDataModule(
        episodes=200,
        held_out_episodes=50,
        report_episodes=50,
        batch_size=32,
        cache_dir=str(records),
    )
    data.prepare_data()
    data.setup()
    return data


@pytest.fixture(scope="session")
def small(records: Path) -> tuple[str, ...]:
    """The options that make a command small."""
    return Command(records).small


@pytest.fixture
def lightning(
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """The command, in an empty folder and with room on the screen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    # Drawing would take most of the time of a short run; `finished_runs` has real pictures.
    monkeypatch.setattr(
        "sepsis_rl.callbacks.dose_images.draw_dose_grid", lambda *_: Figure(figsize=(0.1, 0.1))
    )
    return Command(records, capsys)


@pytest.fixture(scope="session")
def finish(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a folder with `runs/` of a finished fit of each kind, of 10 steps."""

    def finish(configs: str) -> Path:
        folder = tmp_path_factory.mktemp("finished")
        run = Command(records)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for kind in ("cql", "bc", "dqn", "sweep"):
                options = [f"--trainer.logger.init_args.name={kind}"]
                if kind == "sweep":
                    options += ["--model.alpha=[0.1,1.0]", "--model.seed=[42,7]"]
                assert run("fit", configs + kind, *options).code == 0
        return folder

    return finish


@pytest.fixture(scope="session")
def finished_runs(finish: Callable[[str], Path]) -> Path:
    """Runs of the configs themselves, of 10 steps. Not to be written to."""
    return finish("")


@pytest.fixture
def runs(finished_runs: Path, lightning: Command, tmp_path: Path) -> Path:
    """A copy of the finished `runs/` in the folder where `lightning` runs."""
    return Path(shutil.copytree(finished_runs / "runs", tmp_path / "runs"))
