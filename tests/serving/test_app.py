"""The routes of the server, and errors in one format for everything that can go wrong."""

import httpx2
import pytest

ERROR_KEYS = {"message", "type", "param", "code"}


def error_of(reply: httpx2.Response) -> dict:
    """The error object of a reply, whose message is one line."""
    body = reply.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == ERROR_KEYS
    assert len(body["error"]["message"].splitlines()) == 1
    return body["error"]


def post(http: httpx2.Client, content: bytes, kind: str = "application/json") -> httpx2.Response:
    return http.post("/v1/completions", content=content, headers={"content-type": kind})


def test_every_reply_has_an_id_of_its_own_and_a_content_security_policy(http):
    replies = [http.get("/health"), http.get("/nothing"), http.get("/"), post(http, b"{")]
    assert [reply.status_code for reply in replies] == [200, 404, 200, 400]
    assert len({reply.headers["x-request-id"] for reply in replies}) == 4
    assert {reply.headers["content-security-policy"] for reply in replies} == {"default-src 'self'"}


def test_an_unknown_path_is_404(http):
    reply = http.get("/v1/nothing")
    assert reply.status_code == 404
    assert "/v1/nothing" in error_of(reply)["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_apis_of_chat_models_are_404_and_name_the_one_to_use(http, path):
    reply = http.post(path, json={"model": "story", "messages": []})
    assert reply.status_code == 404
    assert "/v1/completions" in error_of(reply)["message"]


def test_a_wrong_method_is_405_and_names_the_right_one(http):
    reply = http.put("/v1/completions", json={})
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    assert "PUT" in error_of(reply)["message"]
    assert http.post("/health").status_code == 405


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        (b'{"prompt": ' * 10_000, "nested too deeply"),
        (b'{"prompt": "a"', "not valid JSON"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
        (b'{"n": ' + b"9" * 5000 + b"}", "thousands of digits"),
        (b'["prompt"]', "must be a JSON object"),
        (b'"prompt"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"", "body is missing"),
    ],
    ids=["arrays", "objects", "cut", "latin1", "digits", "array", "string", "null", "empty"],
)
def test_a_body_that_is_no_json_object_is_400(http, body, part):
    reply = post(http, body)
    assert reply.status_code == 400
    assert part in error_of(reply)["message"]


def test_a_form_is_415_and_tells_the_option_of_curl(http):
    reply = http.post("/v1/completions", data={"prompt": "a"})
    assert reply.status_code == 415
    assert "-H 'Content-Type: application/json'" in error_of(reply)["message"]


def test_an_unknown_field_is_400_with_the_nearest_name(http):
    for field, nearest in (
        ("max_token", "max_tokens"),
        ("max_completion_tokens", "max_tokens"),
        ("temprature", "temperature"),
    ):
        error = error_of(http.post("/v1/completions", json={"prompt": "a", field: 1}))
        assert error["param"] == field
        assert f"Did you mean {nearest}?" in error["message"]
    body = {"prompt": "a", "stream": True, "stream_options": {"include_usag": True}}
    error = error_of(http.post("/v1/completions", json=body))
    assert error["param"] == "stream_options"
    assert "Did you mean include_usage?" in error["message"]
    assert error_of(
        http.post("/v1/completions", content=b'{"\\ud800": 1}', headers={"content-type": "application/json"})
    )


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/../../etc/passwd",
        "/etc/passwd",
        "/runs/story/config.toml",
        "/v1/models/../../../etc/passwd",
        "/v1/models/%2fetc%2fpasswd",
        "/page/..\\app.py",
    ],
)
def test_no_path_leaves_the_folder_of_the_page(server, path):
    # Written to the socket: clients normalize paths.
    import socket

    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 404 ")
    assert b'{"error": {' in reply


def test_the_page_is_html_without_scripts_of_other_sites(http):
    reply = http.get("/")
    assert reply.headers["content-type"].startswith("text/html")
    assert "http" not in reply.text.lower().replace("/http", "")
    assert http.get("/page/index.html").text == reply.text


def test_the_schema_describes_every_path_and_no_reply_of_the_framework(http):
    schema = http.get("/openapi.json").json()
    assert {
        "/v1/models",
        "/v1/models/{id}",
        "/v1/completions",
        "/tokenize",
        "/detokenize",
        "/tokenizer_info",
        "/health",
    } <= set(schema["paths"])
    operations = [operation for path in schema["paths"].values() for operation in path.values()]
    assert all("422" not in operation["responses"] for operation in operations)
    assert all("default" in operation["responses"] for operation in operations)
    replies = [operation["responses"]["200"]["content"] for operation in operations]
    assert all("$ref" in reply["application/json"]["schema"] for reply in replies if "application/json" in reply)


def test_the_metrics_count_replies_and_tokens(http):
    before = http.get("/metrics").text
    assert http.post("/v1/completions", json={"prompt": "abc", "max_tokens": 5, "temperature": 0}).status_code == 200
    after = http.get("/metrics").text

    def value(text: str, name: str) -> float:
        return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0)

    assert value(after, "tokenloom_prompt_tokens_total ") - value(before, "tokenloom_prompt_tokens_total ") == 3
    assert value(after, 'tokenloom_replies_total{status="200"}') > value(
        before, 'tokenloom_replies_total{status="200"}'
    )
    assert value(after, "tokenloom_completion_seconds_count") - value(before, "tokenloom_completion_seconds_count") == 1
    assert value(after, "tokenloom_running_sequences ") == 0
