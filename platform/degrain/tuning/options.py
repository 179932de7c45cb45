"""The options of a study, shared by `tune.py` and `retrain.py`."""

import argparse
from dataclasses import replace

import ray

from degrain import cli
from degrain.training.config import MIXES
from degrain.tuning.space import SCALES
from degrain.tuning.study import StudyConfig


def add_study_options(made: argparse.ArgumentParser) -> None:
    """Add the options that make a StudyConfig."""
    default = StudyConfig()
    add = made.add_argument
    add(
        "--models",
        type=cli.names,
        default=",".join(default.models),
        help="architectures, separated by commas",
    )
    add("--trials", type=int, default=default.trials, help="configurations to try, over all architectures")
    add("--steps", type=int, default=default.steps, help="optimizer steps of a trial at most")
    add("--refit-steps", type=int, default=default.refit_steps, help="optimizer steps of a refit")
    add("--batch-size", type=int, default=default.batch_size, help="patches per step over all workers")
    add(
        "--crop",
        type=int,
        default=default.crop,
        help="side of the random crop from each patch, pixels; 0: all of it",
    )
    add("--mix", choices=MIXES, default=default.mix, help="show patches as they come, or all cameras and ISOs evenly")
    add("--workers", type=int, help="Ray Train workers of a refit (default: 2, or 1 on a single CPU)")
    add("--gpus", type=float, help="GPUs per trial and worker (default: 1 where the cluster has any)")
    add("--scale", choices=SCALES, help="size of the networks searched (default: paper with GPUs, else small)")
    add("--test-photos", type=int, default=default.test_photos, help="whole test photos compared at most")
    add("--seed", type=int, default=default.seed, help="seeds trials and training")


def study_config(options: argparse.Namespace) -> StudyConfig:
    """The study that the options describe. Raises ValueError for what cannot be."""
    default = StudyConfig()
    return StudyConfig(
        models=options.models,
        trials=options.trials,
        steps=options.steps,
        refit_steps=options.refit_steps,
        batch_size=options.batch_size,
        crop=options.crop or None,
        mix=options.mix,
        workers=default.workers if options.workers is None else options.workers,
        gpus=options.gpus or 0,
        scale=options.scale or default.scale,
        test_photos=options.test_photos,
        seed=options.seed,
    )


def fitted_to_cluster(config: StudyConfig, options: argparse.Namespace) -> StudyConfig:
    """The study with what the user left open decided by the cluster's resources."""
    there = ray.cluster_resources()
    if options.gpus is None and there.get("GPU", 0) >= 1:
        config = replace(config, gpus=1)
    if options.scale is None and config.gpus:
        config = replace(config, scale="paper")
    if options.workers is None:
        units = there.get("GPU", 0) / config.gpus if config.gpus else there.get("CPU", 1)
        config = replace(config, workers=max(1, min(config.workers, int(units))))
    return config
