"""The server over a real socket: OpenAI's forms, batches of several clients, and what it refuses."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
from dataclasses import replace

import pytest
from PIL import Image

from bettersynth.core.errors import ConfigError, DataError
from bettersynth.infer import server as server_module
from bettersynth.infer.openai_api import chat_call, picture_of, url_of
from bettersynth.infer.server import Server, ServeSettings
from bettersynth.infer.unified import InterleaveInferencer

QUICK = {"num_timesteps": 2, "size": "16x8", "max_tokens": 4}
RED = url_of(Image.new("RGB", (12, 8), "red"))


@pytest.fixture(scope="module")
def inferencer(bagel_folder):
    return InterleaveInferencer(bagel_folder)


def _start(answerer, **settings):
    server = Server(ServeSettings(model="tiny", port=0, **settings), answerer)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def server(inferencer):
    server = _start(inferencer)
    yield server
    server.shutdown()
    server.server_close()


def _ask(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    connection.request(method, path, data, {**sent, **{k.replace("_", "-"): v for k, v in headers.items()}})
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    is_json = reply.getheader("Content-Type") == "application/json"
    return reply.status, json.loads(content) if is_json else content, reply


def _chat(server, content, **body):
    messages = [{"role": "user", "content": content}]
    return _ask(server, "POST", "/v1/chat/completions", {"model": "tiny", "messages": messages, **QUICK, **body})[:2]


def _picture(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_pictures_in_and_out(server, inferencer):
    content = [{"type": "image_url", "image_url": {"url": RED}}, {"type": "text", "text": "make a blue cup"}]
    status, answer = _chat(server, content, output="image", seed=5)
    message = answer["choices"][0]["message"]
    assert status == 200 and answer["object"] == "chat.completion" and answer["model"] == "tiny"
    assert message["bettersynth"]["order"][0]["how"] == "control" and answer["usage"]["prompt_tokens"] > 10
    wanted = inferencer.unified_generate(
        [Image.new("RGB", (12, 8), "red"), "make a blue cup"],
        output="image",
        seed=5,
        num_timesteps=2,
        image_size=(16, 8),
    )
    assert _picture(message["images"][0]["image_url"]["url"]).tobytes() == wanted.images[0].tobytes()


def test_modalities_and_dialogues(server):
    _, answer = _chat(server, "what is this", modalities=["text"], temperature=0)
    message = answer["choices"][0]["message"]
    assert message["images"] == [] and message["bettersynth"]["decisions"][0]["kind"] == "text"
    drawn = _chat(server, "what is this", modalities=["image"], seed=1)[1]["choices"][0]["message"]
    turns = [
        {"role": "system", "content": "the end"},
        {"role": "user", "content": "draw a red ball"},
        {"role": "assistant", "content": drawn["content"], "images": drawn["images"]},
        {"role": "user", "content": "what is this"},
    ]
    call = chat_call({"messages": turns, **QUICK})
    assert [(part.is_image, part.is_own) for part in call.requests[0].parts] == [
        *[(False, False), (False, False)],
        *[(True, True), (False, False)],
    ]
    assert _ask(server, "POST", "/v1/chat/completions", {"messages": turns, **QUICK})[0] == 200


def test_several_answers_streams_and_pictures_alone(server):
    _, answer = _chat(server, "draw a red ball", output="image", n=2, seed=3)
    urls = [choice["message"]["images"][0]["image_url"]["url"] for choice in answer["choices"]]
    assert len(urls) == 2 and urls[0] != urls[1]
    messages = [{"role": "user", "content": "draw a red ball"}]
    body = {"messages": messages, **QUICK, "output": "image", "seed": 3, "stream": True}
    status, stream, reply = _ask(server, "POST", "/v1/chat/completions", body)
    lines = stream.decode().strip().split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert status == 200 and lines[-1] == "data: [DONE]" and reply.getheader("Content-Type") == "text/event-stream"
    assert chunks[2]["choices"][0]["delta"]["images"][0]["image_url"]["url"] == urls[0]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop" and not any("usage" in chunk for chunk in chunks)
    body["stream_options"] = {"include_usage": True}
    *chunks, last = _ask(server, "POST", "/v1/chat/completions", body)[1].decode().strip().split("\n\n")[:-1]
    last = json.loads(last.removeprefix("data: "))
    assert last["choices"] == [] and last["usage"]["completion_tokens"] > 0
    assert all('"usage": null' in chunk for chunk in chunks)
    body = {"prompt": "a red ball", "n": 2, "size": "16x8", "seed": 3, "num_timesteps": 2}
    status, made, _ = _ask(server, "POST", "/v1/images/generations", body)
    assert status == 200 and len(made["data"]) == 2
    assert Image.open(io.BytesIO(base64.b64decode(made["data"][0]["b64_json"]))).size == (16, 8)


def test_stop_and_top_p_are_obeyed(server):
    whole = _chat(server, "what is this", output="text")[1]["choices"][0]
    cut = _chat(server, "what is this", output="text", stop=" ")[1]
    assert whole["finish_reason"] == "length" and cut["choices"][0]["finish_reason"] == "stop"
    assert cut["choices"][0]["message"]["content"] == whole["message"]["content"].split()[0]
    assert cut["usage"]["completion_tokens"] == 1
    narrow = _chat(server, "what is this", output="text", top_p=1e-6, seed=1)[1]["choices"][0]["message"]
    assert narrow["content"] == whole["message"]["content"]
    body = {"messages": [{"role": "user", "content": "a"}]}
    (alone,) = chat_call({**body, "top_p": 0.9}).requests  # OpenAI's temperature is 1 where none is given
    (greedy,) = chat_call({**body, "top_p": 0.9, "temperature": 0, "stop": ["a", "b"]}).requests
    assert (alone.temperature, alone.top_p) == (1.0, 0.9)
    assert (greedy.temperature, greedy.stop) == (0.0, ("a", "b"))


def test_clients_are_answered_together_and_alike(inferencer):
    sizes, first = [], threading.Event()

    class Slow:
        def generate_batch(self, requests):
            if not sizes:
                sizes.append(len(requests))
                first.set()
                release.wait(30)
            else:
                sizes.append(len(requests))
            return inferencer.generate_batch(requests)

    release = threading.Event()
    server = _start(Slow(), batch_size=3)
    answers = {}

    def ask(seed):
        answers[seed] = _chat(server, "draw a red ball", output="image", seed=seed)[1]

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    threads[0].start()
    first.wait(30)
    for thread in threads[1:]:
        thread.start()
    while server.batcher.waiting.qsize() < 3:
        pass
    release.set()
    for thread in threads:
        thread.join()
    again = _chat(server, "draw a red ball", output="image", seed=2)[1]
    server.shutdown()
    server.server_close()
    assert sizes == [1, 3, 1]
    both = [answer["choices"][0]["message"]["images"][0]["image_url"]["url"] for answer in (answers[2], again)]
    assert both[0] == both[1]


@pytest.mark.parametrize("key", ["image_shapes", "image_size", "size"])
def test_huge_pictures_are_refused_whatever_the_model_takes(key):
    """No model is asked: this is the server's own bound."""
    body = {"messages": [{"role": "user", "content": "draw"}]}
    for sides in ([100000, 8], [8, 100000], "100000x100000"):
        with pytest.raises(ConfigError, match="size is not drawn here") as caught:
            chat_call({**body, key: sides})
        assert "at most 2048 pixels" in str(caught.value.expected)
    (request,) = chat_call({**body, key: [16, 32]}).requests
    assert request.image_size == ((32, 16) if key == "image_shapes" else (16, 32))


