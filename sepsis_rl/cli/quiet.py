"""Warnings and notices of libraries that a user can do nothing about."""

from __future__ import annotations

import logging
import threading
import warnings

_IGNORED = (
    ".*LightningCLI's args parameter.*",
    # Nothing is loaded by workers here, and a resumed run belongs in its own folder.
    ".*does not have many workers.*",
    ".*The dirpath has changed.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    # What is monitored now and was not before is told as a difference.
    ".*callbacks used to create the checkpoint need to be provided.*",
    # It is: batches are addressed by the step.
    ".*your dataloader is not resumable.*",
    # All processes compute the same figures.
    ".*It is recommended to use .*sync_dist=True.*",
)


def quiet() -> None:
    """Filters warnings that a user can do nothing about, and errors that are told elsewhere."""
    threading.excepthook = _report_thread
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A resumed run's curves have what was logged twice, which TensorBoard sorts out by itself.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # of torch's, in Lightning
    for message in _IGNORED:
        warnings.filterwarnings("ignore", message)


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    """Reports an exception of a thread, but for a file's.

    TensorBoard writes in a thread, and raises what went wrong there again where it is waited for.
    """
    if not isinstance(failed.exc_value, OSError):
        threading.__excepthook__(failed)
