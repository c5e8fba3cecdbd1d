"""The Hugging Face hub: where its cache is, whether it may be asked, and what its errors mean."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pandacli.errors import ModelError, PandaError
from pandacli.store.catalogue import KnownModel

_AGAIN = "check the connection and run the same command again; it goes on where it stopped"
_SIGN_IN = "sign in with 'hf auth login', or set HF_TOKEN to a token that may read it"
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


@contextmanager
def hub_errors(model: KnownModel) -> Iterator[None]:
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
        raise _explained(error, model) from error
    finally:
        logger.setLevel(level)


def _explained(error: BaseException, model: KnownModel) -> ModelError:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:
        return _explained(error.__cause__, model)
    if isinstance(error, HfHubHTTPError):
        return _refused(error.response.status_code, model)
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return ModelError(f"cannot write {error.filename}: {error.strerror}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"the disk is full: {cache()}", "free some space and run the same command again"
        )
    return _not_reached(error)


def _refused(status: int, model: KnownModel) -> ModelError:
    unknown = (f"answers with error {status}", "try again later; what is here already stays")
    message, hint = _STATUS.get(status, unknown)
    return ModelError(f"{_host()} {message.format(repo=model.repo)}", hint)


def _not_reached(error: BaseException) -> ModelError:
    # The HTTP library has been another one in other versions of huggingface_hub: its errors are
    # known by their names.
    names = {kind.__name__ for kind in type(error).__mro__}
    if "ProxyError" in names:
        return ModelError(
            f"the proxy between here and {_host()} does not work", "check HTTPS_PROXY"
        )
    if "TimeoutException" in names:
        return ModelError(f"{_host()} does not answer in time", _AGAIN)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ModelError(
            f"the certificate of {_host()} is not one this machine trusts",
            "behind a proxy that opens connections, set SSL_CERT_FILE to its certificate",
        )
    if "ConnectError" in names:
        return ModelError(f"cannot reach {_host()}", _AGAIN)
    if names & {"TransportError", "OSError"} and "FileMetadataError" not in names:
        return ModelError(f"the connection to {_host()} broke off", _AGAIN)
    return ModelError(
        f"{_host()} does not answer as Hugging Face does",
        "check HF_ENDPOINT, and whether this network wants a login in the browser first",
    )


def _host() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc or constants.ENDPOINT