def test_one_clients_mistake_is_not_anothers(server, inferencer):
    status, refused = _chat(server, "draw", output="image", size="2000x8")
    assert status == 400 and "sides of 4 to 24 pixels" in refused["error"]["message"]
    body = {"messages": [{"role": "user", "content": "draw"}], **QUICK, "output": "image"}
    jobs = [server_module._Job(chat_call({**body, **extra}).requests) for extra in ({}, {"size": "900x8"})]
    server.batcher._answer(jobs)
    assert len(jobs[0].results) == 1 and jobs[0].error is None and isinstance(jobs[1].error, ConfigError)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "image_url"),
        ({"messages": [{"role": "user", "content": "a"}], "n": 99}, "1 ... 8"),
        ({"messages": [{"role": "user", "content": "a"}], "num_timesteps": 10**6}, "1 ... 250"),
        ({"messages": [{"role": "user", "content": "a"}], "max_tokens": "many"}, "8192"),
        ({"messages": [{"role": "user", "content": "a"}], "cfg_txt_scale": 3}, "cfg_text_scale"),
        ({"messages": [{"role": "user", "content": "a"}], "size": "large"}, "1024x768"),
        ({"messages": [{"role": "user", "content": "a"}], "modalities": "text"}, "modalities"),
        ({"messages": [{"role": "user", "content": "a"}], "noise": [1]}, "noise"),
        ({"messages": [{"role": "user", "content": "a"}], "cfg_interval": 3}, "unsupported"),
        ({"messages": [{"role": "user", "content": "a"}], "output": {"a": 1}}, "output"),
        ({"messages": [{"role": "user", "content": "a"}], "cfg_text_scale": "4"}, "at least 0"),
        ({"messages": [{"role": "user", "content": "a"}], "cfg_interval": [1]}, "two numbers"),
        ({"messages": [{"role": "user", "content": "a"}], "max_new_tokens": 10**9}, "1 ... 8192"),
        ({"messages": [{"role": "user", "content": "a"}], "steps": 10**6}, "1 ... 250"),
        ({"messages": [{"role": "user", "content": "a"}], "top_p": 0}, "above 0, at most 1"),
        ({"messages": [{"role": "user", "content": "a"}], "top_p": 1.5}, "above 0, at most 1"),
        ({"messages": [{"role": "user", "content": "a"}], "stop": ""}, "none of them empty"),
        ({"messages": [{"role": "user", "content": "a"}], "stop": [1]}, "none of them empty"),
        ({"messages": [{"role": "user", "content": "a"}], "stop": ["a"] * 17}, "1 ... 16"),
        ({"messages": [{"role": "user", "content": "a"}], "output": ["image"] * 9}, "1 ... 8"),
        ({"messages": [{"role": "user", "content": "a"}], "output": []}, "output"),
        ({"messages": [{"role": "user", "content": "a"}], "image_shapes": "big"}, "the height first"),
        ({"messages": [{"role": "user", "content": "a"}], "seed": 2**70}, "seed"),
        ({"messages": [{"role": "user", "content": "a"}], "stream": "no"}, "true | false"),
        ({"messages": [{"role": "user", "content": "a"}], "stream_options": 1}, "include_usage"),
        ({"messages": [{"role": "user", "content": "a", "images": 5}]}, "messages[0].images"),
        ({"messages": [{"role": "user", "content": "half a \ud83d"}]}, "half of a letter"),
    ],
)
def test_wrong_requests_are_told_in_openai_form(server, body, said):
    status, answer, _ = _ask(server, "POST", "/v1/chat/completions", body)
    assert status == 400 and said in answer["error"]["message"] and answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x.png", "file:///etc/passwd", "/etc/passwd", None])
