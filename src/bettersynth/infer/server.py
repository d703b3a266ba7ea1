"""A local OpenAI-compatible server over one model, with nothing but the standard library, and a small page to chat on.

Safe by default: it listens on this machine only, refuses requests that a web page of another site could make, fetches
no address and reads no file for a client, and bounds everything that a request can ask for.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from bettersynth.core.errors import BetterSynthError, ConfigError, DataError
from bettersynth.core.lang import t
from bettersynth.infer.openai_api import Call, chat_answer, chat_call, chat_chunks, image_answer, image_call
from bettersynth.infer.unified_types import UnifiedRequest, UnifiedResult

MAX_BODY_BYTES = 64 * 2**20
MAX_WAITING = 64
_SOCKET_TIMEOUT_S = 60.0
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PAGES = {"/": ("chat.html", "text/html"), "/chat.js": ("chat.js", "text/javascript")}
_CALLS: dict[str, Callable[[Mapping[str, Any]], Call]] = {
    "/v1/chat/completions": chat_call,
    "/v1/images/generations": image_call,
}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}


class Answerer(Protocol):
    """Who answers; :class:`InterleaveInferencer` does."""

    def generate_batch(self, prompts: Sequence[UnifiedRequest]) -> list[UnifiedResult]:
        """One result per request."""
        ...


class Refused(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: HTTPStatus, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How to serve.

    Attributes:
        model: name that clients see.
        host, port: where to listen; port 0 takes a free one.
        api_key: what clients must send; needed on any address but this machine's own.
        batch_size: requests of any clients answered together.
    """

    model: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str = ""
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(t("cannot listen here"), where="--port", got=self.port, expected="0 ... 65535")
        if not self.is_local and not self.api_key:
            raise ConfigError(
                t("an address that others can reach needs a key"),
                where="--host",
                got=self.host,
                expected="127.0.0.1",
                hint=t("give --api-key, or set BETTERSYNTH_API_KEY"),
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass
class _Job:
    requests: tuple[UnifiedRequest, ...]
    done: threading.Event = field(default_factory=threading.Event)
    results: list[UnifiedResult] = field(default_factory=list)
    error: Exception | None = None


class Batcher:
    """One thread that owns the model and answers what is waiting together, whoever asked.

    Args:
        answerer: the model.
        batch_size: most requests of one batch; a call with more of its own still goes through whole.
    """

    def __init__(self, answerer: Answerer, batch_size: int) -> None:
        self.answerer, self.batch_size = answerer, batch_size
        self.waiting: queue.Queue[_Job | None] = queue.Queue(MAX_WAITING)
        self.thread = threading.Thread(target=self._work, name="model", daemon=True)
        self.thread.start()

    def answer(self, requests: tuple[UnifiedRequest, ...]) -> list[UnifiedResult]:
        """Wait for the results.

        Raises:
            Refused: too many are waiting. Whatever the model raised.
        """
        job = _Job(requests)
        try:
            self.waiting.put_nowait(job)
        except queue.Full as error:
            message = t("too many requests are waiting")
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, message, code="overloaded") from error
        job.done.wait()
        if job.error is not None:
            raise job.error
        return job.results

    def stop(self) -> None:
        """Finish what is being answered and end the thread."""
        self.waiting.put(None)
        self.thread.join(timeout=_SOCKET_TIMEOUT_S)

    def _work(self) -> None:
        while (job := self.waiting.get()) is not None:
            jobs, is_last = [job], False
            while sum(len(other.requests) for other in jobs) < self.batch_size:
                try:
                    following = self.waiting.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    is_last = True
                    break
                jobs.append(following)
            self._answer(jobs)
            if is_last:
                return

    def _answer(self, jobs: list[_Job]) -> None:
        try:
            results = self.answerer.generate_batch([request for job in jobs for request in job.requests])
        except Exception as error:  # noqa: BLE001 - the thread must outlive every request
            if len(jobs) > 1:  # one client's mistake is no other client's
                for job in jobs:
                    self._answer([job])
                return
            jobs[0].error = error
        else:
            for job in jobs:
                job.results, results = results[: len(job.requests)], results[len(job.requests) :]
        for job in jobs:
            job.done.set()


