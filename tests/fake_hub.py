"""A Hugging Face hub on this machine, with one repository and the faults that a test wants."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = "jh-yi/Video-Panda-7B"
FIRST, SECOND = "1" * 40, "2" * 40
LARGE = (".bin", ".safetensors", ".model", ".pt")


def checkpoint(subfolder="videopanda_fitu", shard=b"weights " * 40_000):
    """The files of a repository as it may be published, and some that inference has no use for."""
    inside = {
        "config.json": b'{"model_type": "videopanda"}',
        "generation_config.json": b"{}",
        "tokenizer_config.json": b"{}",
        "tokenizer.model": b"pieces",
        "pytorch_model.bin.index.json": json.dumps(
            {
                "metadata": {"total_size": len(shard) + 5},
                "weight_map": {
                    "a": "pytorch_model-00001-of-00002.bin",
                    "b": "pytorch_model-00002-of-00002.bin",
                },
            }
        ).encode(),
        "pytorch_model-00001-of-00002.bin": shard,
        "pytorch_model-00002-of-00002.bin": b"more.",
        "training_args.bin": b"not for us",
        "optimizer.pt": b"not for us either",
        "zero/config.json": b"{}",
    }
    return {f"{subfolder}/{name}": content for name, content in inside.items()} | {
        "README.md": b"#"
    }


@dataclass
class FakeHub:
    """A running hub.

    Attributes:
        commits: For each commit, the files by path; the last is what `main` names.
        statuses: Answers that are errors, by the beginning of the URL's path.
        cut: How many bytes of each large file are sent before the connection breaks; once each.
        stall: How many bytes of a large file are sent before the server says no more.
        altered: Paths whose content is sent with its first byte changed.
        ranges: Whether a download can be resumed.
        requests: What was asked for: method, path and range.
    """

    commits: dict[str, dict[str, bytes]]
    statuses: dict[str, int] = field(default_factory=dict)
    cut: int | None = None
    stall: int | None = None
    altered: set[str] = field(default_factory=set)
    ranges: bool = True
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __post_init__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self):
        """Ends the server, as if the network had gone."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def main(self):
        """The commit that a download finds."""
        return list(self.commits)[-1]

    def fetched(self):
        """The names of the files whose content was asked for, in order."""
        return [
            path.split("/")[-1]
            for method, path, _ in self.requests
            if method == "GET" and "/resolve/" in path
        ]


def sha256(content):
    """The digest that the hub publishes of a large file."""
    return hashlib.sha256(content).hexdigest()


def _git_digest(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _is_large(path):
    return path.endswith(LARGE)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def log_message(self, *_):
        pass

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        for beginning, status in self.hub.statuses.items():
            if path.startswith(beginning):
                return self._send(status, b"{}")
        if path == f"/api/models/{REPO}":
            return self._send(200, json.dumps(self._listing()).encode())
        commit, _, name = path.removeprefix(f"/{REPO}/resolve/").partition("/")
        content = self.hub.commits.get(commit, {}).get(name)
        if content is None:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        return self._send_file(commit, name, content)

    def _listing(self):
        return {
            "id": REPO,
            "sha": self.hub.main,
            "siblings": [_sibling(*file) for file in self.hub.commits[self.hub.main].items()],
        }

    def _send_file(self, commit, name, content):
        digest = sha256(content) if _is_large(name) else _git_digest(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if name in self.hub.altered:
            content = b"?" + content[1:]
        start = 0
        if self.hub.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers)

    def _send(self, status, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.stall is not None and len(body) > self.hub.stall:
            self.wfile.write(body[: self.hub.stall])
            while self.hub.stall is not None:
                time.sleep(0.05)
            self.close_connection = True
            return
        cut = self.hub.cut
        if cut is not None and len(body) > cut:
            self.wfile.write(body[:cut])
            self.close_connection = True
        else:
            self.wfile.write(body)


def _sibling(path, content):
    facts = {"rfilename": path, "size": len(content), "blobId": _git_digest(content)}
    if _is_large(path):
        facts["lfs"] = {"size": len(content), "sha256": sha256(content), "pointerSize": 130}
    return facts