def test_nothing_is_fetched_for_a_client(url):
    with pytest.raises(ConfigError, match="inside the request"):
        picture_of(url, "here")


def test_bad_pictures_are_refused(monkeypatch):
    for url in ("data:image/png,abc", "data:image/png;base64,!!!", "data:image/png;base64,aGVsbG8="):
        with pytest.raises(DataError, match="damaged"):
            picture_of(url, "here")
    monkeypatch.setattr("bettersynth.infer.openai_api.MAX_PIXELS", 10)
    with pytest.raises(DataError, match="too large"):
        picture_of(RED, "here")
    many = [{"type": "image_url", "image_url": {"url": RED}}] * 17
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="too many pictures"):
        chat_call({"messages": [{"role": "user", "content": many}]})


def test_other_sites_and_other_forms_are_refused(server, monkeypatch):
    good = {"messages": [{"role": "user", "content": "draw"}], **QUICK}
    path = "/v1/chat/completions"
    assert _ask(server, "POST", path, good, Host="evil.example")[0] == 403
    assert _ask(server, "POST", path, good, Origin="https://evil.example")[0] == 403
    assert _ask(server, "GET", "/v1/models", Host="rebound.example:80")[0] == 403
    assert _ask(server, "POST", path, json.dumps(good).encode(), Content_Type="text/plain")[0] == 415
    assert _ask(server, "POST", path, b"{torn")[0] == 400
    assert _ask(server, "POST", path, b"[1]")[0] == 400
    assert _ask(server, "POST", "/v1/other", good)[0] == 404 == _ask(server, "GET", "/../server.py")[0]
    monkeypatch.setattr(server_module, "MAX_BODY_BYTES", 10)
    assert _ask(server, "POST", path, good)[0] == 413


