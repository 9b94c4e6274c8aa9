"""Every error of every path in OpenAI's envelope: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rewardloop.errors import ConfigError, DataError, ModelError, RewardLoopError, StoreError
from rewardloop.feedback.log.failures import IdempotencyError, StoreFullError

# OpenAI's types, which its clients turn into exceptions by status.
_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    421: "invalid_request_error",
    422: "unprocessable_entity_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}
DEEPEST: Final = 32  # levels of a JSON document


class ErrorDetail(BaseModel):
    """What went wrong: what was given, what was expected, what to do."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ApiError(RewardLoopError):
    """An answer other than success."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        return envelope(self.status, self.message, self.param, self.code)


def envelope(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def as_api_error(error: Exception) -> ApiError:
    """The answer that an error of the package becomes. This is the only place that knows."""
    match error:
        case ApiError():
            return error
        case IdempotencyError():
            return ApiError(422, str(error), param="Idempotency-Key", code="idempotency_conflict")
        case StoreFullError():
            return ApiError(507, str(error), code="storage_full", headers={"retry-after": "5"})
        case StoreError():
            return ApiError(503, str(error), code="storage_unavailable", headers={"retry-after": "1"})
        case ModelError():
            return ApiError(503, str(error), code="engine_unavailable", headers={"retry-after": "1"})
        case DataError() | ConfigError():
            return ApiError(400, str(error), param=getattr(error, "param", None))
        case RewardLoopError():
            return ApiError(400, str(error))
    return ApiError(500, "something went wrong here; it has been noted, try again", code="internal_error")


def respond(error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status, error.headers)


def install_error_handlers(app: FastAPI) -> None:
    """No path of `app` answers an error in another form."""

    async def package(_: Request, error: Exception) -> JSONResponse:
        return respond(as_api_error(error))

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        said = {404: "there is nothing at this address", 405: "this address does not take that method"}
        message = said.get(error.status_code, str(error.detail))
        return respond(ApiError(error.status_code, message, headers=error.headers))

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return respond(invalid_request(error.errors()))

    app.add_exception_handler(RewardLoopError, package)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)


def invalid_request(errors: Any) -> ApiError:
    """What pydantic found, as OpenAI says it: status 400, and `param` names the first wrong value."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    param = ".".join(place) or None
    if first["type"] == "extra_forbidden":
        return ApiError(400, f"{param}: not supported here; leave it out", param=param, code="unsupported_parameter")
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param)
