"""Judging policies on simulated data sets, side by side in several processes."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from sepsis_rl import __version__
from sepsis_rl.data.collection import collect
from sepsis_rl.dynamics import true_dynamics
from sepsis_rl.mdp import TabularMDP
from sepsis_rl.ope import (
    ESTIMATORS,
    Episodes,
    OffPolicyOptions,
    evaluate_off_policy,
)
from sepsis_rl.ope.criteria import criterion_values
from sepsis_rl.planning import evaluate
from sepsis_rl.policies import Policy, clinician_policy
from sepsis_rl.scorecard.accuracy import CRITERIA_KEPT, Estimates, KnownPolicy

EPSILON: Final = 0.01

DataSet = tuple[int, int]
"""Number of episodes and seed."""


@dataclass(frozen=True, eq=False)
class Judge:
    """All that a data set is judged with but its size and seed."""

    mdp: TabularMDP
    policies: tuple[KnownPolicy, ...]
    resamples: int

    def __call__(self, episodes: int, seed: int) -> Estimates:
        """Collects a data set of the clinician's and judges all policies on it."""
        mdp = self.mdp
        data = collect(mdp, clinician_policy(mdp), episodes=episodes, seed=seed)
        scores = evaluate_off_policy(
            [known.policy for known in self.policies],
            Episodes(data, mdp.n_states, mdp.n_actions),
            options=OffPolicyOptions(epsilon=EPSILON, resamples=self.resamples, seed=seed),
        )
        intervals = [scores.interval(name) for name in ESTIMATORS]
        chosen = np.array([known.is_candidate for known in self.policies])
        among = dataclasses.replace(
            scores,  # of which criteria see the candidates alone
            estimates={name: values[chosen] for name, values in scores.estimates.items()},
            replicates={name: values[:, chosen] for name, values in scores.replicates.items()},
        )
        criteria = np.full((len(CRITERIA_KEPT), len(chosen)), -np.inf)
        criteria[:, chosen] = [criterion_values(among, criterion) for criterion in CRITERIA_KEPT]
        tables = (policy.probabilities for policy in scores.policies)
        return Estimates(
            estimate=np.stack([scores.estimates[name] for name in ESTIMATORS]),
            low=np.stack([interval.low.numpy() for interval in intervals]),
            high=np.stack([interval.high.numpy() for interval in intervals]),
            criteria=criteria,
            survival=np.array([evaluate(true_dynamics(mdp), table).survival for table in tables]),
            ess=scores.effective_sample_size,
            unseen_rate=scores.unseen_rate,
        )

    def configuration(self, episodes: int, seed: int) -> dict[str, Any]:
        """What the estimates of a data set depend on."""
        return {
            "version": __version__,
            "environment": [self.mdp.environment_id, self.mdp.environment_version],
            "policies": [
                [known.policy.name, known.kind, known.is_candidate, _hash(known.policy)]
                for known in self.policies
            ],
            "estimators": list(ESTIMATORS),
            "epsilon": EPSILON,
            "clip": None,
            "resamples": self.resamples,
            "episodes": episodes,
            "seed": seed,
        }


def _hash(policy: Policy) -> str:
    table = policy.probabilities.astype("<f8")
    return hashlib.sha256(np.ascontiguousarray(table).data).hexdigest()[:16]


def _start_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for its next data set forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def judge_all(
    judge: Judge,
    data_sets: Sequence[DataSet],
    processes: int,
    keep: Callable[[DataSet, Estimates], None],
) -> None:
    """Judges data sets side by side and hands each over when it is done.

    Args:
        judge: What is done.
        data_sets: To what.
        processes: One works here; more are spawned, since torch's threads do not survive a fork.
        keep: Called here, in the order in which they end.
    """
    processes = min(processes, len(data_sets))
    if processes <= 1:
        for data_set in data_sets:
            keep(data_set, judge(*data_set))
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    try:
        with _inherited_by_workers():
            # The judge travels with each task, some megabytes for seconds of work: given to the
            # processes at their start, it would hold up this one until they have read it.
            futures = {pool.submit(judge, *data_set): data_set for data_set in data_sets}
        for future in as_completed(futures):
            keep(futures[future], future.result())
    except BaseException:  # whatever it is, nobody waits for the data sets under way
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """What processes started inside have from birth: one BLAS thread, and no ear for Ctrl-C.

    Ctrl-C goes to all processes of a terminal, and each would print a traceback; this one alone
    handles it.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    can_set = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if can_set else None
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
