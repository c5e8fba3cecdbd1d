"""Requests to the Hugging Face hub and their errors.

A server is not trusted: no name or path is taken from its headers, and no response is read beyond
its declared size. `hub_errors` turns the errors of several libraries into `ModelError`s.
"""

import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from pandacli.checkpoints.registry import KnownModel, PublishedFile, hub_cache
from pandacli.errors import ModelError, PandaError

_RETRY = "check the connection and run the same command again; it resumes where it stopped"
_SIGN_IN = "sign in with 'hf auth login', or set HF_TOKEN to a token that may read it"
_MAX_LISTING_BYTES = 1 << 24
_LISTING_TIMEOUT = 30.0  # seconds
_MAX_WAIT = 10.0  # seconds to wait at the request of a busy server
_BUSY = (408, 429)
_BROKEN = {"NetworkError", "TimeoutException", "RemoteProtocolError", "ConnectionError"}
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_STATUS = {
    401: ("does not let us see {repo} (401)", _SIGN_IN),
    403: ("refuses access to {repo} (403)", _SIGN_IN),
    404: ("has no {repo}, or not all of it (404)", "a newer panda may know where it has gone"),
    407: ("is behind a proxy that wants a password (407)", "put it into HTTPS_PROXY"),
    429: ("has had too many requests from here (429)", "wait a few minutes, or set HF_TOKEN"),
}


def is_offline() -> bool:
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


class InconsistentError(ModelError):
    """The hub serves a file that differs from its listing."""

    def __init__(self, file: PublishedFile, how: str) -> None:
        super().__init__(
            f"{host()} serves {file.name} {how} than it lists",
            "nothing of it is kept; check HF_ENDPOINT, and any mirror or proxy on the way",
        )


class RefusedError(ModelError):
    """The hub responds with an HTTP error; `wait` is its Retry-After in seconds."""

    def __init__(self, status: int, model: KnownModel, wait: float = 0.0) -> None:
        unknown = (f"answers with error {status}", "try again later; downloaded files are kept")
        message, hint = _STATUS.get(status, unknown)
        super().__init__(f"{host()} {message.format(repo=model.repo)}", hint)
        self.status, self.wait = status, wait


def is_temporary(error: Exception) -> bool:
    if isinstance(error, RefusedError):
        return error.status in _BUSY and error.wait <= _MAX_WAIT
    return bool(_class_names(error) & _BROKEN)


def _class_names(error: Exception) -> set[str]:
    # by name, because versions of huggingface_hub use different HTTP libraries
    return {kind.__name__ for kind in type(error).__mro__}


def check_settings() -> None:
    from huggingface_hub import constants, get_token

    if not _is_address(constants.ENDPOINT, ("http", "https")):
        hint = "it should be like https://huggingface.co; unset it for that one"
        raise ModelError("HF_ENDPOINT is not the address of a hub", hint)
    for name in filter(os.environ.get, (*_PROXIES, *map(str.lower, _PROXIES))):
        proxy = os.environ[name] if "://" in os.environ[name] else f"http://{os.environ[name]}"
        if not _is_address(proxy, _PROXY_SCHEMES):
            hint = "it should be like http://host:port or socks5://host:port"
            raise ModelError(f"{name} is not the address of a proxy that panda can use", hint)
        scheme = urlsplit(proxy).scheme
        if scheme.startswith("socks5") and find_spec("socksio") is None:
            message = f"{name} names a SOCKS proxy ({scheme}://), which takes the package socksio"
            raise ModelError(message, "install it with: pip install socksio")
    token = get_token() or ""
    if not (token.isascii() and token.isprintable()):
        variables = [n for n in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(n)]
        place = [*variables, constants.HF_TOKEN_PATH][0]
        raise ModelError(f"{place} holds a character that is in no token", _SIGN_IN)


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in schemes and bool(address.hostname) and address.port != 0
    except ValueError:  # an invalid port, an unclosed bracket
        return False


