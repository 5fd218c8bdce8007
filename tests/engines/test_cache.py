from __future__ import annotations

import os
from pathlib import Path

from perception.engines.cache import compiled_models_dir, prepare_compiled_models_dir


def test_longest_unused_files_go_first(own_cache: Path) -> None:
    folder = prepare_compiled_models_dir("openvino", 100)
    assert folder == compiled_models_dir("openvino") and folder.is_relative_to(own_cache)
    for i, (name, size) in enumerate([("old", 40), ("older but read lately", 40), ("new", 40), ("newest", 15)]):
        path = folder / name
        path.write_bytes(bytes(size))
        os.utime(path, (1000 + (50 if "lately" in name else i), 1000 + i))
    assert prepare_compiled_models_dir("openvino", 100) == folder
    assert {p.name for p in folder.iterdir()} == {"older but read lately", "new", "newest"}
    assert prepare_compiled_models_dir("openvino", 60) == folder
    assert {p.name for p in folder.iterdir()} == {"older but read lately", "newest"}


def test_within_the_limit_nothing_goes(own_cache: Path) -> None:
    folder = prepare_compiled_models_dir("openvino", 100)
    assert folder is not None
    (folder / "blob").write_bytes(bytes(100))
    prepare_compiled_models_dir("openvino", 100)
    assert [p.name for p in folder.iterdir()] == ["blob"]


def test_no_folder_where_none_can_be_made(own_cache: Path) -> None:
    own_cache.write_text("in the way")
    assert prepare_compiled_models_dir("openvino") is None
