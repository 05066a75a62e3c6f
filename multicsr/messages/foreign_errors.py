"""Translation of other libraries' exceptions into one line with the remedy, for the whole package.

Ray, boto3, the Kubernetes client, Arrow, torch and the operating system each report the same few failures in
their own words: an unreachable server, a certificate, memory, disk, permissions. `translate_error` returns an
error of this project that names it, or None for an exception that is not known here. The latter is a fault of
this program or an unforeseen failure outside it, and `cli.entrypoint.guarded` reports it as such.

No library is imported here: the class of an exception names the module in which it is defined.
"""

import builtins
import errno
import os
import subprocess
from collections.abc import Callable
from typing import Any

from multicsr.errors import MulticsrError, RunError
from multicsr.messages.error_chain import class_names, describe, error_chain, first_sentence, is_of
from multicsr.messages.extras import extra_of, install_extra
from multicsr.messages.network_errors import (
    describe_tls,
    translate_boto,
    translate_hub,
    translate_network,
    translate_urllib,
)
from multicsr.messages.ray_errors import MEMORY, translate_ray
from multicsr.messages.terminal import one_line


def translate_error(error: BaseException) -> MulticsrError | None:
    """Return an error that states what the user can do about `error`; None if the failure is not known.

    An exception that wraps another one (of a Ray task, of a retry, of a group) is judged by that one.
    """
    for each in error_chain(error):
        if "RayTaskError" in class_names(each):
            continue  # it is also of the class of its cause, with a traceback as its message
        if isinstance(each, MulticsrError):
            return each
        for package, translate in _TRANSLATORS.items():
            if is_of(each, package) and (text := translate(each)) is not None:
                return RunError(one_line(text))
    return None


def explain_error(error: BaseException) -> str:
    """Return one line for any exception: its translation, or its type and message."""
    known = translate_error(error)
    return str(known) if known is not None else describe(error)


_REMEDIES = {
    errno.ENOSPC: "free some space there, or set store or TMPDIR to another place",
    errno.EDQUOT: "the quota of this user is used up: free some space, or use another place",
    errno.EROFS: "the place is mounted read-only: set store or TMPDIR to one that can be written",
    errno.EACCES: "check the permissions of this user",
    errno.EPERM: "the file system or the permissions of this user do not allow it",
    errno.EMFILE: "raise the limit of open files: `ulimit -n 65536`",
    errno.ENFILE: "this machine has too many open files: end other programs",
    errno.ENOMEM: "give it less to do at once, or more memory",
    errno.EAGAIN: "this machine has no processes or threads left: raise `ulimit -u`, or end other programs",
    errno.EIO: "the disk or its network fails: look at the system's log",
    errno.ESTALE: "the network file system was mounted anew: run the command again",
    errno.ENAMETOOLONG: "use shorter names",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "a directory is where a file is expected",
    errno.ENOENT: "check the path",
    errno.EEXIST: "something is there already",
    errno.ENOTEMPTY: "the directory is not empty",
    errno.ELOOP: "symbolic links lead in a circle",
    errno.EXDEV: "the two paths are on different file systems",
    errno.EBUSY: "another program uses it",
    errno.ETXTBSY: "another program runs it",
    errno.ENOEXEC: "the program is for another system",
    errno.EFBIG: "the file system does not take files of that size",
    errno.EADDRINUSE: "another program listens at this port",
    errno.EADDRNOTAVAIL: "this machine has no such address",
    errno.ECONNREFUSED: "nothing listens there: check the address",
    errno.ECONNRESET: "the other side closed the connection: run the command again",
    errno.EPIPE: "the other side closed the connection: run the command again",
    errno.ECONNABORTED: "the other side closed the connection: run the command again",
    errno.ETIMEDOUT: "no answer in time: check the network",
    errno.EHOSTUNREACH: "no route to the host: check the network",
    errno.ENETUNREACH: "no route to the network: check the network",
    errno.EOPNOTSUPP: "this file system cannot do it: use another place",
}
"""Remedies for errors of the operating system."""


