#!/bin/sh
# Make gpu-check-bundle/: what a GPU machine without a network needs for `perception gpu-check`, in one folder of at most
# 25 MiB. Copy it there and run: sh gpu-check.sh [--quick] [--json-file FILE]
# The machine itself has Python 3.12 on x86-64, the NVIDIA driver, and numpy, numba, numba-cuda with its CUDA libraries, onnx and
# onnxruntime, which are too large to bring along; whatever else is there (TensorRT, PyAV, OpenVINO) is used.
set -eu
python=${PYTHON:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
bundle=${1:-$root/gpu-check-bundle}
rm -rf "$bundle"
mkdir -p "$bundle/wheels"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The package with one model, street-open, in its two versions: it is what is looked at there, and the folder stays small.
cp -r "$root/perception" "$root/pyproject.toml" "$root/README.md" "$root/LICENSE" "$root/NOTICE" "$work"
find "$work/perception" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$work/perception/weights" -name '*.onnx' ! -name street-open.onnx ! -name street-open-int8.onnx -delete
(cd "$work/perception/weights" && grep -E ' (street-open|street-open-int8)\.onnx$' SHA256SUMS > kept && mv kept SHA256SUMS)
"$python" -m pip wheel -q --no-deps -w "$bundle/wheels" "$work"
"$python" -m pip download -q --only-binary=:all: --implementation cp --python-version 3.12 \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  -d "$bundle/wheels" 'pydantic>=2.9,<3' 'platformdirs>=4,<5' 'filelock>=3.16,<5' 'pyyaml>=6.0.1,<7'

cat > "$bundle/gpu-check.sh" <<'EOF'
#!/bin/sh
# Unpack what lies beside this, and run the check. Nothing is installed into the machine's own Python.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
python3 -m pip install -q --no-index --no-deps --no-compile --target "$site" "$here"/wheels/*.whl
PYTHONPATH=$site python3 -m perception.gpu_check "$@"
EOF

size=$(du -sk "$bundle" | cut -f1)
[ "$size" -le 25600 ] || { echo "gpu-check-bundle has $size KiB: more than 25 MiB" >&2; exit 1; }
echo "$bundle: $size KiB"
