"""Configuration and token of the service."""

from pathlib import Path
from typing import Any

import pytest

from degrain.errors import UserError
from degrain.serving.config import TOKEN_VARIABLE, ServingConfig, is_loopback
from degrain.serving.tokens import is_authorized, read_token

TOKEN = "0123456789abcdef"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8", "LocalHost"])
def test_loopback_needs_no_token(host: str) -> None:
    ServingConfig(host=host).check_token(None)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.2", "", "example.org", "127.0.0.1.nip.io"]
)
def test_other_addresses_are_refused_without_a_token(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UserError, match="there is no token"):
        ServingConfig(host=host).check_token(None)
    ServingConfig(host=host).check_token(TOKEN)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"port": 0}, "port"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas"),
        ({"queue": 0}, "queue"),
        ({"largest_megabytes": float("inf")}, "largest_megabytes"),
        ({"upload_seconds": -1.0}, "upload_seconds"),
        ({"replica_gpus": -0.5}, "replica_gpus"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, float], named: str) -> None:
    with pytest.raises(UserError, match=f"^{named} "):
        ServingConfig(**fields)  # type: ignore[arg-type]


def test_the_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert read_token(None) == TOKEN
    file = tmp_path / "token"
    file.write_text("fedcba9876543210\n")
    assert read_token(file) == "fedcba9876543210"


@pytest.mark.parametrize("text", ["", "short", "two words of a token", "ümlaut-ümlaut-ümlaut"])
def test_a_weak_token_is_refused_without_being_shown(text: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(UserError, match="openssl rand") as caught:
        read_token(file)
    assert not text or text not in str(caught.value)


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_token(tmp_path / "absent")


@pytest.mark.parametrize(
    ("header", "right"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (TOKEN, False),
        (f"Basic {TOKEN}", False),
        (f"Bearer {TOKEN}0", False),
        ("Bearer ", False),
        ("Bearer \xff", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_token_is_authorized(header: str | None, right: bool) -> None:
    assert is_authorized(header, TOKEN) is right


@pytest.mark.parametrize(
    ("fields", "present", "reason"),
    [
        ({"replica_gpus": 1.0}, {"CPU": 4.0}, "replica_gpus 1 need 1 GPUs, but Ray has 0"),
        (
            {"replica_gpus": 0.5, "min_replicas": 4, "max_replicas": 4},
            {"CPU": 4.0, "GPU": 1.0},
            "min_replicas 4 of replica_gpus 0.5 need 2 GPUs, but Ray has 1",
        ),
        ({"replica_cpus": 8}, {"CPU": 4.0}, "replica_cpus 8 need 8 cores, but Ray has 4"),
    ],
)
def test_a_cluster_that_is_too_small_is_named(
    fields: dict[str, Any], present: dict[str, float], reason: str
) -> None:
    from degrain.serving.application import check_cluster

    with pytest.raises(UserError, match=reason):
        check_cluster(ServingConfig(**fields), present)
    check_cluster(ServingConfig(**fields), {"CPU": 8.0, "GPU": 2.0})
