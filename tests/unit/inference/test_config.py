"""Validation of inference configs, and what importing them costs."""

import subprocess
import sys

import pytest

from degrain.inference.config import InferenceConfig, ReadingConfig


def test_importing_configs_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, degrain.inference.config, degrain.imaging.limits;"
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("megapixels", [0, -1, float("nan")])
def test_reading_refuses_a_size_limit_that_is_not_positive(megapixels: float) -> None:
    with pytest.raises(ValueError, match="largest_megapixels must be above 0, got"):
        ReadingConfig(largest_megapixels=megapixels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be at least 1, got 0"),
        ({"memory": -1}, "memory must be at least 1, got -1"),
        (
            {"noise_level": 25},
            "noise_level must be above 0 and at most 1, where white is 1, got 25",
        ),
        (
            {"precision": "float16"},
            "precision must be one of auto, float32, bfloat16, got 'float16'",
        ),
        ({"compiled": "yes"}, "compiled must be one of auto, on, off, got 'yes'"),
    ],
)
def test_inference_config_refuses_invalid_values(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InferenceConfig(**options)  # type: ignore[arg-type]
