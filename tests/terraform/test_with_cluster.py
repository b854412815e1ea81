"""terraform/bin/with-cluster with the real `aws`: a kubeconfig for one command, gone with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.terraform.terraform import CACHE, ROOT, Answer, run

CLUSTER = {
    "name": "blue",
    "arn": "arn:aws:eks:us-east-1:123456789012:cluster/blue",
    "endpoint": "https://blue.eks.test",
    "status": "ACTIVE",
    "certificateAuthority": {"data": "Y2E="},
}


class Eks(BaseHTTPRequestHandler):
    """Tells of one cluster."""

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        known = self.path == "/clusters/blue"
        text = json.dumps({"cluster": CLUSTER} if known else {"message": "No cluster found"})
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        if not known:
            self.send_header("x-amzn-ErrorType", "ResourceNotFoundException")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def eks() -> Iterator[str]:
    """The address of EKS."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Eks)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def with_cluster(eks: str, folder: Path, name: str, *command: str) -> Answer:
    """Run it, with temporary files in *folder*."""
    environment = {
        "PATH": f"{CACHE / 'aws' / 'bin'}:/usr/bin:/bin", "TMPDIR": str(folder),
        "AWS_ENDPOINT_URL": eks, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }  # fmt: skip
    script = str(ROOT / "terraform" / "bin" / "with-cluster")
    return run([script, name, "us-east-1", *command], ROOT, environment)


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_has_a_kubeconfig_and_its_status_is_told(
    eks: str, tmp_path: Path, status: int
) -> None:
    answer = with_cluster(eks, tmp_path, "blue", "sh", "-c", f'cat "$KUBECONFIG"; exit {status}')
    assert answer.status == status
    assert "server: https://blue.eks.test" in answer.said
    assert list(tmp_path.iterdir()) == []


def test_without_the_cluster_nothing_is_run(eks: str, tmp_path: Path) -> None:
    answer = with_cluster(eks, tmp_path, "green", "echo", "run")
    assert answer.status != 0
    assert "ResourceNotFoundException" in answer.said
    assert "run" not in answer.said.split()
    assert list(tmp_path.iterdir()) == []
