"""OpenVINO reports to nobody, and starts no process for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.models import write_model

SCRIPT = """
import sys
started = []
sys.addaudithook(lambda event, args: started.append(event) if event in ("os.fork", "os.posix_spawn") else None)
from perception import load_model
with load_model(sys.argv[1], engine="openvino", precision="fp32") as model:
    print(model.engine.description)
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__.endswith("telemetry_stub"), telemetry_utils.tm
assert "openvino_telemetry" not in sys.modules
assert "os.fork" not in started, started
"""


def test_openvino_reports_to_nobody(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.onnx")
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(model)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "OpenVINO" in done.stdout
