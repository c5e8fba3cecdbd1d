"""A Hugging Face hub on this machine, with one repository and the faults that a test wants."""

import hashlib
import json
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = "jh-yi/Video-Panda-7B"
FIRST, SECOND = "1" * 40, "2" * 40
ENDLESS = 60_000_000  # bytes; enough to tell, and not too many where a test fails
LARGE = (".bin", ".safetensors", ".model", ".pt")


KNOWN = "6e2080cb41ca99c43eae3433068fecf3fd85ecb9"
"""The commit that published the weights of Video-Panda-7B."""


@dataclass(frozen=True)
class Listed:
    """A file of which the hub lists this much, and serves as many zeros."""

    size: int
    sha256: str

    def __len__(self):
        return self.size

    def __getitem__(self, part):
        return Listed(self.size - part.start, self.sha256)


def published_config(subfolder="videopanda_fitu", **changes):
    """The `config.json` of Video-Panda-7B: all fields that its page shows, and its length.

    The page gives 1,550 and 1,666 bytes. Fields that are not known make up for some of them; here
    that is white space.
    """
    tuned = subfolder == "videopanda_fitu"
    base = "videopanda_prtr1" if tuned else "veve_prtr0"
    vision = "videopanda/config/videopanda-{}-LB-patch14-anypixel-448"
    fields = {
        "_name_or_path": f"checkpoints/Video-Panda-7B/{base}",
        "architectures": ["VideoPandaLlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_size": 4096,
        "image_aspect_ratio": "square",
        "image_grid_pinpoints": None,
        "intermediate_size": 11008,
        "max_position_embeddings": 4096,
        "mm_hidden_size": 1024,
        "mm_projector_lr": 2e-05 if tuned else None,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_video_tower": vision.format("video"),
        "mm_video_tower_teacher": "LanguageBind/LanguageBind_Video_merge",
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": vision.format("vision"),
        "mm_vision_tower_teacher": "LanguageBind/LanguageBind_Image",
        "model_type": "videopanda",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 32,
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "requires_image_distill": False,
        "requires_video_distill": True,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.31.0",
        "use_cache": True,
        "use_mm_proj": True,
        "video_hidden_size": 1024,
    }
    text = json.dumps(fields | changes, indent=2)
    return text.ljust((1550 if tuned else 1666) - 1).encode() + b"\n"


def _special_token(text, **more):
    options = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return more | {"content": text} | options


def _token_object(text):
    return _special_token(text, __type="AddedToken")


TOKENIZER_CONFIG = (
    json.dumps(
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": _token_object("<s>"),
            "clean_up_tokenization_spaces": False,
            "eos_token": _token_object("</s>"),
            "legacy": False,
            "model_max_length": 4096,
            "pad_token": None,
            "padding_side": "right",
            "sp_model_kwargs": {},
            "tokenizer_class": "LlamaTokenizer",
            "unk_token": _token_object("<unk>"),
        },
        indent=2,
    )
    + "\n"
).encode()
"""749 bytes, as the page of the pretrained model gives them."""

SPECIAL_TOKENS_MAP = (
    json.dumps(
        {
            "bos_token": _special_token("<s>"),
            "eos_token": _special_token("</s>"),
            "pad_token": "<unk>",
            "unk_token": _special_token("<unk>"),
        },
        indent=2,
    )
    + "\n"
).encode()
"""438 bytes, as the page of the pretrained model gives them."""


