"""The training configuration: which values are refused, and how."""

import math
from dataclasses import replace

import pytest
from unit.training_support import CONFIG

from degrain.durations import Duration
from degrain.inference.config import Compiled
from degrain.training.config import TrainingConfig


def test_crop_smaller_than_the_discriminator_needs_is_refused() -> None:
    with pytest.raises(
        ValueError, match="crop 16 is too small for a discriminator, which needs 24 pixels"
    ):
        replace(CONFIG, adversarial=0.1).crop_of(20)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "world_size", "parts"),
    [
        (16, None, 1, 1),
        (16, 4, 1, 4),
        (16, 5, 1, 4),
        (16, 4, 2, 2),
        (7, 2, 2, 2),
        (7, 1, 2, 3),
        (3, 1, 2, 1),
        (4, 99, 2, 1),
    ],
)
def test_all_workers_run_the_same_number_of_micro_batches(
    batch_size: int, micro_batch: int | None, world_size: int, parts: int
) -> None:
    assert (
        replace(CONFIG, batch_size=batch_size, micro_batch=micro_batch).micro_batches(world_size)
        == parts
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "red1O"}, "unknown model 'red1O'; did you mean 'red10'"),
        ({"arguments": {"widht": 4}}, "takes no argument 'widht'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"validate_every": 0}, "validate_every must be at least 1, got 0"),
        ({"validation_patches": -1}, "validation_patches must be at least 1, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, got 0"),
        ({"learning_rate": math.inf}, "learning_rate must be a positive number, got inf"),
        ({"weight_decay": math.nan}, "weight_decay must be a number that is not negative, got nan"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, got nan"),
        ({"gradient_clip": -1.0}, "gradient_clip must be a positive number, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must be a number that is not negative, got -0.1"),
        ({"warmup_steps": -1}, "warmup_steps must be a number that is not negative, got -1"),
        ({"ema_decay": 1.0}, "ema_decay must be at least 0 and below 1, got 1.0"),
        ({"ema_decay": -0.1}, "ema_decay must be at least 0 and below 1, got -0.1"),
        ({"loss": "l2"}, "loss must be one of mse, l1, charbonnier, psnr, ssim, got 'l2'"),
        ({"optimizer": "sgd"}, "optimizer must be one of adam, adamw, got 'sgd'"),
        (
            {"precision": "float16"},
            "precision must be one of auto, float32, bfloat16, got 'float16'",
        ),
        ({"crop": 15}, "crop must be at least 16 pixels, got 15"),
        ({"schedule": "linear"}, "schedule must be one of cosine, step, got 'linear'"),
        ({"batches": "some"}, "batches must be one of auto, resident, streaming, got 'some'"),
        ({"noise": "new"}, "noise must be one of stored, on-the-fly, got 'new'"),
        ({"adversarial": -1.0}, "adversarial must be a number that is not negative, got -1"),
        ({"micro_batch": 0}, "micro_batch must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"decay_steps": 0}, "decay_steps must be at least 1, got 0"),
        ({"window_megabytes": 0}, "window_megabytes must be at least 1, got 0"),
        ({"seed": -1}, "seed must be a number that is not negative, got -1"),
    ],
)
def test_invalid_field_is_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("budget", "compiled", "device", "expected"),
    [
        (None, "auto", "cpu", False),
        (599, "auto", "cpu", False),
        (600, "auto", "cpu", True),
        (600, "off", "cpu", False),
        (600, "auto", "cuda", False),
    ],
)
def test_a_long_budget_tries_compilation_on_a_cpu(
    budget: float | None, compiled: Compiled, device: str, expected: bool
) -> None:
    config = TrainingConfig(budget=budget and Duration(budget), compiled=compiled)
    assert config.tries_compiled(device) == expected


def test_steps_are_not_tracked_where_a_budget_decides() -> None:
    assert TrainingConfig(steps=7).tracked_parameters()["steps"] == 7
    assert "steps" not in TrainingConfig(steps=7, budget=Duration(60)).tracked_parameters()


def test_the_average_of_the_weights_has_a_fiftieth_of_the_run() -> None:
    assert TrainingConfig(steps=100_000).average_decay == pytest.approx(1 - 1 / 2000)
    assert TrainingConfig(steps=100).average_decay == 0.99
    assert TrainingConfig(steps=100, ema_decay=0.5).average_decay == 0.5
