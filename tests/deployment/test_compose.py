"""The Dockerfile and `infra/compose.yaml`."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from deployment.manifests import INFRA, ROOT, check_command, commands, program

TEXT = (INFRA / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
DOCKERFILE = (INFRA / "docker" / "Dockerfile").read_text()
SECRETS = {"S3_ACCESS_KEY", "S3_SECRET_KEY", "POSTGRES_PASSWORD", "GRAFANA_PASSWORD"}
SECRETS |= {"RAY_AUTH_TOKEN"}


def as_text(command: str | list[str]) -> str:
    return command if isinstance(command, str) else " ".join(command)


def read_strictly(text: str) -> PyCompose:
    """Parse a compose file. Raises ValueError for unknown keys and wrong values."""
    # Variables are replaced as compose does, by their default or by some text.
    replaced = re.sub(r"\$\{\w+:(?:-([^}]*)|\?[^}]*)\}", lambda m: m[1] or "set", text)
    merged = yaml.safe_load(replaced)
    return PyCompose.from_yaml(yaml.safe_dump(merged))


def test_the_dockerfile_passes_the_linter() -> None:
    done = subprocess.run(
        [program("hadolint"), str(INFRA / "docker" / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_refuses_an_untagged_image_and_root(tmp_path: Path) -> None:
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python\nRUN pip install torch\nUSER root\n")
    done = subprocess.run(
        [program("hadolint"), str(wrong)], capture_output=True, text=True, check=False
    )
    assert {"DL3006", "DL3013", "DL3002"} <= set(re.findall(r"DL\d+", done.stdout))


def test_images_are_pinned_and_run_without_root() -> None:
    """Every install has the constraints; all final stages have the user of `runtime`."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    installs = [line for line in lines if line.startswith("RUN pip install")]
    assert len(installs) == 6
    assert all("--constraint infra/constraints.txt" in line for line in installs)
    # What follows the installation of packages runs without root again.
    users = [line for line in lines if line.startswith("USER")]
    assert users == ["USER 1000:1000", "USER 0:0", "USER 1000:1000"]
    for stage in ("mlflow", "seaweedfs", "degrain"):
        assert f"FROM runtime AS {stage}\n" in DOCKERFILE
    for stage in ("cpu", "cuda"):
        assert f"FROM degrain AS {stage}\n" in DOCKERFILE
    assert DOCKERFILE.count("HEALTHCHECK") == 3


def test_networks_can_be_compiled_in_the_images_of_ray_nodes() -> None:
    assert re.search(r"AS degrain\n(?:.*\n)*?.*apt-get install .*g\+\+", DOCKERFILE)


def bytes_of(size: str) -> float:
    """`8g`, `2gb` or `${NAME:-8g}` in bytes."""
    number, unit = re.fullmatch(r"(?:\$\{\w+:-)?(\d+)([gm])b?\}?", size).groups()
    return int(number) * {"g": 2**30, "m": 2**20}[unit]


def test_shared_memory_has_room_for_the_object_store() -> None:
    """Ray takes 30% of the memory, and would put it on the disk where there is less."""
    nodes = [s for s in SERVICES.values() if "ray start" in as_text(s.get("command", ""))]
    assert len(nodes) == 3
    for service in nodes:
        memory = bytes_of(service["deploy"]["resources"]["limits"]["memory"])
        assert bytes_of(service["shm_size"]) >= 0.3 * memory


def test_files_that_images_copy_exist_and_are_sent_to_the_builder() -> None:
    ignore = (INFRA / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [
        source
        for line in DOCKERFILE.splitlines()
        if line.startswith("COPY") and "--from" not in line
        for source in line.split()[1:-1]
        if not source.startswith("--")
    ]
    assert {"platform", "models", "pipelines", "infra/constraints.txt"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore


def test_compose_follows_the_specification() -> None:
    assert set(read_strictly(TEXT).service_names()) == set(SERVICES)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    healthcheck:", "    healthchek:"),
        ("      retries: 12", "      retrys: 12"),
        ("  shm_size: 2gb", "  shm_sise: 2gb"),
    ],
)
def test_compose_with_an_unknown_key_is_refused(right: str, wrong: str) -> None:
    assert right in TEXT
    with pytest.raises(ValueError, match="extension key"):
        read_strictly(TEXT.replace(right, wrong, 1))


def test_services_are_restricted() -> None:
    own = {"degrain:0.1.0-cpu", "degrain-mlflow:0.1.0", "degrain-seaweedfs:0.1.0"}
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert re.fullmatch(r".+:v?\d[\w.-]+", service["image"]), name
        # The images of this repository have a user; the others are given one.
        assert service["image"] in own or int(service["user"].split(":")[0]) > 0, name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_secrets_come_from_the_environment() -> None:
    assert set(re.findall(r"\$\{(\w+):\?", TEXT)) == SECRETS
    documented = dict(
        line.split("=", 1)
        for line in (INFRA / "env.example").read_text().splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert {name for name, value in documented.items() if value == ""} == SECRETS
    assert set(re.findall(r"\$\{(\w+)", TEXT)) <= set(documented)
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", name):
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name
    ignored = subprocess.run(
        ["git", "check-ignore", "infra/.env"], cwd=ROOT, capture_output=True, check=False
    )
    assert ignored.returncode == 0


def test_dependencies_and_targets_exist() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", [])) <= set(SERVICES), name
        if "build" in service:
            assert f" AS {service['build']['target']}\n" in DOCKERFILE
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (INFRA / source).exists(), volume


def test_commands_are_those_of_degrain() -> None:
    found = [c for s in SERVICES.values() for c in commands(as_text(s.get("command", "")))]
    in_comments = [c for line in TEXT.splitlines() if line.startswith("#") for c in commands(line)]
    assert [c[0] for c in found] == ["retrain"]
    assert ["tune", "--out", "s3://degrain/runs"] in in_comments
    for command in found + [c for c in in_comments if c[0] == "tune"]:
        check_command(command)