def test_pages_models_and_health(server):
    status, page, reply = _ask(server, "GET", "/")
    assert (
        status == 200 and b"chat.js" in page and "frame-ancestors 'none'" in reply.getheader("Content-Security-Policy")
    )
    assert b"/v1/chat/completions" in _ask(server, "GET", "/chat.js")[1]
    assert _ask(server, "GET", "/v1/models")[1]["data"][0]["id"] == "tiny"
    assert _ask(server, "GET", "/health")[1] == {"status": "ok"}


def test_keys(inferencer):
    server = _start(inferencer, api_key="secret")
    assert _ask(server, "GET", "/v1/models")[0] == 401
    assert _ask(server, "GET", "/v1/models", Authorization="Bearer wrong")[0] == 401
    assert _ask(server, "GET", "/v1/models", Authorization="Bearer secret")[0] == 200
    server.shutdown()
    server.server_close()


def test_a_defect_is_an_answer_without_its_trace(capsys):
    class Broken:
        def generate_batch(self, requests):
            raise RuntimeError("secret path /home/me")

    server = _start(Broken())
    status, answer = _chat(server, "draw")
    server.shutdown()
    server.server_close()
    assert status == 500 and "secret" not in json.dumps(answer) and "secret path" in capsys.readouterr().err


def test_a_full_queue_is_told(monkeypatch, inferencer):
    monkeypatch.setattr(server_module, "MAX_WAITING", 1)
    batcher = server_module.Batcher(inferencer, 1)
    batcher.stop()
    batcher.waiting.put(None)
    with pytest.raises(server_module.Refused, match="waiting"):
        batcher.answer(())


def test_addresses_that_others_reach_need_a_key(bagel_folder, call):
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert ServeSettings(model="m", host=host).is_local
    with pytest.raises(ConfigError, match="needs a key"):
        ServeSettings(model="m", host="0.0.0.0")
    assert not ServeSettings(model="m", host="0.0.0.0", api_key="k").is_local
    assert "needs a key" in call("serve", "--model", bagel_folder, "--host", "0.0.0.0", expect=2).err


def test_the_command_serves_until_interrupted(bagel_folder, call, monkeypatch):
    def once(server):
        assert _ask_health(server)
        raise KeyboardInterrupt

    def _ask_health(server):
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        found = _ask(server, "GET", "/health")[1]["status"] == "ok"
        thread.join()
        return found

    monkeypatch.setattr(Server, "serve_forever", once)
    done = call("serve", "--model", bagel_folder, "--port", 0)
    assert "http://127.0.0.1:" in done.out and "stopped" in done.err


def test_a_taken_port_is_told(server, inferencer):
    with pytest.raises(ConfigError, match=r"0 \.\.\. 65535"):
        ServeSettings(model="m", port=99999)
    with pytest.raises(DataError, match="cannot listen"):
        Server(ServeSettings(model="m", port=server.server_address[1]), inferencer)


def test_other_models_methods_and_forms_are_refused_in_openai_form(server):
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "a"}]}
    status, answer, _ = _ask(server, "POST", "/v1/chat/completions", body)
    assert status == 404 and answer["error"]["code"] == "model_not_found" and "'tiny'" in answer["error"]["message"]
    assert _ask(server, "GET", "/v1/models/tiny")[1]["id"] == "tiny"
    assert _ask(server, "GET", "/v1/models/other")[0] == 404
    for method, path in (("GET", "/v1/chat/completions"), ("DELETE", "/v1/models"), ("OPTIONS", "/v1/models")):
        status, answer, _ = _ask(server, method, path)
        assert status == 405 and answer["error"]["type"] == "invalid_request_error"
    assert "not a JSON object but a list" in _ask(server, "POST", "/v1/chat/completions", [1])[1]["error"]["message"]
    status, answer, _ = _ask(server, "POST", "/v1/chat/completions", b'{"model":')
    assert "line 1 column 10" in answer["error"]["message"]


def test_texts_beyond_the_longest_context_are_refused(server, inferencer, monkeypatch):
    config = inferencer.model.config
    shorter = replace(config, llm=replace(config.llm, max_position_embeddings=8))
    monkeypatch.setattr(inferencer.model, "config", shorter)
    status, answer = _chat(server, "word " * 50)
    assert status == 400 and "at most 8" in answer["error"]["message"]
