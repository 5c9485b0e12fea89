"""Lightning's CLI with this project's data, callbacks, defaults and rules for checkpoints."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import (
    ArgsType,
    LightningArgumentParser,
    LightningCLI,
    SaveConfigCallback,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from sepsis_rl.algorithms import OfflineAlgorithm
from sepsis_rl.callbacks import (
    BaselineCurves,
    DoseGridImages,
    FitProgressBar,
    GracefulStop,
    LastCheckpoint,
    OffPolicyEvaluation,
    PolicyEvaluation,
    PolicyExport,
    RecordedSettings,
    Results,
)
from sepsis_rl.callbacks.announcement import Announcement
from sepsis_rl.callbacks.monitors import check_monitors
from sepsis_rl.callbacks.policy_evaluation import find_callback
from sepsis_rl.cli.completion import hand_over_if_asked
from sepsis_rl.cli.limits import check_values
from sepsis_rl.cli.main import TRAINING_COMMANDS
from sepsis_rl.cli.run_folders import RunTrainer, go_on, runs_of, write_into
from sepsis_rl.cli.training_parser import HelpAll, TrainingParser, configs_first
from sepsis_rl.data.batches import check_batch_size
from sepsis_rl.data.datamodule import OfflineDataModule
from sepsis_rl.display import shown, tell
from sepsis_rl.errors import InputError
from sepsis_rl.loggers import RunLogger
from sepsis_rl.runs.checkpoints import (
    SafeCheckpointIO,
    compare_schedules,
    compare_with,
    find_last,
    run_folder,
)
from sepsis_rl.runs.untrusted import check_restorable

DEFAULTS: Final = Path(__file__).with_name("defaults.yaml")
"""What stands where neither a config nor the command line says anything else."""
_OF_OPTIONS: Final = (ValueError, TypeError, ImportError, RuntimeError, OverflowError)

_OF_POLICIES: Final = ("model.actions:", "model.min_action_count:", "model.sampled:")


class SepsisCLI(LightningCLI):
    """LightningCLI with this project's data, callbacks and rules for checkpoints.

    Args:
        args: Words after the program's name.
    """

    trainer: RunTrainer

    def __init__(self, words: list[str]) -> None:
        self._words = words
        command = {
            "parser_mode": "omegaconf+",  # ${...} follows the command line
            "default_config_files": [glob.escape(str(DEFAULTS))],
            "description": TRAINING_COMMANDS[words[0]],
        }
        super().__init__(
            OfflineAlgorithm,
            OfflineDataModule,
            subclass_mode_model=True,
            save_config_callback=SaveConfigCallback,
            parser_class=TrainingParser,
            parser_kwargs={"parser_mode": "omegaconf+", words[0]: command},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            trainer_class=RunTrainer,
            args=[
                "--print_config=comments" if w == "--print_config" else w
                for w in configs_first(words)
            ],
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command that was asked for, and the arguments of Lightning's that are settled."""
        command = self._words[0]
        fixed = {"ckpt_path", "datamodule", "weights_only", "verbose", "return_predictions"}
        return {command: LightningCLI.subcommands()[command] | fixed}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that belong to no group."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            help="Seed of the run, which the models of configs/ take over.",
        )
        parser.add_argument("--help_all", action=HelpAll)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the groups in the order in which a reader needs them."""
        parser.add_lightning_class_args(OfflineAlgorithm, "model", subclass_mode=True)
        parser.add_lightning_class_args(OfflineDataModule, "data")
        parser.add_lightning_class_args(PolicyEvaluation, "evaluation")
        parser.add_lightning_class_args(OffPolicyEvaluation, "ope")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(pl.Trainer, "trainer")

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Path or address of a checkpoint, or last for the newest of this run's name.",
        )
        if subcommand == "predict":
            parser.add_argument(
                "--member",
                type=int,
                default=0,
                help="Member whose policy is written, counted from 0.",
            )
            about = "File to write; policy.csv in the run's folder by default."
            parser.add_argument("--output", type=str | None, default=None, help=about)
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parses the options."""
        hand_over_if_asked(self._parser(self._words[0]), self._words)
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: what the config says beats what the checkpoint holds."""

    def before_instantiate_classes(self) -> None:
        """Checks values that no type checks, and lets only `fit` write a run folder."""
        check_values(self.config[str(self.subcommand)].as_dict())
        if self.subcommand != "fit":
            self.save_config_callback = None

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:  # numpy's bounds
            raise InputError(f"seed_everything: {error}") from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Adds what is not configured: results, pictures and the progress bar."""
        config = self._get(self.config_init, "trainer")
        self.runs = self._runs(config)
        if config["logger"] in (True, None):
            config["logger"] = self.runs
        self.results = Results()
        self.settings = RecordedSettings(self._plain_config())
        callbacks: list[pl.Callback] = [self.results, self.settings]
        if self.subcommand == "fit":
            callbacks += [BaselineCurves(), DoseGridImages(), Announcement(), LastCheckpoint()]
            if config.get("enable_progress_bar") is not False:
                callbacks.append(FitProgressBar())
            callbacks.append(GracefulStop(self._words))  # after the bar, which leaves the screen
        else:
            kwargs = {"logger": False, "enable_progress_bar": False, **kwargs}
        if self.subcommand == "predict":
            options = self.config_init["predict"]
            callbacks.append(PolicyExport(options["member"], options["output"]))
        self.trainer_defaults["callbacks"] = callbacks
        plugins = config.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        self.checkpoint_io = SafeCheckpointIO()
        kwargs = {"plugins": [self.checkpoint_io, *plugins], **kwargs}
        try:
            trainer = super().instantiate_trainer(**kwargs)
        # ImportError: of an accelerator's package. RuntimeError: of what SLURM says.
        except (MisconfigurationException, *_OF_OPTIONS) as error:
            if not re.search("accelerator|device|backend|gpu|xla|index", str(error), re.IGNORECASE):
                raise InputError(f"trainer: {error}") from error
            found = "cuda" if torch.cuda.is_available() else "cpu"
            raise InputError(
                f"trainer.accelerator={config.get('accelerator')}, trainer.devices="
                f"{config.get('devices')} cannot be used: {error} This machine has "
                f"{max(torch.cuda.device_count(), 1)} device(s) of kind {found}"
            ) from error
        cores = os.cpu_count() or 1
        if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > cores:
            why = f"on the CPU a device is a process, and this machine has {cores} core(s)"
            raise InputError(f"trainer.devices={trainer.num_devices} cannot be used: {why}")
        return trainer

    def before_fit(self) -> None:
        """Finds the checkpoint to go on from, and the folder to write into."""
        self._find_start()
        if not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.results.run_folder = Path(self.runs.log_dir)
            write_into(self.trainer, self.results.run_folder)

    def _find_start(self) -> None:
        check_batch_size(self.datamodule.batch_size, self.trainer.world_size)
        self.model.check_fit(self.trainer, self.datamodule)
        check_monitors(self.trainer, self.model, self.datamodule)
        path = self._resolve_checkpoint()
        if path is None:
            self._prepare_data()
            return
        checkpoint = self._inspect_checkpoint(path)
        if "optimizer_states" not in checkpoint:
            raise InputError(f"checkpoint {path} holds weights alone; a fit cannot go on from it")
        for difference in compare_schedules(checkpoint, self.model, self.trainer.max_steps):
            tell(f"Note: {difference}", error=True)
        self._prepare_data()
        go_on(self.trainer, self.runs, checkpoint, path)
        step = int(checkpoint["global_step"])
        tell(f"Going on from step {step:,} of {shown(path)}")
        if step >= self.trainer.max_steps > 0:
            tell(
                f"It has taken its trainer.max_steps={self.trainer.max_steps} steps already; "
                "a larger number goes on training"
            )

    def before_validate(self) -> None:
        """Finds the checkpoint to score."""
        path = self._resolve_checkpoint()
        if path is None:
            wanted = "--ckpt_path PATH, or --ckpt_path last"
            raise InputError(f"{self.subcommand} scores a checkpoint: give {wanted}")
        self._inspect_checkpoint(path)
        self._prepare_data()
        self.results.run_folder = run_folder(path)
        if export := find_callback(self.trainer, PolicyExport):
            export.run_folder = run_folder(path)

    before_test = before_validate
    before_predict = before_validate

    def _prepare_data(self) -> None:
        """Collects and checks the data before anything is written or another process started."""
        if self.trainer.is_global_zero:
            self.datamodule.prepare_data()

    def _resolve_checkpoint(self) -> str | None:
        options = self.config_init[str(self.subcommand)]
        path = options.get("ckpt_path")
        if path == "last":
            root = Path(self.runs.root_dir)
            path = str(find_last(root.parent, root.name))
        options["ckpt_path"] = path
        return None if path is None else str(path)

    def _runs(self, trainer: Any) -> RunLogger | TensorBoardLogger | CSVLogger:
        """What numbers this config's runs; of a logger without a name by the algorithm's."""
        model = self._get(self.config_init, "model")
        configured = self._get(self.config, "trainer")["logger"]
        name = getattr(getattr(configured, "init_args", None), "name", None)
        return runs_of(
            trainer["logger"], name or type(model).__name__.lower(), trainer["default_root_dir"]
        )

    def _plain_config(self) -> dict[str, Any]:
        """The config as it would be written into the run's folder."""
        config = self.config[str(self.subcommand)]
        text = self._parser(self.subcommand).dump(config, skip_validation=True)
        return yaml.safe_load(text)  # type: ignore[no-any-return]

    def _inspect_checkpoint(self, path: str) -> dict[str, Any]:
        checkpoint = self.checkpoint_io.inspect(path)
        sizes = (self.datamodule.n_states, self.datamodule.n_actions)
        differences = compare_with(checkpoint, self.model, sizes, path)
        check_restorable(checkpoint, self.trainer, path)
        if self.subcommand == "fit":
            differences += self.settings.differences(checkpoint)
        else:  # what a run was trained by makes no difference to what its policy is worth
            differences = [line for line in differences if line.startswith(_OF_POLICIES)]
        for difference in differences:
            tell(f"Note: {difference} (used)", error=True)
        return checkpoint

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        ckpt_path = self.config_init[subcommand]["ckpt_path"]
        settled: dict[str, Any] = {"ckpt_path": ckpt_path, "weights_only": True}
        quiet = {"validate": "verbose", "test": "verbose", "predict": "return_predictions"}
        if subcommand in quiet:
            settled[quiet[subcommand]] = False
        return {**super()._prepare_subcommand_kwargs(subcommand), **settled}