def checkpoint(subfolder="videopanda_fitu", shard=b"weights " * 40_000, second=b"more."):
    """The files of a folder of the repository: names and small files as published, other weights.

    The names of both shards and of config.json were seen; tokenizer_config.json and
    special_tokens_map.json in the folder of the pretrained model only. The others are expected.
    """
    inside = {
        "config.json": published_config(subfolder),
        "generation_config.json": b"{}",
        "special_tokens_map.json": SPECIAL_TOKENS_MAP,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "tokenizer.model": b"pieces",
        "pytorch_model.bin.index.json": json.dumps(
            {
                "metadata": {"total_size": len(shard) + len(second)},
                "weight_map": {
                    "a": "pytorch_model-00001-of-00002.bin",
                    "b": "pytorch_model-00002-of-00002.bin",
                },
            }
        ).encode(),
        "pytorch_model-00001-of-00002.bin": shard,
        "pytorch_model-00002-of-00002.bin": second,
        "trainer_state.json": b"{}",
        "training_args.bin": b"not for us",
        "optimizer.pt": b"not for us either",  # not there, as far as is known; nor the next
        "zero/config.json": b"{}",
    }
    files = {f"{subfolder}/{name}": content for name, content in inside.items()}
    return files | {"README.md": b"#", ".gitattributes": b"*.bin filter=lfs"}


def published(subfolder="videopanda_fitu"):
    """The same, with the weights as their pages list them: digests, and rounded sizes."""
    first = "295d0055a90975f83e76a76479aa460c562d1e2e36fca47b95dc5a629ffe3dc8"
    second = "839292103f724a4067a4cdc76674654d641659b37fc4ca5c30db78a7d6525abc"
    return checkpoint(subfolder, Listed(9_980_000_000, first), Listed(6_690_000_000, second))


@dataclass
class FakeHub:
    """A running hub.

    Attributes:
        commits: For each commit, the files by path; the last is what `main` names.
        statuses: Answers that are errors, by the beginning of the URL's path, which may have a
            method before it.
        cut: How many bytes of each large file are sent before the connection breaks; once each.
        stall: How many bytes of a large file are sent before the server says no more.
        altered: Paths whose content is sent with its first byte changed.
        endless: Paths whose content is sent without an end; "listing" for that of the repository.
        listed: What the listing says otherwise of a path.
        headers: What else the headers of a file say, by path.
        ranges: Whether a download can be resumed.
        sent: How many bytes went out of what was last sent without an end.
        requests: What was asked for: method, path and range.
    """

    commits: dict[str, dict[str, bytes | Listed]]
    statuses: dict[str, int] = field(default_factory=dict)
    cut: int | None = None
    stall: int | None = None
    altered: set[str] = field(default_factory=set)
    endless: set[str] = field(default_factory=set)
    listed: dict[str, dict[str, object]] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    ranges: bool = True
    sent: int = 0
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
    if isinstance(content, Listed):
        return content.sha256
    return hashlib.sha256(content).hexdigest()


def _git_digest(content):
    if isinstance(content, Listed):
        return "0" * 40
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
            if f"{self.command} {path}".startswith((beginning, f"{self.command} {beginning}")):
                return self._send(status, b"{}", self.hub.headers.get(beginning))
        if path == f"/api/models/{REPO}" and "listing" in self.hub.endless:
            return self._send_endlessly({}, b'{"sha": "')
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
            "siblings": [
                _sibling(path, content) | self.hub.listed.get(path, {})
                for path, content in self.hub.commits[self.hub.main].items()
            ],
        }

    def _send_file(self, commit, name, content):
        digest = sha256(content) if _is_large(name) else _git_digest(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        headers |= self.hub.headers.get(name, {})
        if name in self.hub.altered:
            content = b"?" + content[1:]
        if name in self.hub.endless and self.command == "GET":
            self._send_endlessly(headers, content)
            return
        start = 0
        if self.hub.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206 if start else 200, content[start:], headers)

    def _send_endlessly(self, headers, body):
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        sent = self.wfile.write(body)
        with suppress(OSError):
            while sent < ENDLESS:
                sent += self.wfile.write(b" " * 1_000_000)
        self.hub.sent = sent

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
        elif isinstance(body, Listed):
            for start in range(0, body.size, 1_000_000):
                self.wfile.write(bytes(min(1_000_000, body.size - start)))
        else:
            self.wfile.write(body)


def _sibling(path, content):
    facts = {"rfilename": path, "size": len(content), "blobId": _git_digest(content)}
    if _is_large(path):
        facts["lfs"] = {"size": len(content), "sha256": sha256(content), "pointerSize": 130}
    return facts
