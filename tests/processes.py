"""The `lightning` command in real processes, without waiting for its imports each time."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
from pathlib import Path

# Its children begin with everything imported.
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["sepsis_rl.cli.training"])


def _run(words, folder, environment):
    """What the process does: the command, and on SIGUSR2 the names of the functions it is in."""
    import torch
    from matplotlib.figure import Figure

    from sepsis_rl.callbacks import dose_images
    from sepsis_rl.cli import main

    # Drawing would take most of the time of a short run.
    dose_images.draw_dose_grid = lambda *_: Figure(figsize=(0.1, 0.1))

    os.chdir(folder)
    os.environ.update(environment)
    with open("screen", "wb") as screen, open("stack.new", "w") as stack:
        os.dup2(screen.fileno(), 1)
        os.dup2(screen.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")

        # Not by faulthandler: it looks in the middle of an instruction, which not every frame
        # survives.
        def tell_where(_, frame):
            names = (at.f_code.co_name for at, _ in traceback.walk_stack(frame))
            print(*names, file=stack, flush=True)

        signal.signal(signal.SIGUSR2, tell_where)
        os.rename("stack.new", "stack")  # there once the signal is taken
        torch.set_num_threads(1)
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


class CommandProcess:
    """A command that runs in a folder of its own making.

    Args:
        words: What stands after `lightning`.
        folder: Where it runs; what it prints goes to `screen` there.
        environment: Variables set for it.
    """

    def __init__(self, words, folder, **environment):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = _SERVER.Process(
            target=_run, args=([str(word) for word in words], str(folder), environment)
        )
        self._process.start()

    def send(self, number):
        """Sends a signal."""
        os.kill(self._process.pid, number)

    @property
    def running(self):
        """Whether it has not ended."""
        return self._process.exitcode is None

    def wait(self, timeout_s=120):
        """Waits for the end.

        Returns:
            The exit code, or minus the signal that ended it.
        """
        self._process.join(timeout_s)
        if self.running:
            self._process.kill()
            raise TimeoutError(self.screen)
        return self._process.exitcode

    def wait_until(self, holds, timeout_s=60):
        """Waits for a condition, looking a thousand times a second."""
        end = time.monotonic() + timeout_s
        while not holds():
            if not self.running or time.monotonic() > end:
                raise TimeoutError(f"it did not come to that; the screen:\n{self.screen}")
            time.sleep(0.001)

    def is_in(self, function):
        """Whether a function of that name is running."""
        stack = self.folder / "stack"
        if not stack.exists():
            return False
        size = stack.stat().st_size
        self.send(signal.SIGUSR2)
        while stack.stat().st_size == size and self.running:
            time.sleep(0.0005)
        return function in stack.read_bytes()[size:].decode().split()

    @property
    def screen(self):
        """What it has printed."""
        path = self.folder / "screen"
        return path.read_text() if path.exists() else ""
