"""The engine behind HTTP on a local socket: python -m rewardloop.loop.processes.engine_server --model M --socket PATH

In the shape of a vLLM server (`wire`), so that one can take its place by URL:

    GET  /health             200 once it can speak, 503 after a failure
    GET  /v1/models          the model, with `max_model_len` and the version of its weights
    POST /v1/completions     a text or token ids to be continued; SSE with `stream`
    POST /v1/chat/completions
    POST /tokenize           {"prompt"} or {"messages"} -> {"tokens", "count", "max_model_len"}
    POST /weights            {"manifest": path}: verify the safetensors by digest, then replace between two steps; with
                             {"manifest": null} it is again the model as it was given
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rewardloop.errors import ConfigError, ModelError, RewardLoopError, StoreError, telling_of_memory
from rewardloop.evaluate.foresight import load_potential, potential_version
from rewardloop.hardware import set_up_threads
from rewardloop.loop.manifests import POTENTIAL, Manifest, active_version, manifest_path, read_manifest
from rewardloop.loop.processes.engine_thread import CrowdedError, EngineThread, Said
from rewardloop.loop.processes.lifeline import hold_on
from rewardloop.loop.processes.token_rewards import Foresight, Reference, TokenRewarder, Typicality
from rewardloop.loop.processes.wire import (
    SSE_END,
    ChatRequest,
    CompletionRequest,
    Piece,
    Renderer,
    Token,
    error_body,
    parse,
    prompt_of,
    sse,
)
from rewardloop.loop.weights import open_part
from rewardloop.models.language_model import load_language_model
from rewardloop.models.text_stream import TextStream
from rewardloop.reward.potential import Potential, state_width
from rewardloop.rollout.engine import Engine, Request

SLOTS = 32


@dataclass(frozen=True, slots=True)
class Told:
    """One choice's next piece; None when it has ended."""

    index: int
    piece: Piece | None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A version of what is served, read and verified."""

    version: int
    tensors: Mapping[str, torch.Tensor]  # as in the model's state_dict
    rewarder: TokenRewarder


class EngineServer:
    """Answers requests by one engine. `reference` is the model as it was given, which no version changes."""

    def __init__(self, reference: Reference, engine: Engine, rewarder: TokenRewarder, name: str) -> None:
        self.lm = reference.lm
        self.engine = engine
        self.rewarder = rewarder
        self.name = name
        self._reference = reference
        self._given = Learned(0, self.lm.model.state_dict(), rewarder)
        self._replacing = asyncio.Lock()
        self._thread: EngineThread | None = None

    @property
    def thread(self) -> EngineThread:
        assert self._thread is not None
        return self._thread

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._thread = EngineThread(self.engine)
        yield
        self._thread.close()

    def warm_up(self) -> None:
        """Say something, so that nobody waits for what is only done once."""
        prompt_ids = self.lm.encode_completion("a")[:1]
        wanted = Request(prompt="", prompt_ids=prompt_ids, max_tokens=min(4, self.lm.context - 2), seed=0)
        (said,) = self.engine.generate([wanted])
        stream = self.rewarder.begin(prompt_ids)
        for token_id in said.token_ids:
            stream.extend(token_id)

    def restore(self, weights: Path) -> None:
        """Begin with the version that is active in this registry, if one is; before `lifespan`.

        Raises StoreError and ModelError where it cannot be used; then the model is as it was given.
        """
        version = active_version(weights)
        if version is None or (version == 0 and not manifest_path(weights, 0).exists()):
            return
        learned = self._read(read_manifest(manifest_path(weights, version)))
        self.engine.load_weights(learned.tensors, learned.version)
        self.rewarder = learned.rewarder

    # ------------------------------------------------------------ routes

    async def health(self, _: HttpRequest) -> Response:
        if self.thread.failure is not None:
            return JSONResponse(error_body(str(self.thread.failure), "server_error"), 503)
        return Response(status_code=200)

    async def models(self, _: HttpRequest) -> Response:
        described = {
            "id": self.name,
            "object": "model",
            "created": 0,
            "owned_by": "rewardloop",
            "max_model_len": self.lm.context,
            "weight_version": self.engine.weight_version,
            "chat": bool(self.lm.tokenizer.chat_template),
            "parameters": sum(weight.numel() for weight in self.lm.model.parameters()),
            "reward_version": self.rewarder.version,
        }
        return JSONResponse({"object": "list", "data": [described]})

    async def completions(self, http: HttpRequest) -> Response:
        return await self._answer(parse(CompletionRequest, await http.body()))

    async def chat(self, http: HttpRequest) -> Response:
        return await self._answer(parse(ChatRequest, await http.body()))

    async def tokenize(self, http: HttpRequest) -> Response:
        body = await http.body()
        request = parse(ChatRequest if b'"messages"' in body else CompletionRequest, body)
        ids = self._encode(request)
        return JSONResponse({"tokens": ids, "count": len(ids), "max_model_len": self.lm.context})

    async def weights(self, http: HttpRequest) -> Response:
        try:
            path = (await http.json())["manifest"]
            manifest = None if path is None else read_manifest(Path(path))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError('{"manifest": "path of a manifest"} is expected') from error
        async with self._replacing:  # whoever came last has the last word
            learned = self._given if manifest is None else await asyncio.to_thread(self._read, manifest)
            await self.thread.load_weights(learned.tensors, learned.version)
            self.rewarder = learned.rewarder
        return JSONResponse({"version": learned.version, "digest": manifest and manifest.digest})

    def _read(self, manifest: Manifest) -> Learned:
        """A version, every part verified. Raises StoreError, ModelError."""
        tensors = open_part(manifest)
        if broken := [name for name, value in tensors.items() if not bool(value.isfinite().all())]:
            raise ModelError(f"version {manifest.version} is not finite in {broken[0]}; go back to an earlier version")
        return Learned(manifest.version, tensors, self._foresight(manifest) or self._given.rewarder)

    def _foresight(self, manifest: Manifest) -> TokenRewarder | None:
        """What foresees rewards with this version; None where it learned nothing of that kind."""
        if POTENTIAL not in manifest.parts:
            return None
        try:
            potential = Potential.from_tensors(open_part(manifest, POTENTIAL))
        except KeyError as error:
            raise ModelError(f"the potential of version {manifest.version} lacks {error}") from error
        width, expected = potential.weights_E.numel() - 1, state_width(self.lm.model.config.hidden_size)
        if width != expected or not bool(potential.weights_E.isfinite().all()):
            raise ModelError(f"the potential of version {manifest.version} reads {width} columns, not {expected}")
        _ = self._reference.decoder  # laid out here, so that no answer waits for it
        return Foresight(self._reference, potential, potential_version(potential))

    # ------------------------------------------------------------ answers

    def _encode(self, request: CompletionRequest | ChatRequest) -> list[int]:
        prompt = prompt_of(request)
        return prompt if isinstance(prompt, list) else list(self.lm.encode_prompt(prompt))

    async def _answer(self, request: CompletionRequest | ChatRequest) -> Response:
        if not request.stream:
            raise ConfigError("stream: given false; the engine answers in streams alone, set it to true")
        prompt_ids = self._encode(request)
        rewarder = self.rewarder if request.rewards else None  # one for all choices, to the end of the last one
        version = None if rewarder is None else rewarder.version
        chat = isinstance(request, ChatRequest)
        renderer = Renderer(f"engine-{secrets.token_hex(8)}", self.name, chat=chat, reward_version=version)
        chunks = self._chunks(request, prompt_ids, rewarder, renderer)
        first = await anext(chunks)  # what is wrong with the request is known before the first byte leaves
        return StreamingResponse(_events(first, chunks), media_type="text/event-stream")

    async def _chunks(
        self,
        request: CompletionRequest | ChatRequest,
        prompt_ids: list[int],
        rewarder: TokenRewarder | None,
        renderer: Renderer,
    ) -> AsyncIterator[dict[str, Any]]:
        told: asyncio.Queue[Told] = asyncio.Queue()
        seed = request.seed if request.seed is not None else secrets.randbits(62)
        tasks = [
            asyncio.create_task(self._tell(request, prompt_ids, rewarder, seed + index, index, told))
            for index in range(request.n)
        ]
        tokens, left, opened = 0, request.n, False
        try:
            while left:
                news = [await told.get()]
                while not told.empty():
                    news.append(told.get_nowait())
                if (error := next((each.error for each in news if each.error), None)) is not None:
                    raise error
                if not opened:
                    opened = True
                    yield renderer.opening(prompt_ids)
                left -= sum(each.piece is None for each in news)
                pieces = [each.piece for each in news if each.piece is not None]
                tokens += sum(len(piece.tokens) for piece in pieces)
                if pieces:
                    yield renderer.chunk(pieces)
            yield renderer.closing(len(prompt_ids), tokens)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(
        self,
        request: CompletionRequest | ChatRequest,
        prompt_ids: list[int],
        rewarder: TokenRewarder | None,
        seed: int,
        index: int,
        told: asyncio.Queue[Told],
    ) -> None:
        """Put the pieces of one choice into `told`, then its end or its error."""
        try:
            async for piece in self._pieces(request, prompt_ids, rewarder, seed, index):
                told.put_nowait(Told(index, piece))
            told.put_nowait(Told(index, None))
        except RewardLoopError as error:
            told.put_nowait(Told(index, None, error))

    async def _pieces(
        self,
        request: CompletionRequest | ChatRequest,
        prompt_ids: list[int],
        rewarder: TokenRewarder | None,
        seed: int,
        index: int,
    ) -> AsyncIterator[Piece]:
        wanted = Request(
            prompt="",
            prompt_ids=tuple(prompt_ids),
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=seed,
            shaping=request.shaping(),
        )
        text = TextStream(self.lm, request.stop)
        said = self.thread.say(wanted, rewarder)
        async with contextlib.aclosing(said):
            async for each in said:
                yield self._piece(each, text, index)
                if text.stopped:
                    return

    def _piece(self, said: Said, text: TextStream, index: int) -> Piece:
        shown = text.push(said.token_id)
        reason: str | None = None
        if text.stopped:
            reason = "stop"
        elif said.completion is not None:
            shown += text.finish()
            reason = "stop" if text.stopped else said.completion.finish_reason
        top = tuple((self._word(token_id), logprob) for token_id, logprob in said.top)
        token = Token(said.token_id, self._word(said.token_id), said.logprob, said.weight_version, top)
        return Piece(index, shown, (token,), said.rewards, reason)

    def _word(self, token_id: int) -> str:
        return "" if token_id in self.lm.end_ids else self.lm.decode([token_id])


async def _events(first: dict[str, Any], chunks: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """Server-sent events; what goes wrong in mid-stream is an event, too."""
    yield sse(first)
    try:
        async for chunk in chunks:
            yield sse(chunk)
    except RewardLoopError as error:
        yield sse(error_body(str(error), "server_error"))
        return
    yield SSE_END


async def _refuse(_: HttpRequest, error: Exception) -> Response:
    status, kind, headers = 400, "invalid_request_error", {}
    if isinstance(error, CrowdedError):
        status, kind, headers = 429, "rate_limit_error", {"retry-after": "1"}
    return JSONResponse(error_body(str(error), kind), status, headers)


def make_app(server: EngineServer) -> Starlette:
    """The routes of the engine."""
    return Starlette(
        routes=[
            Route("/health", server.health),
            Route("/v1/models", server.models),
            Route("/v1/completions", server.completions, methods=["POST"]),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
            Route("/tokenize", server.tokenize, methods=["POST"]),
            Route("/weights", server.weights, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((ConfigError, ModelError, StoreError, CrowdedError), _refuse),
        lifespan=server.lifespan,
    )


def load_server(model: str, name: str, *, slots: int = SLOTS, compiled: bool = False) -> EngineServer:
    """The engine for a model folder; with the potential that a run learned beside it, if there is one.

    Raises ModelError, and ConfigError where it cannot be `compiled`.
    """
    given = Reference(load_language_model(model))
    engine = Engine(given.lm, slots=slots, compiled=compiled)
    return EngineServer(given, engine, find_rewarder(given, Path(model)), name)


def find_rewarder(given: Reference, model: Path) -> TokenRewarder:
    """What people taught: the potential of the run that made this model. Else typicality."""
    beside = model.parent / "potential"
    if (beside / "potential.json").is_file():
        reference, potential = load_potential(beside)
        return Foresight(Reference(reference), potential, version=potential_version(potential))
    return Typicality(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--socket", required=True, type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="compile what lies between the matrix products")
    parser.add_argument("--weights", type=Path, help="registry of versions; the active one is served from the start")
    given = parser.parse_args()
    hold_on()
    set_up_threads(given.threads)
    torch.set_grad_enabled(False)
    try:
        with telling_of_memory():
            server = load_server(given.model, given.name, compiled=given.compiled)
    except RewardLoopError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the supervisor reads it
        sys.exit(2)
    if given.weights is not None:
        try:
            server.restore(given.weights)
        except RewardLoopError as error:
            # the gateway sees by the version what is served, and says so
            print(f"warning: {error}; serving the model as it was given", file=sys.stderr)  # noqa: T201
    server.warm_up()
    app = make_app(server)
    uvicorn.run(app, uds=str(given.socket), log_level="warning", lifespan="on", access_log=False)


if __name__ == "__main__":
    main()
