"""The commands of this room: what they cannot use is refused before PyTorch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sepsis_rl.errors import InputError
from sepsis_rl.files import refuse_existing
from sepsis_rl.report.refusals import check_any_reportable, describe_comparable


def report(folders: Sequence[str | Path], output: Path, *, tries: int = 500) -> None:
    """Writes pages, pictures and tables, and prints the essay's claims.

    Args:
        folders: Folders of runs, `runs/<name>/version_N`.
        output: Folder to write to; new or empty.
        tries: Number of times that the essay's protocol is simulated.

    Raises:
        InputError: No run is usable, `output` is not empty, or `tries` is out of range.
    """
    if not 1 <= tries <= 1_000_000:
        raise InputError(f"--tries {tries} is out of range; accepted: 1 to 1,000,000")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output} exists already; give another name")
    check_any_reportable(folders)
    from sepsis_rl.report.assembly import write_report

    write_report(folders, output, tries)


def compare(
    folders: Sequence[str | Path],
    *,
    output: Path | None = None,
    patients: int = 10_000,
    seed: int = 0,
) -> None:
    """Prints what the policies of runs are worth side by side, and in what the runs differ.

    Every member is compared with the best by recorded data alone: on the same simulated patients,
    or where no environment simulates them on the same resampled episodes.

    Args:
        folders: Folders of runs, `runs/<name>/version_N`, on the same records.
        output: Folder to write a page, its figure and its tables to; new. Without it nothing is
            written.
        patients: Number of simulated patients.
        seed: Seed of the patients, or of the resampled episodes. With a run's own seed, 0 by
            default, its patients are those of its evaluations.

    Raises:
        InputError: A run is unfinished or cannot be compared with the others, a number is out of
            range, or `output` exists.
    """
    for name, value, least in (("patients", patients, 2), ("seed", seed, 0)):
        if value < least:
            raise InputError(f"--{name} {value} is out of range; accepted: {least} and more")
    if output is not None:
        refuse_existing(output)
    runs = describe_comparable(folders)
    from sepsis_rl.report.comparison import compare_policies
    from sepsis_rl.report.comparison_pages import print_comparison, write_comparison

    comparison = compare_policies(runs, patients=patients, seed=seed)
    print_comparison(comparison)
    if output is not None:
        write_comparison(comparison, output)
