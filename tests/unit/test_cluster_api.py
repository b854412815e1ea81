"""What the API server answers, as it says what it is: an object, or a program's words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from vpclab.cluster.api import Api, ApiError, Ended, ended

LINE = '{"event": "serving", "leases": 3}'


class _Server(BaseHTTPRequestHandler):
    """One pod's log, which is a line of JSON, and the pod itself."""

    def do_GET(self) -> None:
        is_log = self.path.endswith("/log")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain" if is_log else "application/json")
        self.end_headers()
        self.wfile.write(LINE.encode())

    def log_message(self, *_: object) -> None:
        """A request is not news."""


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with HTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            json.dumps(
                {
                    "current-context": "lab",
                    "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
                    "clusters": [
                        {
                            "name": "lab",
                            "cluster": {"server": f"http://127.0.0.1:{server.server_port}"},
                        }
                    ],
                    "users": [{"name": "lab", "user": {}}],
                }
            )
        )
        with closing(Api(kubeconfig)) as api:
            yield api
        server.shutdown()
        thread.join()


def test_a_log_of_one_json_line_is_that_line(api: Api) -> None:
    assert api.logs("kube-system", "enid-x") == LINE


def test_an_object_is_an_object(api: Api) -> None:
    assert api.ask("GET", "/api/v1/namespaces/kube-system/pods/enid-x") == json.loads(LINE)


class _Answer:
    """The client's answer to an exec, whose status ends with *word*."""

    def __init__(self, word: str) -> None:
        self._word = word

    @property
    def returncode(self) -> int:
        return int(self._word)

    def is_open(self) -> bool:
        return False

    def read_all(self) -> str:
        return "said"


def test_a_program_that_ran_has_an_exit_status() -> None:
    assert ended(_Answer("3"), ["false"], 1) == Ended(3, "said")


def test_one_that_never_ran_is_the_servers_failure() -> None:
    with pytest.raises(ApiError, match="no running task found"):
        ended(_Answer("no running task found: not found"), ["true"], 1)
