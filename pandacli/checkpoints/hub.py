"""The Hugging Face hub: where its cache is, what it is asked, and what its errors mean.

A server is not trusted: no name or path is taken from its headers, and no answer is read beyond
the size that was declared for it. What it sends is compared with the listed digest elsewhere.
"""

import errno
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pandacli.checkpoints.registry import KnownModel
from pandacli.errors import ModelError, PandaError

_AGAIN = "check the connection and run the same command again; it goes on where it stopped"
_SIGN_IN = "sign in with 'hf auth login', or set HF_TOKEN to a token that may read it"
_LONGEST_LISTING = 1 << 24
_LISTING_TIMEOUT = 30.0  # seconds without a byte
_LONGEST_WAIT = 10.0  # seconds to wait because a busy server asks for it
_BUSY = (408, 429)
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_STATUS = {
    401: ("does not let us see {repo} (401)", _SIGN_IN),
    403: ("refuses access to {repo} (403)", _SIGN_IN),
    404: ("has no {repo}, or not all of it (404)", "a newer panda may know where it has gone"),
    407: ("is behind a proxy that wants a password (407)", "put it into HTTPS_PROXY"),
    429: ("has had too many requests from here (429)", "wait a few minutes, or set HF_TOKEN"),
}


def cache() -> Path:
    """The folder of the Hugging Face cache: `HF_HUB_CACHE`, or `hub` in `HF_HOME`."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def is_offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids the network."""
    from huggingface_hub import is_offline_mode

    return bool(is_offline_mode())


def refuse_offline(what: str) -> None:
    """Make sure that the network may be used.

    Raises:
        ModelError: It may not; `what` says what does not happen.
    """
    if is_offline():
        raise ModelError(
            f"{what}: this is offline mode",
            "leave out --offline, and unset PANDA_OFFLINE and HF_HUB_OFFLINE",
        )


class InconsistentError(ModelError):
    """The hub sends something else than it has listed."""


class RefusedError(ModelError):
    """An answer of the hub that is an error.

    Args:
        status: Its HTTP status.
        model: The model that was asked for.
        wait: For how many seconds a busy server wants to be left alone; 0 where it does not say.
    """

    def __init__(self, status: int, model: KnownModel, wait: float = 0.0) -> None:
        unknown = (f"answers with error {status}", "try again later; what is here already stays")
        message, hint = _STATUS.get(status, unknown)
        super().__init__(f"{host()} {message.format(repo=model.repo)}", hint)
        self.is_temporary = status in _BUSY and wait <= _LONGEST_WAIT
        self.wait = wait


def check_settings() -> None:
    """Make sure that the variables about the hub and the way to it can be right.

    Raises:
        ModelError: One cannot; the message names it, and does not show its value.
    """
    from huggingface_hub import constants, get_token

    if not _is_address(constants.ENDPOINT, ("http", "https")):
        raise ModelError(
            "HF_ENDPOINT is not the address of a hub",
            "it should be like https://huggingface.co; unset it for that one",
        )
    for name in (name for upper in _PROXIES for name in (upper, upper.lower())):
        if proxy := os.environ.get(name):
            _check_proxy(name, proxy if "://" in proxy else f"http://{proxy}")
    token = get_token() or ""
    if not (token.isascii() and token.isprintable()):
        places = (n for n in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(n))
        place = next(places, constants.HF_TOKEN_PATH)
        raise ModelError(f"{place} holds a character that is in no token", _SIGN_IN)


