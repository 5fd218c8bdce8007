"""What starts perception beside other services, and on many machines: Compose, Kubernetes, Ray."""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main
import yaml

from perception.commands.main import app
from perception.server.settings import ServerSettings
from tests.events.receivers import free_port

DEPLOY = Path(__file__).parent.parent / "deploy"
COMPOSE = DEPLOY / "compose"
CHECK = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent)) or shutil.which("check-jsonschema")


def compose() -> dict[str, Any]:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


def objects() -> dict[str, dict[str, Any]]:
    """The objects of the Kubernetes manifest by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}


def container() -> dict[str, Any]:
    (found,) = objects()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return found


@pytest.mark.skipif(CHECK is None, reason="check-jsonschema is not installed")
def test_the_compose_file_is_one() -> None:
    """By the schema of the Compose Specification."""
    line = [str(CHECK), "--builtin-schema", "vendor.compose-spec", str(COMPOSE / "compose.yaml")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_compose_names_is_there() -> None:
    found = compose()
    for name, service in found["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (COMPOSE / source).is_file() if source.startswith(".") else source in found["volumes"], volume
        assert set(service.get("secrets", [])) <= set(found["secrets"])
        assert set(service.get("depends_on", [])) <= set(found["services"])
        # Nothing is published to other machines.
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    prometheus = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["authorization"]["credentials_file"] == "/run/secrets/metrics-token"
    assert [target.split(":")[0] in found["services"] for one in job["static_configs"] for target in one["targets"]]
    (source,) = yaml.safe_load((COMPOSE / "grafana-datasource.yaml").read_text())["datasources"]
    assert httpx.URL(source["url"]).host in found["services"] and source["type"] == "prometheus"
    (provider,) = yaml.safe_load((COMPOSE / "grafana-dashboards.yaml").read_text())["providers"]
    mounted = {volume.split(":")[1] for volume in found["services"]["grafana"]["volumes"]}
    assert f"{provider['options']['path']}/perception.json" in mounted


def test_kubernetes_takes_the_manifest() -> None:
    """By the schemas of its own API, in which no key is unknown."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for one in objects().values():
        validate.validate(one, "1.32", strict=True)
    assert set(objects()) == {"ConfigMap", "PersistentVolumeClaim", "Service", "Deployment"}


def test_parts_of_the_manifest_fit_together() -> None:
    found, pod = objects(), objects()["Deployment"]["spec"]["template"]
    assert found["Service"]["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert found["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container()["volumeMounts"]} == set(volumes)
    assert volumes["settings"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
    assert volumes["state"]["persistentVolumeClaim"]["claimName"] == found["PersistentVolumeClaim"]["metadata"]["name"]
    (port,) = container()["ports"]
    assert found["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_service_is_started_with_options_that_are_there(where: str) -> None:
    command = compose()["services"]["live"]["command"] if where == "compose" else container()["args"]
    assert command[0] == "live" and all(word.startswith("--") for word in command[1:])
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name for parameter in commands["live"].params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.split("=")[0] for word in command[1:]} <= known
    # Others on its network reach it, so that it has credentials.
    assert "--host=0.0.0.0" in command and any(word.startswith("--password-file=") for word in command)


def live_settings(where: str) -> dict[str, Any]:
    text = (COMPOSE / "live.yaml").read_text() if where == "compose" else objects()["ConfigMap"]["data"]["live.yaml"]
    return yaml.safe_load(text)


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_settings_are_valid(where: str) -> None:
    settings = live_settings(where)
    assert settings.pop("model") == "street"
    made = ServerSettings(**settings)
    (source,) = made.sources.values()
    assert source.keep
    if where == "compose":
        assert httpx.URL(source.uri.replace("rtsp:", "http:")).host in compose()["services"]
        assert settings["events"]["mqtt"]["host"] in compose()["services"]


@pytest.mark.parametrize("where", ["compose", "startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_asks_with_the_token(where: str, tmp_path: Path) -> None:
    """Run as it stands, against a server that wants one; only places are others here."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    asked = []

    class Guarded(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            good = self.headers["Authorization"] == "Bearer the-token"
            self.send_response((200 if ready else 503) if good else 401)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    if where == "compose":
        command = compose()["services"]["live"]["healthcheck"]["test"][1:]
    else:
        command = container()[where]["exec"]["command"]
    assert command[:2] == ["python", "-c"]
    ast.parse(command[2])
    path = "/run/secrets/token" if where == "compose" else "/run/secrets/perception/token"
    (tmp_path / "token").write_text("the-token\n")
    with HTTPServer(("127.0.0.1", 0), Guarded) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        code = command[2].replace(path, str(tmp_path / "token")).replace(":7860", f":{server.server_port}")
        assert path not in code and "7860" not in code
        for ready in (True, False):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
            assert (done.returncode == 0) == ready, done.stderr
        server.shutdown()
    assert set(asked) == {"/healthz" if where == "livenessProbe" else "/readyz"}


@pytest.mark.skipif(shutil.which("mosquitto") is None, reason="there is no mosquitto here")
def test_mosquitto_takes_its_settings(tmp_path: Path) -> None:
    import socket
    import time

    port = free_port()
    settings = (COMPOSE / "mosquitto.conf").read_text().replace("listener 1883", f"listener {port} 127.0.0.1")
    (tmp_path / "mosquitto.conf").write_text(settings)
    line = [str(shutil.which("mosquitto")), "-c", str(tmp_path / "mosquitto.conf")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            ends = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < ends:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            assert process.poll() is None, process.communicate()
        finally:
            process.terminate()
            told, _ = process.communicate(timeout=60)
    assert "Unknown configuration" not in told and "Error" not in told, told


def test_ray_takes_the_cluster() -> None:
    """By Ray's own schema, and by what it does with the file before it starts machines."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    import ray.autoscaler
    from jsonschema import validate
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (DEPLOY / "ray-cluster.yaml").read_text()
    validate(yaml.safe_load(text), json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text()))
    found = prepare_config(yaml.safe_load(text))
    validate_config(found)
    for command in (*found["head_start_ray_commands"], *found["worker_start_ray_commands"]):
        assert shlex.split(command)
    head = " ".join(found["head_start_ray_commands"])
    assert "--ray-client-server-port=10001" in head and "RAY_USAGE_STATS_ENABLED=0" in head
    assert all("RAY_USAGE_STATS_ENABLED=0" in line for line in found["worker_start_ray_commands"] if "start" in line)


def test_the_options_of_ray_are_its_own() -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    line = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--help"]
    known = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True).stdout.split()
    found = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())
    words = shlex.split(" ".join([*found["head_start_ray_commands"], *found["worker_start_ray_commands"]]))
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= set(known)
