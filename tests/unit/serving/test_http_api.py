"""The HTTP interface with a backend in this process: answers, limits, refusals."""

import asyncio
import contextlib
import io
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from starlette.types import Message, Scope
from unit.serving_support import STARTER, LocalBackend, client
from unit.support import random_photo

from degrain.imaging.codecs import decode, encode_png
from degrain.serving.config import ServingConfig
from degrain.serving.http_api import create_app
from degrain.serving.messages import PhotoRequest, PhotoResult, Refusal
from degrain.serving.service import Service, photo_headers
from degrain.serving.uploads import RefusedError

PNG = {"Content-Type": "image/png"}
PHOTO = random_photo(24, 32)
CONTENT = encode_png(PHOTO)
TOKEN = "0123456789abcdef"


def post(
    to: TestClient, content: bytes = CONTENT, query: str = "", **headers: str
) -> tuple[int, str]:
    """Status and detail of a photo that is refused."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = to.post(f"/v1/denoise{query}", content=content, headers={**PNG, **named})
    return answer.status_code, answer.json()["detail"]


def exchange(
    app: FastAPI, method: str, path: str, body: bytes = b"", *, left: bool = False
) -> list[Message]:
    """The ASGI messages that answer a request, whose client may leave once it was sent."""
    received: list[Message] = [{"type": "http.request", "body": body}]
    answered: list[Message] = []

    async def receive() -> Message:
        if received:
            return received.pop()
        if not left:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answered.append(message)

    headers = {b"host": b"127.0.0.1:8000", b"content-type": b"image/png"}
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": list(headers.items()),
    }
    asyncio.run(app(scope, receive, send))
    return answered


def body_of(messages: list[Message]) -> bytes:
    return b"".join(message.get("body", b"") for message in messages)


def test_a_photo_comes_back_denoised_in_its_format_with_facts_in_headers() -> None:
    with client() as http:
        answer = http.post("/v1/denoise", content=CONTENT, headers=PNG)
    assert answer.status_code == 200
    assert np.array_equal(decode(answer.content), PHOTO // 2)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == 'inline; filename="denoised.png"'
    assert answer.headers["degrain-model"] == "m v3"
    assert float(answer.headers["degrain-megapixels"]) == pytest.approx(24 * 32 / 1e6, abs=5e-4)
    assert float(answer.headers["degrain-seconds"]) >= 0
    assert answer.headers["cache-control"] == "no-store"


def test_strength_zero_returns_the_pixels_of_the_photo() -> None:
    with client() as http:
        answer = http.post("/v1/denoise?strength=0", content=CONTENT, headers=PNG)
        half = http.post("/v1/denoise?strength=0.5", content=CONTENT, headers=PNG)
    assert np.array_equal(decode(answer.content), PHOTO)
    assert PHOTO.mean() * 0.7 < decode(half.content).mean() < PHOTO.mean() * 0.8


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("image/jpeg", "image/jpeg"),
        ("text/html, image/webp;q=0.5", "image/webp"),
        ("*/*", "image/png"),
    ],
)
def test_accept_chooses_the_format(accept: str, media_type: str) -> None:
    with client() as http:
        answer = http.post("/v1/denoise", content=CONTENT, headers={**PNG, "Accept": accept})
    assert answer.headers["content-type"] == media_type


def test_metadata_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "JPEG", exif=exif)
    with client() as http:
        answer = http.post(
            "/v1/denoise", content=file.getvalue(), headers={"Content-Type": "image/jpeg"}
        )
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.format == "JPEG"
        assert image.getexif()[0x010F] == "Camera maker"


def test_notes_that_name_parts_of_a_file_cannot_break_the_headers() -> None:
    result = PhotoResult(
        content=b"",
        media_type="image/png",
        suffix=".png",
        model="m v3",
        megapixels=1.0,
        seconds=1.0,
        notes=("PNG text '\u4e16\r\nSet-Cookie: x'",),
    )
    assert photo_headers(result)["Degrain-Notes"] == "PNG text '???Set-Cookie: x'"


@pytest.mark.parametrize(
    "media_type", ["image/jpg", "image/pjpeg", "image/x-png", "IMAGE/TIF", "image/x-ms-bmp"]
)
def test_usual_names_of_media_types_are_accepted(media_type: str) -> None:
    headers = {"Content-Type": media_type, "Accept": media_type.replace("x-ms-bmp", "x-webp")}
    with client() as http:
        assert http.post("/v1/denoise", content=CONTENT, headers=headers).status_code == 200


def test_head_is_get_without_the_body() -> None:
    # The client drops bodies itself, so one is counted before it.
    app = create_app(Service(LocalBackend(), ServingConfig()), None)
    assert body_of(exchange(app, "HEAD", "/page.js")) == b""
    assert len(body_of(exchange(app, "GET", "/page.js"))) > 1000
    with client() as http:
        for path in ("/", "/page.js", "/health", "/ready", "/v1/models", "/samples/cat.png"):
            head, found = http.head(path), http.get(path)
            assert (head.status_code, head.content) == (200, b""), path
            assert head.headers["content-length"] == found.headers["content-length"]
        assert http.head("/nowhere").status_code == 404
        assert http.head("/v1/denoise").status_code == 405


def test_what_is_wrong_before_the_photo_is_read_is_refused_in_words() -> None:
    backend = LocalBackend()
    with client(backend) as http:
        assert post(http, Content_Type="text/html")[0] == 415
        assert post(http, Content_Type="multipart/form-data; boundary=x")[0] == 415
        assert post(http, Accept="application/pdf")[0] == 406
        status, detail = post(http, query="?model=../../etc/passwd")
        assert (status, "name one of champion, starter" in detail) == (404, True)
        for query, reason in WRONG_QUERIES.items():
            assert post(http, query=f"?{query}") == (422, reason)
        assert http.get("/v1/photo").json()["detail"].startswith("there is nothing at this address")
        found = http.get("/v1/denoise")
        assert (found.status_code, found.headers["allow"]) == (405, "POST")
        assert found.json()["detail"] == "this address takes other methods; see /openapi.json"
    assert backend.requests == []


WRONG_QUERIES = {
    "strength=2": "strength must be at most 1, got '2'",
    "strength=-0.5": "strength must be at least 0, got '-0.5'",
    "strength=nan": "strength must be a number, got 'nan'",
    "detail=much": "detail must be a number, got 'much'",
    "quality=9.5": "quality must be a whole number, got '9.5'",
    "strenght=1": (
        "unknown parameter 'strenght'; did you mean 'strength'? Known parameters: model, strength, "
        "detail, luma, chroma, quality"
    ),
}


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n", CONTENT[:-40], b"<svg/>", b"GIF89a" + bytes(100), b"%PDF-1.7"],
)
def test_content_that_is_no_photo_is_refused_in_words(content: bytes) -> None:
    with client() as http:
        status, detail = post(http, content)
    assert status == 422
    assert len(detail) > 20
    assert "Traceback" not in detail


def test_a_photo_with_too_many_pixels_is_refused_before_it_is_decoded() -> None:
    bomb = io.BytesIO()
    Image.new("1", (8000, 8000)).save(bomb, "PNG")
    with client(largest_megapixels=50) as http:
        status, detail = post(http, bomb.getvalue())
    assert status == 413
    assert "8000x8000" in detail
    assert "/v1/jobs" in detail


def test_an_upload_with_too_many_bytes_is_refused_by_its_header_and_while_it_streams() -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 65536
            yield bytes(65536)

    with client(largest_megabytes=0.5) as http:
        assert post(http, bytes(600_000))[0] == 413
        answer = http.post("/v1/denoise", content=endless(), headers=PNG)
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")


def test_a_full_queue_answers_429_with_the_time_to_wait() -> None:
    # No place at all: the queue of one photo is taken by the test.
    backend = LocalBackend()
    with client(backend, buffered_megabytes=0.001) as http:
        answer = http.post("/v1/denoise", content=CONTENT, headers=PNG)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert backend.requests == []


def test_a_photo_that_takes_too_long_is_answered_in_time() -> None:
    backend = LocalBackend()
    backend.seconds = 3600
    with client(backend, request_seconds=0.2) as http:
        status, detail = post(http)
    assert status == 504
    assert "0.2 seconds" in detail


def test_a_lost_replica_is_answered_with_503_and_the_time_to_wait() -> None:
    backend = LocalBackend()
    backend.refusal = Refusal(status=503, reason="the process has ended")
    with client(backend) as http:
        answer = http.post("/v1/denoise", content=CONTENT, headers=PNG)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


def test_only_v1_needs_the_token() -> None:
    with client(token=TOKEN) as http:
        for path in ("/", "/page.js", "/health", "/ready", "/openapi.json"):
            assert http.get(path).status_code == 200, path
        for header in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}):
            answer = http.get("/v1/models", headers=header)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer")
        right = http.get("/v1/models", headers={"Authorization": f"bearer {TOKEN}"})
        assert right.status_code == 200


def test_without_a_token_other_host_names_are_refused() -> None:
    """A page of another site cannot reach the service by a name that resolves to 127.0.0.1."""
    with client() as http:
        for host in ("evil.example", "127.0.0.1.evil.example:8000", "evil.example:8000", ""):
            assert http.get("/", headers={"Host": host}).status_code == 421, host
        for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000"):
            assert http.get("/", headers={"Host": host}).status_code == 200, host


def test_every_answer_has_a_strict_content_security_policy() -> None:
    with client() as http:
        for answer in (http.get("/"), http.get("/nowhere"), http.post("/v1/denoise")):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_health_and_readiness() -> None:
    backend = LocalBackend()
    with client(backend) as http:
        assert http.get("/health").json()["status"] == "ok"
        assert http.get("/ready").json() == {
            "ready": True,
            "replicas": 1,
            "model": "m v3",
            "registry": "reachable",
        }
        backend.replicas = 0
        assert http.get("/ready").status_code == 503
        backend.models = None
        assert http.get("/ready").status_code == 503
        assert post(http)[0] == 503


def test_the_starter_model_is_announced() -> None:
    with client(LocalBackend(STARTER)) as http:
        assert "no champion" in http.get("/ready").json()["note"]
        assert "no champion" in http.get("/v1/models").json()["note"]
        assert http.post("/v1/denoise", content=CONTENT, headers=PNG).status_code == 200


def test_a_lost_champion_is_announced() -> None:
    backend = LocalBackend(STARTER)
    assert backend.models is not None
    backend.models = replace(backend.models, lost_champion="the champion was m v3, which was ...")
    with client(backend) as http:
        for path in ("/ready", "/v1/models"):
            assert http.get(path).json()["note"].startswith("the champion was m v3")


def wait_for(http: TestClient, path: str, state: str) -> dict[str, object]:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        found: dict[str, object] = http.get(path).json()
        if found["state"] == state:
            return found
        time.sleep(0.02)
    raise AssertionError(found)


def test_a_job_is_accepted_done_fetched_and_deleted() -> None:
    with client() as http:
        accepted = http.post("/v1/jobs", content=CONTENT, headers=PNG)
        assert accepted.status_code == 202
        path = accepted.headers["location"]
        done = wait_for(http, path, "done")
        result = http.get(str(done["result"]))
        assert np.array_equal(decode(result.content), PHOTO // 2)
        assert result.headers["degrain-model"] == "m v3"
        assert http.delete(path).status_code == 204
        assert http.get(path).status_code == 404


def test_a_job_that_fails_has_its_reason() -> None:
    with client() as http:
        path = http.post("/v1/jobs", content=b"no photo", headers=PNG).headers["location"]
        assert "cannot be read" in str(wait_for(http, path, "failed")["detail"])
        assert http.get(f"{path}/result").status_code == 422


def test_a_job_that_fails_by_a_bug_does_not_run_for_ever() -> None:
    class Broken(LocalBackend):
        async def denoise(self, request: PhotoRequest) -> PhotoResult | Refusal:
            raise RuntimeError("a bug")

    with client(Broken()) as http:
        path = http.post("/v1/jobs", content=CONTENT, headers=PNG).headers["location"]
        assert "log of the service" in str(wait_for(http, path, "failed")["detail"])
        # The task's error reaches the log when the task is deleted.
        http.delete(path)


@pytest.mark.parametrize("left", [False, True])
def test_a_job_whose_client_left_before_it_knew_its_address_is_deleted(left: bool) -> None:
    service = Service(LocalBackend(), ServingConfig())
    (start, *_) = exchange(create_app(service, None), "POST", "/v1/jobs", CONTENT, left=left)
    identifier = dict(start["headers"])[b"location"].decode().rpartition("/")[2]
    assert start["status"] == 202
    with pytest.raises(RefusedError) if left else contextlib.nullcontext():
        service.jobs.find(identifier)
    service.jobs.close()


def test_jobs_are_bounded() -> None:
    backend = LocalBackend()
    backend.seconds = 30
    with client(backend, jobs=2) as http:
        path = http.post("/v1/jobs", content=CONTENT, headers=PNG).headers["location"]
        assert http.post("/v1/jobs", content=CONTENT, headers=PNG).status_code == 202
        third = http.post("/v1/jobs", content=CONTENT, headers=PNG)
        assert third.status_code == 429
        assert int(third.headers["retry-after"]) > 60
        assert http.get(f"{path}/result").status_code == 409
        assert http.delete(path).status_code == 204
        assert http.post("/v1/jobs", content=CONTENT, headers=PNG).status_code == 202


def test_openapi_describes_the_body_the_answers_and_every_choice() -> None:
    with client() as http:
        description = http.get("/openapi.json").json()
    operation = description["paths"]["/v1/denoise"]["post"]
    assert "image/jpeg" in operation["requestBody"]["content"]
    assert {"200", "413", "415", "429"} <= set(operation["responses"])
    assert {p["name"] for p in operation["parameters"]} == {
        "model",
        "strength",
        "detail",
        "luma",
        "chroma",
        "quality",
    }
    assert all(len(p["description"]) > 20 for p in operation["parameters"])
    for path in description["paths"].values():
        assert all(operation.get("summary") for operation in path.values())


def test_the_page_and_its_samples_come_from_the_package() -> None:
    with client() as http:
        page = http.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text.replace("http://www.w3.org", "")
        assert "https://" not in page.text
        assert " style=" not in page.text
        assert "<script>" not in page.text
        sample = http.get("/samples/cat.png")
        assert decode(sample.content).shape == (300, 451, 3)
        assert http.get("/samples/..%2f..%2fetc.png").status_code == 404