def read_listing(model: KnownModel) -> dict[str, Any]:
    """What the hub says of the newest commit of a model's repository, and of the files in it.

    Raises:
        ModelError: The hub refuses.
        Exception: The connection fails, or the answer is no such thing; see `hub_errors`.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    address = f"{constants.ENDPOINT}/api/models/{model.repo}"
    answer = bytearray()
    with get_session().stream(
        "GET",
        address,
        params={"blobs": True},
        headers=build_hf_headers(),
        timeout=_LISTING_TIMEOUT,
    ) as response:
        if response.status_code != 200:
            raise RefusedError(response.status_code, model)
        for piece in response.iter_bytes():
            answer += piece
            if len(answer) > _LONGEST_LISTING:
                raise ValueError("the listing is too long")
    listing = json.loads(answer)
    if not isinstance(listing, dict):
        raise ValueError("no listing")
    return listing


def check_offer(model: KnownModel, commit: str, path: str, size: int, digest: str) -> None:
    """Make sure that the hub offers a file as it has listed it, before any of it is fetched.

    Raises:
        ModelError: The hub refuses, or names another commit, content or size.
        Exception: As `read_listing`.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    address = hf_hub_url(str(model.repo), path, revision=commit)
    try:
        offered = get_hf_file_metadata(address, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HfHubHTTPError as error:
        # without the cause, whose text holds the address, and a login with it
        raise RefusedError(error.response.status_code, model) from None
    if offered.commit_hash is None or offered.etag is None:
        raise ValueError("no commit or digest")
    if offered.commit_hash != commit:
        raise _inconsistent(path, "from another commit")
    if offered.etag != digest or offered.size not in (None, size):
        raise _inconsistent(path, "with another content")


def read_file(
    model: KnownModel, commit: str, path: str, start: int, size: int
) -> Iterator[tuple[int, bytes]]:
    """Fetch a file from where an earlier attempt stopped.

    Args:
        model: The model.
        commit: The commit of the file.
        path: Its path in the repository.
        start: How much of it is here.
        size: How long it is; nothing is read beyond that.

    Yields:
        Its pieces, each with its offset. The first is 0 where the server cannot resume.

    Raises:
        ModelError: The hub refuses, or sends more than was listed.
        Exception: As `read_listing`.
    """
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream(
        "GET",
        hf_hub_url(str(model.repo), path, revision=commit),
        headers=headers,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    ) as response:
        if response.status_code not in (200, 206):
            raise RefusedError(response.status_code, model, _wait(response.headers))
        place = start if response.status_code == 206 else 0
        if (
            response.headers.get("Content-Range", f"bytes {place}-").split("-")[0]
            != f"bytes {place}"
        ):
            raise ValueError("another part of the file")
        for piece in response.iter_bytes(constants.DOWNLOAD_CHUNK_SIZE):
            if place + len(piece) > size:
                raise _inconsistent(path, "with more bytes")
            yield place, piece
            place += len(piece)
    if place < size:
        raise ConnectionError("the answer ended early")


def is_temporary(error: Exception) -> bool:
    """Whether what went wrong may not go wrong at once again."""
    if isinstance(error, RefusedError):
        return error.is_temporary
    names = {kind.__name__ for kind in type(error).__mro__}
    broken = {"NetworkError", "TimeoutException", "RemoteProtocolError", "ConnectionError"}
    return bool(names & broken)


@contextmanager
def hub_errors() -> Iterator[None]:
    """Let everything that goes wrong between here and the hub be a `ModelError` of one line.

    Meanwhile huggingface_hub keeps what it would log to itself.
    """
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except (PandaError, MemoryError):
        raise
    except Exception as error:  # of several libraries, and what a strange server makes them raise
        raise _explained(error) from error
    finally:
        logger.setLevel(level)


def _explained(error: BaseException) -> ModelError:
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return ModelError(f"cannot write {error.filename}: {error.strerror}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"the disk is full: {cache()}", "free some space and run the same command again"
        )
    return _not_reached(error)


def _not_reached(error: BaseException) -> ModelError:
    # The HTTP library has been another one in other versions of huggingface_hub: its errors are
    # known by their names.
    names = {kind.__name__ for kind in type(error).__mro__}
    if "ProxyError" in names:
        return ModelError(f"the proxy between here and {host()} does not work", "check HTTPS_PROXY")
    if "TimeoutException" in names:
        return ModelError(f"{host()} does not answer in time", _AGAIN)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ModelError(
            f"the certificate of {host()} is not one this machine trusts",
            "behind a proxy that opens connections, set SSL_CERT_FILE to its certificate",
        )
    if "ConnectError" in names:
        return ModelError(f"cannot reach {host()}", _AGAIN)
    if names & {"TransportError", "OSError"} and "FileMetadataError" not in names:
        return ModelError(f"the connection to {host()} broke off", _AGAIN)
    return ModelError(
        f"{host()} does not answer as Hugging Face does",
        "check HF_ENDPOINT, and whether this network wants a login in the browser first",
    )


def host() -> str:
    """The hub, as messages name it: without the login that its address may hold."""
    from huggingface_hub import constants

    try:
        address = urlsplit(constants.ENDPOINT)
        port = f":{address.port}" if address.port else ""
    except ValueError:
        return "the hub"
    return f"{address.hostname}{port}" if address.hostname else "the hub"


def _is_address(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        address = urlsplit(text)
        return address.scheme in schemes and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, half a bracket
        return False


def _check_proxy(name: str, address: str) -> None:
    if not _is_address(address, ("http", "https", "socks5", "socks5h")):
        raise ModelError(
            f"{name} is not the address of a proxy that panda can use",
            "it should be like http://host:port or socks5://host:port",
        )
    scheme = urlsplit(address).scheme
    if scheme.startswith("socks5") and find_spec("socksio") is None:
        raise ModelError(
            f"{name} names a SOCKS proxy ({scheme}://), which takes the package socksio",
            "install it with: pip install socksio",
        )


def _wait(headers: Mapping[str, str]) -> float:
    """For how many seconds a server asks to be left alone."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def _inconsistent(path: str, how: str) -> InconsistentError:
    return InconsistentError(
        f"{host()} serves {path.rpartition('/')[2]} {how} than it lists",
        "nothing of it is kept; check HF_ENDPOINT, and any mirror or proxy on the way",
    )
