"""The HTTP face: the routes, shapes and status codes of vLLM's OpenAI-compatible server."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.lab.engine import logs
from tests.lab.engine.answer import Answer
from tests.lab.engine.sim import Engine, EngineDeadError, Piece, ShutDownError, count_tokens
from tests.lab.engine.tags import Tag
from tests.lab.engine.tools import Call, call_of

OWNER = "sparkfleet-lab-simulation"
GUARDED = ("/v1", "/v2", "/inference")
GENERATING = ("/v1/chat/completions", "/v1/completions")
# What one picture takes of the context; the real figure depends on its size.
IMAGE_TOKENS = 256
DEAD_MESSAGE = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class RefusedError(Exception):
    """A request that is answered with vLLM's error document."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, engine: Engine, tag: Tag) -> None:
        super().__init__((engine.settings.host, engine.settings.port), Handler, bind_and_activate=False)
        self.engine = engine
        self.tag = tag
        self.started = int(time.time())
        self._open = 0
        self._quiet = threading.Condition()

    def served_names(self) -> tuple[str, ...]:
        wrong = self.engine.knobs().wrong_model_name
        return (wrong,) if wrong else self.engine.settings.served_names

    def close_port(self) -> None:
        """Refuse connections from now on; what is under way goes on."""
        self.shutdown()
        self.socket.close()

    def request_opened(self, change: int) -> None:
        with self._quiet:
            self._open += change
            self._quiet.notify_all()

    def wait_answered(self, timeout_s: float) -> None:
        """Until every request that came in has its answer."""
        with self._quiet:
            self._quiet.wait_for(lambda: self._open == 0, timeout_s)

    def handle_error(self, *_: Any) -> None:
        # A client that hangs up is no fault of the server's; vLLM's log does not show it either.
        return


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def version_string(self) -> str:
        return OWNER

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, route: Any) -> None:
        self.server.request_opened(1)
        try:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self._allowed():
                route(self.path.partition("?")[0], body)
            else:
                self._json(HTTPStatus.UNAUTHORIZED, {"error": "Unauthorized"})
        except RefusedError as refused:
            self._json(refused.status, refused.body)
        except EngineDeadError:
            self._json(500, RefusedError(500, DEAD_MESSAGE, "InternalServerError").body)
        except ShutDownError as error:
            self._json(500, RefusedError(500, str(error), "InternalServerError").body)
        finally:
            self.server.request_opened(-1)

    def _allowed(self) -> bool:
        keys = self.server.engine.settings.api_keys
        if not keys or not self.path.startswith(GUARDED):
            return True
        return self.headers.get("Authorization", "").removeprefix("Bearer ") in keys

    def _get(self, path: str, _: bytes) -> None:
        engine = self.server.engine
        if path in ("/health", "/ping"):
            self._send(503 if engine.dead else 200, b"", None)
        elif path == "/v1/models":
            self._json(200, {"object": "list", "data": [self._card(name) for name in self.server.served_names()]})
        elif path == "/version":
            self._json(200, {"version": self.server.tag.vllm, "simulated": True})
        elif path == "/metrics":
            self._send(200, engine.metrics.render().encode(), "text/plain; version=0.0.4; charset=utf-8")
        elif path == "/load":
            self._json(200, {"server_load": engine.running})
        elif path in (*GENERATING, "/tokenize"):
            self._json(405, {"detail": "Method Not Allowed"})
        else:
            self._json(404, {"detail": "Not Found"})

    def _card(self, name: str) -> dict[str, Any]:
        permission = {
            "id": f"modelperm-{uuid.uuid4().hex[:16]}",
            "object": "model_permission",
            "created": self.server.started,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        return {
            "id": name,
            "object": "model",
            "created": self.server.started,
            "owned_by": OWNER,
            "root": self.server.engine.settings.root,
            "parent": None,
            "max_model_len": self.server.engine.settings.max_model_len,
            "permission": [permission],
        }

    def _post(self, path: str, body: bytes) -> None:
        if path == "/ping":
            self._get(path, body)
        elif path == "/tokenize":
            prompt = _prompt(_parsed(body))
            tokens = count_tokens(prompt)
            limit = self.server.engine.settings.max_model_len
            self._json(200, {"count": tokens, "max_model_len": limit, "tokens": list(range(tokens))})
        elif path in GENERATING:
            self._generate(path, _parsed(body))
        else:
            self._json(404, {"detail": "Not Found"})

    def _generate(self, path: str, request: dict[str, Any]) -> None:
        self._check_model(request)
        prompt = _prompt(request)
        images, call = self._images(request), self._call(request)
        # The chat template puts a few control tokens around every message.
        prompt_tokens = count_tokens(prompt) + 4 * max(len(request.get("messages", [])), 1) + IMAGE_TOKENS * images
        max_tokens = self._max_tokens(request, prompt_tokens)
        if call:
            max_tokens = min(max_tokens, count_tokens(call.arguments))
        pieces = self.server.engine.submit(prompt, prompt_tokens, max_tokens)
        name, chat = self.server.served_names()[0], path == GENERATING[0]
        answer = Answer(name, chat, self._thinks(request), prompt_tokens, call)
        if request.get("stream"):
            self._stream(answer, pieces, bool((request.get("stream_options") or {}).get("include_usage")))
        else:
            self._json(200, answer.whole(list(pieces)))

    def _images(self, request: dict[str, Any]) -> int:
        """How many pictures the request holds; refuses what is no picture."""
        pictures = [part for part in _parts(request) if part.get("type") == "image_url"]
        if pictures and self.server.engine.knobs().refuse_images:
            raise RefusedError(400, "At most 0 image(s) may be provided in one prompt.", "BadRequestError")
        for part in pictures:
            url = (part.get("image_url") or {}).get("url", "")
            try:
                data = base64.b64decode(str(url).partition("base64,")[2], validate=True)
            except ValueError:
                data = b""
            if not data.startswith((b"\x89PNG\r\n", b"\xff\xd8\xff")):
                raise RefusedError(400, "Failed to load image: cannot identify image file", "BadRequestError")
        return len(pictures)

    def _call(self, request: dict[str, Any]) -> Call | None:
        settings = self.server.engine.settings
        if request.get("tools") and request.get("tool_choice", "auto") == "auto" and not settings.tool_parser:
            message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
            raise RefusedError(400, message, "BadRequestError")
        return call_of(request, broken=self.server.engine.knobs().broken_tool_json)

    def _check_model(self, request: dict[str, Any]) -> None:
        names = self.server.served_names()
        asked = request.get("model")
        if asked is not None and asked not in names:
            message = f"The model `{asked}` does not exist."
            if self.server.tag.version >= (0, 24):
                message += f" Valid aliases: {', '.join(names)}."
            raise RefusedError(404, message, "NotFoundError", "model")

    def _max_tokens(self, request: dict[str, Any], prompt_tokens: int) -> int:
        limit = self.server.engine.settings.max_model_len
        asked = request.get("max_completion_tokens") or request.get("max_tokens")
        if asked is not None and (not isinstance(asked, int) or asked < 1):
            raise RefusedError(400, f"max_tokens must be at least 1, got {asked}.", "BadRequestError", "max_tokens")
        if asked is not None and asked > limit:
            message = (
                f"max_tokens={asked} cannot be greater than max_model_len={limit}. Please request fewer output "
                f"tokens. (parameter=max_tokens, value={asked})"
            )
            raise RefusedError(400, message, "BadRequestError", "max_tokens")
        if prompt_tokens + (asked or 1) > limit:
            message = (
                f"This model's maximum context length is {limit} tokens. However, you requested {asked or 1} output "
                f"tokens and your prompt contains {prompt_tokens} input tokens. Please reduce the length of the "
                "input prompt or the number of requested output tokens."
            )
            raise RefusedError(400, message, "BadRequestError", "input_tokens")
        return int(asked or limit - prompt_tokens)

    def _thinks(self, request: dict[str, Any]) -> bool:
        wanted = (request.get("chat_template_kwargs") or {}).get("enable_thinking", False)
        leaks = self.server.engine.knobs().leak_thinking
        return bool(wanted) and self.server.engine.settings.reasoning and not leaks

    def _stream(self, answer: Answer, pieces: Any, with_usage: bool) -> None:
        # The first piece decides between an event stream and an error document.
        first = next(pieces)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in answer.opening():
            self._chunk(event)
        knobs = self.server.engine.knobs()
        piece: Piece | None = first
        try:
            while piece is not None:
                self._chunk(answer.event(piece))
                piece = next(pieces, None)
            if with_usage and not knobs.stream_without_usage:
                self._chunk(answer.usage_event())
        except EngineDeadError:
            self._chunk(RefusedError(500, DEAD_MESSAGE, "InternalServerError").body)
        if not knobs.stream_without_done:
            self._raw_chunk(b"data: [DONE]\n\n")
        self._raw_chunk(b"")

    def _chunk(self, event: dict[str, Any]) -> None:
        self._raw_chunk(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")

    def _raw_chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _json(self, status: int, document: Any) -> None:
        self._send(status, json.dumps(document, separators=(",", ":")).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str | None) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:  # noqa: ARG002
        settings = self.server.engine.settings
        if settings.access_log and self.path not in settings.quiet_endpoints:
            client = f"{self.client_address[0]}:{self.client_address[1]}"
            status = HTTPStatus(int(code))
            logs.uvicorn(f'{client} - "{self.requestline}" {status.value} {status.phrase}')


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        request = json.loads(body)
    except ValueError as error:
        reason = getattr(error, "msg", str(error))
        detail = {
            "type": "json_invalid",
            "loc": "body.1",
            "msg": "JSON decode error",
            "input": "<dict of 0 items>",
            "ctx": {"error": reason},
        }
        raise RefusedError(400, f"1 validation error:\n  {detail}", "Bad Request", "body.1") from error
    if not isinstance(request, dict) or not isinstance(request.get("messages", request.get("prompt")), list | str):
        detail = {"type": "missing", "loc": "body.messages", "msg": "Field required", "input": "<dict>"}
        raise RefusedError(400, f"1 validation error:\n  {detail}", "Bad Request", "body.messages")
    return request


def _prompt(request: dict[str, Any]) -> str:
    if "messages" not in request:
        prompt = request["prompt"]
        return prompt if isinstance(prompt, str) else " ".join(str(part) for part in prompt)
    return "\n".join(str(part.get("text", "")) for part in _parts(request))


def _parts(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Every part of every message; a message that is text has one."""
    parts: list[Any] = []
    for message in request.get("messages", []):
        content = message.get("content") if isinstance(message, dict) else None
        parts += content if isinstance(content, list) else [{"text": content or ""}]
    return [part for part in parts if isinstance(part, dict)]
