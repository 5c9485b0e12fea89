"""The `lightning` command."""

from sepsis_rl.cli.main import main

__all__ = ["main"]
