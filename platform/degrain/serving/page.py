"""The web page: static files, and sample photos with the noise of `imaging.camera_noise`."""

import functools
from importlib import resources

import numpy as np
from fastapi import FastAPI, Response

from degrain.corpora.embedded import embedded_photo
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.codecs import encode_png
from degrain.serving.uploads import RefusedError

FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
"""Path to the file in `static` and its type."""
SAMPLES = {"cat": ("chelsea", 3200), "rocket": ("rocket", 12800)}
"""Name to the photograph and the ISO of its noise; photographs outside the train split."""
_CACHE = "public, max-age=300"


def add_page(app: FastAPI) -> None:
    """Add the routes of the page."""
    for path in FILES:
        _add_file(app, path)

    @app.get("/samples/{name}.png", include_in_schema=False)
    async def sample(name: str) -> Response:
        if name not in SAMPLES:
            raise RefusedError(
                404, f"there is no sample '{name[:40]}'; known: {', '.join(SAMPLES)}"
            )
        return Response(
            sample_photo(name), media_type="image/png", headers={"Cache-Control": _CACHE}
        )


def _add_file(app: FastAPI, path: str) -> None:
    name, media_type = FILES[path]
    content = resources.files("degrain.serving").joinpath("static", name).read_bytes()

    @app.get(path, include_in_schema=False)
    async def file() -> Response:
        # Revalidated each time: a new version of the package has new files.
        return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


@functools.cache
def sample_photo(name: str) -> bytes:
    """A photograph with camera noise, as PNG; the same bytes each time."""
    photograph_name, iso = SAMPLES[name]
    clean = embedded_photo(photograph_name)
    noisy = photograph(clean, ISO_LEVELS[iso], np.random.default_rng(iso))
    return encode_png(noisy)
