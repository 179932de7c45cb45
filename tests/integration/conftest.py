"""The S3 server that the integration tests share."""

from collections.abc import Iterator

import pytest
from integration.support import S3Server, s3_server

from degrain.storage.location import Storage


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture
def bucket(
    server: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"test-{abs(hash(request.node.name)) % 10**8}"
    Storage.from_environment().s3_client().create_bucket(Bucket=name)
    return name