def read_listing(model: KnownModel) -> dict[str, Any]:
    """Fetch the newest commit of a model's repository and the list of its files."""
    from huggingface_hub import constants

    content = bytearray()
    address = f"{constants.ENDPOINT}/api/models/{model.repo}?blobs=true"
    with _get(model, address, {}, _LISTING_TIMEOUT) as response:
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > _MAX_LISTING_BYTES:
                raise ValueError("the listing is too long")
    listing = json.loads(content)
    if not isinstance(listing, dict):
        raise ValueError("not a listing")
    return listing


def check_metadata(model: KnownModel, commit: str, file: PublishedFile) -> None:
    """Check by a HEAD request that the hub offers a file as it has listed it."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    address = hf_hub_url(str(model.repo), file.path, revision=commit)
    try:
        offered = get_hf_file_metadata(address, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HfHubHTTPError as error:
        # without the cause: its text holds the address, perhaps with a login
        raise RefusedError(error.response.status_code, model) from None
    if offered.commit_hash is None or offered.etag is None:
        raise ValueError("no commit or digest")
    if offered.commit_hash != commit:
        raise InconsistentError(file, "from another commit")
    if offered.etag != file.digest or offered.size not in (None, file.bytes):
        raise InconsistentError(file, "with another content")


def read_file(
    model: KnownModel, commit: str, file: PublishedFile, start: int
) -> Iterator[tuple[int, bytes]]:
    """The chunks of a file from `start` (0 if the server cannot resume), each with its offset."""
    from huggingface_hub import constants, hf_hub_url

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    address = hf_hub_url(str(model.repo), file.path, revision=commit)
    with _get(model, address, headers, constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
        offset = start if response.status_code == 206 else 0
        sent = response.headers.get("Content-Range", f"bytes {offset}-")
        if sent.split("-")[0] != f"bytes {offset}":
            raise ValueError("another part of the file")
        for chunk in response.iter_bytes(constants.DOWNLOAD_CHUNK_SIZE):
            if offset + len(chunk) > file.bytes:
                raise InconsistentError(file, "with more bytes")
            yield offset, chunk
            offset += len(chunk)
    if offset < file.bytes:
        raise ConnectionError("the response ended early")


@contextmanager
def _get(model: KnownModel, address: str, headers: dict[str, str], timeout: float) -> Iterator[Any]:
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers() | headers
    with get_session().stream("GET", address, headers=headers, timeout=timeout) as response:
        if response.status_code not in (200, 206):
            text = response.headers.get("Retry-After", "")
            wait = float(text) if text.isascii() and text.isdigit() else 0.0
            raise RefusedError(response.status_code, model, wait)
        yield response


@contextmanager
def hub_errors() -> Iterator[None]:
    """Turn every error of a request into a `ModelError`, and silence huggingface_hub's log."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (PandaError, MemoryError):
        raise
    except Exception as error:  # of several libraries, provoked by any server
        raise ModelError(*_explain(error)) from error
    finally:
        logger.setLevel(level)


def _explain(error: Exception) -> tuple[str, str | None]:
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"cannot write {error.filename}: {error.strerror}", None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {hub_cache()}", "free some space and run the same command again"
    names = _class_names(error)
    if "ProxyError" in names:
        return f"the proxy between here and {host()} does not work", "check HTTPS_PROXY"
    if "TimeoutException" in names:
        return f"{host()} does not answer in time", _RETRY
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        hint = "behind a proxy that opens connections, set SSL_CERT_FILE to its certificate"
        return f"the certificate of {host()} is not one this machine trusts", hint
    if "ConnectError" in names:
        return f"cannot reach {host()}", _RETRY
    if names & {"TransportError", "OSError"} and "FileMetadataError" not in names:
        return f"the connection to {host()} broke off", _RETRY
    hint = "check HF_ENDPOINT, and whether this network wants a login in the browser first"
    return f"{host()} does not answer as Hugging Face does", hint


def host() -> str:
    """The host of the hub for messages, without a login that its address may hold."""
    from huggingface_hub import constants

    try:
        address = urlsplit(constants.ENDPOINT)
        port = f":{address.port}" if address.port else ""
    except ValueError:
        return "the hub"
    return f"{address.hostname}{port}" if address.hostname else "the hub"
