"""Every error as `{"detail": "one line"}`: what is wrong, and what to do."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from degrain.serving.admission import BusyError
from degrain.serving.service import Choices
from degrain.serving.uploads import RefusedError
from denoisenets.suggestions import unknown_name

_SEE = "see /openapi.json"
_RULES = {
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "float_parsing": "must be a number",
    "int_parsing": "must be a whole number",
    "string_too_long": "must have at most {max_length} characters",
}
"""Pydantic's kinds of errors in words."""
_ROUTES = {404: "there is nothing at this address", 405: "this address takes other methods"}


def add_errors(app: FastAPI) -> None:
    """Answer every error with one line."""

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, RefusedError)
        return JSONResponse({"detail": error.reason}, error.status, headers=error.headers)

    async def busy(_: Request, error: Exception) -> Response:
        assert isinstance(error, BusyError)
        headers = {"Retry-After": str(error.retry_after), "Connection": "close"}
        return JSONResponse({"detail": str(error)}, 429, headers=headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return JSONResponse({"detail": describe(error.errors()[0])}, 422)

    async def no_route(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        reason = f"{_ROUTES.get(error.status_code, error.detail)}; {_SEE}"
        return JSONResponse({"detail": reason}, error.status_code, headers=error.headers)

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(BusyError, busy)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, no_route)


def describe(error: Mapping[str, Any]) -> str:
    """An error of Pydantic about a parameter of the query as one line."""
    name, kind, given = str(error["loc"][-1]), error["type"], error.get("input")
    if kind == "extra_forbidden":
        return unknown_name("parameter", name, Choices.model_fields)
    if given == "nan":  # no number is larger or smaller, so that the rule names a limit
        return f"{name} must be a number, got 'nan'"
    if kind in _RULES:
        return f"{name} {_RULES[kind].format(**error.get('ctx', {}))}, got '{given}'"
    return f"{name}: {error['msg']}; {_SEE}"