def _builtin(error: BaseException) -> str | None:
    """Translate exceptions of Python itself that do not come from a fault in the code."""
    if tls := describe_tls(error):
        return tls
    match error:
        case MemoryError():
            return f"this process has no memory left; {MEMORY}"
        case UnicodeDecodeError():
            return f"not {error.encoding} text: {error.reason}, byte {error.start:,}; convert it to UTF-8"
        case UnicodeEncodeError():
            return f"text that {error.encoding} cannot hold: {error.reason} at character {error.start:,}"
        case ModuleNotFoundError() if error.name and not error.name.startswith("multicsr"):
            return _missing_package(error.name)
        case OSError():
            return _os_error(error)
    return None


def _missing_package(module: str) -> str:
    name = module.partition(".")[0]
    extra = extra_of(name)
    remedy = install_extra(extra) if extra else "`multicsr check` names what is missing"
    return f"the package {name} is not installed: {remedy}"


def _os_error(error: OSError) -> str:
    names = [str(os.fsdecode(name)) for name in (error.filename, error.filename2) if _is_name(name)]
    what = ", ".join(names)
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0)
    line = f"{what}: {reason}" if what else reason
    return f"{line}; {remedy}" if remedy else line


def _is_name(name: object) -> bool:
    return isinstance(name, str | bytes | os.PathLike)


def _child(error: BaseException) -> str | None:
    """Translate failures of subprocesses."""
    if isinstance(error, subprocess.CalledProcessError | subprocess.TimeoutExpired):
        command = error.cmd if isinstance(error.cmd, str) else " ".join(map(str, error.cmd))
        output = error.stderr.decode("utf-8", "replace") if isinstance(error.stderr, bytes) else error.stderr
        end = (
            "does not end"
            if isinstance(error, subprocess.TimeoutExpired)
            else f"ends with {error.returncode}"
        )
        return f"`{command}` {end}{f': {one_line(output)}' if output else ''}"
    return None


def _arrow(error: BaseException) -> str | None:
    """Translate Arrow's exceptions; those that are also OSErrors are translated as OSErrors."""
    if isinstance(error, OSError) and error.errno:
        return _os_error(error)
    if isinstance(error, MemoryError):
        return _builtin(error)
    return f"Arrow: {first_sentence(error)}; `multicsr audit` names damaged files"


def _torch(error: BaseException) -> str | None:
    """Translate torch's errors of devices and of distributed communication."""
    if "OutOfMemoryError" in class_names(error):
        return (
            "the GPU's memory is used up; set the batches of the stage or train.max_length lower "
            "(other programs on the GPU: `nvidia-smi`)"
        )
    if class_names(error) & {"AcceleratorError", "DistBackendError", "DistNetworkError", "DistStoreError"}:
        return f"torch: {first_sentence(error)}"
    return None


def _safetensors(error: BaseException) -> str | None:
    return f"a file of weights is damaged: {first_sentence(error)}; fetch it anew"


def _pydantic(error: BaseException) -> str | None:
    """Translate a ValidationError: the data that was read was not written by this version."""
    if "ValidationError" not in class_names(error):
        return None
    known: Any = error
    problems = known.errors()
    first = problems[0] if problems else {"loc": (), "msg": str(error)}
    place = ".".join(map(str, first["loc"]))
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{known.title}: {f'{place}: ' if place else ''}{first['msg']}{more}"


def _yaml(error: BaseException) -> str | None:
    return f"not YAML: {one_line(str(error))}"


_TRANSLATORS: dict[str, Callable[[BaseException], str | None]] = {
    "ray": translate_ray,
    "botocore": translate_boto,
    "boto3": translate_boto,
    "s3transfer": translate_boto,
    "kubernetes": translate_network,
    "urllib3": translate_network,
    "requests": translate_network,
    "aiohttp": translate_network,
    "huggingface_hub": translate_hub,
    "pyarrow": _arrow,
    "torch": _torch,
    "safetensors_rust": _safetensors,
    "pydantic_core": _pydantic,
    "yaml": _yaml,
    "subprocess": _child,
    "urllib": translate_urllib,
    builtins.__name__: _builtin,
}
"""Translators by the package that defines an exception's class; the first one that knows it decides."""


def cannot_start(what: str, error: BaseException, remedy: str) -> RunError:
    """Return the error for a library that did not start, for any exception that it raised."""
    return RunError(one_line(f"{what}: {explain_error(error)}; {remedy}"))