class Server(ThreadingHTTPServer):
    """The listening server; ``url`` says where.

    Args:
        settings: see :class:`ServeSettings`.
        answerer: the model.
        log: told one line per request.
    """

    daemon_threads = True

    def __init__(
        self, settings: ServeSettings, answerer: Answerer, log: Callable[[str], None] = lambda line: None
    ) -> None:
        self.settings, self.log = settings, log
        self.batcher: Batcher | None = None
        if ":" in settings.host:
            import socket

            self.address_family = socket.AF_INET6
        try:
            super().__init__((settings.host, settings.port), _Handler)
        except OSError as error:
            raise DataError(
                t("cannot listen here"), where=f"{settings.host}:{settings.port}", got=error.strerror or str(error)
            ) from error
        self.batcher = Batcher(answerer, settings.batch_size)

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.server_address[1]}/"

    def server_close(self) -> None:
        """Stop listening, then the model's thread."""
        super().server_close()
        if self.batcher is not None:
            self.batcher.stop()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "bettersynth"
    sys_version = ""
    timeout = _SOCKET_TIMEOUT_S

    # -- what is offered -----------------------------------------------------------------------------------------

    def do_GET(self) -> None:
        """Page, health, models."""
        self._guarded(self._get)

    def do_POST(self) -> None:
        """Chat and pictures."""
        self._guarded(self._post)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses by itself (another method, a torn request) in OpenAI's form, too."""
        is_method = code == HTTPStatus.NOT_IMPLEMENTED
        status = HTTPStatus.METHOD_NOT_ALLOWED if is_method else HTTPStatus(code)
        self._refuse(Refused(status, message or status.phrase, code="bad_request"))

    def _get(self, path: str) -> None:
        if path in _PAGES:
            name, kind = _PAGES[path]
            page = resources.files("bettersynth.infer").joinpath("web", name).read_bytes()
            self._send(HTTPStatus.OK, page, f"{kind}; charset=utf-8")
        elif path == "/health":
            self._send_json({"status": "ok"})
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            self._check_key()
            model = {"id": self.server.settings.model, "object": "model", "created": 0, "owned_by": "bettersynth"}
            name = unquote(path.removeprefix("/v1/models").removeprefix("/"))
            self._check_model(name)
            self._send_json(model if name else {"object": "list", "data": [model]})
        elif path in _CALLS:
            message = t("{path} takes POST only", path=path)
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, message, code="method_not_allowed")
        else:
            raise Refused(HTTPStatus.NOT_FOUND, t("nothing is here"), code="not_found")

    def _post(self, path: str) -> None:
        if path not in _CALLS:
            raise Refused(HTTPStatus.NOT_FOUND, t("nothing is here"), code="not_found")
        self._check_key()
        body = self._body()
        self._check_model(body.get("model"))
        try:
            call = _CALLS[path](body)
        except (TypeError, ValueError, AttributeError) as error:  # a value of another kind than any that is expected
            message = t("unsupported value")
            raise Refused(HTTPStatus.BAD_REQUEST, f"{message}: {error}", code="invalid_value") from error
        assert self.server.batcher is not None
        results = self.server.batcher.answer(call.requests)
        if path.endswith("generations"):
            self._send_json(image_answer(results))
            return
        answer = chat_answer(self.server.settings.model, results)
        if call.is_stream:
            self._send_stream(chat_chunks(answer, has_usage=call.has_usage))
        else:
            self._send_json(answer)

    # -- who may ask ---------------------------------------------------------------------------------------------

    def _check_origin(self) -> None:
        """A page of another site must not reach the server through a browser, by whatever name it calls it."""
        settings = self.server.settings
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if settings.is_local and host not in (*_LOOPBACK_NAMES, settings.host):
            raise Refused(HTTPStatus.FORBIDDEN, t("this host name is not served"), code="bad_host")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            raise Refused(HTTPStatus.FORBIDDEN, t("requests of other sites are not answered"), code="bad_origin")

    def _check_key(self) -> None:
        wanted = self.server.settings.api_key
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if wanted and not hmac.compare_digest(given.encode(), wanted.encode()):
            raise Refused(HTTPStatus.UNAUTHORIZED, t("wrong or missing key"), code="invalid_api_key")

    def _check_model(self, name: Any) -> None:
        """Another model's name is refused: its answers would be taken for that model's."""
        served = self.server.settings.model
        if name in (None, "", served):
            return
        message = t("no model '{name}' here; served is '{served}'", name=str(name)[:200], served=served)
        raise Refused(HTTPStatus.NOT_FOUND, message, code="model_not_found", param="model")

    def _body(self) -> Mapping[str, Any]:
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            message = t("the body must be JSON")
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, code="bad_content_type")
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, t("the length must be told"), code="no_length")
        if int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            message = t("the request is too large: at most {n} MiB", n=MAX_BODY_BYTES // 2**20)
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message, code="too_large")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refused(HTTPStatus.BAD_REQUEST, f"{t('not readable JSON')}: {error}", code="bad_json") from error
        if not isinstance(body, dict):
            message = t("not a JSON object but a {got}", got=type(body).__name__)
            raise Refused(HTTPStatus.BAD_REQUEST, message, code="bad_json")
        return body

    # -- how it is answered --------------------------------------------------------------------------------------

    def _guarded(self, act: Callable[[str], None]) -> None:
        """Run one request; whatever goes wrong becomes an answer in OpenAI's form."""
        path = urlsplit(self.path).path
        try:
            self._check_origin()
            act(path)
        except Refused as refused:
            self._refuse(refused)
        except (ConfigError, DataError) as error:
            message = error.body()
            self._refuse(Refused(HTTPStatus.BAD_REQUEST, message, code="invalid_value", param=error.where))
        except BetterSynthError as error:
            self._refuse(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, error.message, code="failed"))
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True
        except Exception:  # noqa: BLE001 - a defect must not end the server; its trace is for its owner alone
            traceback.print_exc(file=sys.stderr)
            message = t("internal error; see the server's log")
            self._refuse(Refused(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal"))

    def _refuse(self, refused: Refused) -> None:
        self.close_connection = True  # the body may not have been read
        self._send(refused.status, json.dumps(refused.body, ensure_ascii=False).encode(), "application/json")

    def _send_json(self, value: Mapping[str, Any]) -> None:
        self._send(HTTPStatus.OK, json.dumps(value, ensure_ascii=False).encode(), "application/json")

    def _send(self, status: HTTPStatus, data: bytes, kind: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": "no-store", **_HEADERS}
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send_stream(self, chunks: Sequence[Mapping[str, Any]]) -> None:
        lines = [f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks]
        self._send(HTTPStatus.OK, "".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def log_message(self, format: str, *args: Any) -> None:
        """One line per request; paths without their query, nothing of bodies or keys."""
        status = args[1] if len(args) > 1 else ""
        path = urlsplit(getattr(self, "path", "")).path[:200]
        self.server.log(f"{time.strftime('%H:%M:%S')} {self.command or '-'} {path!a} {status}")
