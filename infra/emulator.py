"""An emulator of the AWS APIs in a process of its own: moto, with what `infra.emulated` adds to it.

    with emulator() as endpoint: …

The child is `python -m infra.emulator`; it prints its URL and ends with its standard input, so with whoever started it.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

from infra.errors import InfraError

if TYPE_CHECKING:
    from local.aws_server import WsgiApp  # with it comes moto, which only the child needs

ROOT: Final = Path(__file__).parents[1]
IMAGE: Final = {
    "owner_id": "137112412989",
    "public": True,
    "architecture": "arm64",
    "virtualization_type": "hvm",
    "hypervisor": "xen",
    "root_device_type": "ebs",
    "root_device_name": "/dev/xvda",
}
"""Of Amazon Linux, as moto wants it described."""


@contextmanager
def emulator(images: Collection[str] = ()) -> Iterator[str]:
    """The URL of one on loopback; gone afterwards. Raises InfraError where there is no moto.

    It is empty but for what AWS itself brings: its managed policies, and `images`, ids of machine images of arm64.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([IMAGE | {"ami_id": one, "name": one} for one in images], file)
        file.flush()
        with _serve(file.name) as endpoint:
            yield endpoint


@contextmanager
def _serve(images: str) -> Iterator[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MOTO_"))}
    # Read when moto is imported: without it there is no AWS-managed policy to attach.
    environment["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    environment["MOTO_AMIS_PATH"] = images
    with subprocess.Popen(
        [sys.executable, "-m", "infra.emulator"],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            endpoint = process.stdout.readline().strip()
            if not endpoint:
                raise InfraError("the emulator did not start: it needs moto, requirements/install dev")
            yield endpoint
        finally:
            process.stdin.close()
            process.terminate()


def main() -> None:
    """Serve until standard input ends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    from infra.emulated import install
    from infra.emulated_serverless import PREFIX, RedshiftServerless
    from local.aws_server import one_at_a_time, serve_in_thread

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # the access log
    install()
    moto, serverless = DomainDispatcherApplication(create_backend_app), RedshiftServerless()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        ours = environ.get("HTTP_X_AMZ_TARGET", "").startswith(PREFIX)
        return (serverless if ours else moto)(environ, start_response)

    print(serve_in_thread(one_at_a_time(_answers_again(_says_what_it_lacks(application)))), flush=True)
    sys.stdin.read()


def _answers_again(application: WsgiApp) -> WsgiApp:
    """A request that an SDK sends again, since the answer was lost, gets that answer: it is not done a second time.

    One in a thousand is, on a busy machine; what creates something would be refused as its own duplicate.
    """
    answers: dict[str, tuple[str, list[tuple[str, str]], bytes]] = {}

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = environ.get("HTTP_AMZ_SDK_INVOCATION_ID", "")
        if request in answers:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        else:
            told: list[Any] = []
            body = b"".join(application(environ, lambda *given: told.extend(given)))
            if not request or told[0] >= "500":
                start_response(*told)
                return [body]
            answers[request] = told[0], told[1], body
        status, headers, body = answers[request]
        start_response(status, headers)
        return [body]

    return answer


def _says_what_it_lacks(application: WsgiApp) -> WsgiApp:
    """An operation that there is not is an error that an SDK reads, where moto ends the request with a traceback."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            return application(environ, start_response)
        except NotImplementedError as error:
            if "HTTP_X_AMZ_TARGET" in environ:
                body = json.dumps({"__type": "NotEmulated", "message": str(error)})
            else:
                told = f"<Code>NotEmulated</Code><Message>{escape(str(error))}</Message>"
                body = f"<ErrorResponse><Error>{told}</Error></ErrorResponse>"
            # Not 500, which an SDK would try again.
            start_response("400 Bad Request", [("content-length", str(len(body.encode())))])
            return [body.encode()]

    return answer


if __name__ == "__main__":
    main()
