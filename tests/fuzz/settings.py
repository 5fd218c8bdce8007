"""YAML of every kind that is read: settings, recipes, cards, suites, lists of names and models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import yaml

from perception.card import read_card
from perception.common.settings import load_config
from perception.evaluation.classes import read_synonyms
from perception.evaluation.suite import read_suite
from perception.foreign.adapter import read_foreign_card
from perception.server.settings import make_settings, read_settings
from perception.tracking.files import read_settings as read_tracking
from perception.training.export.making import read_plans
from perception.training.pseudo_labels.recipe import read_labels_recipe
from perception.training.recipes.read import read_config
from perception.weights.catalogue import read_catalogue
from tests.fuzz.family import Family, pack, random_for, unpack
from tests.fuzz.mutate import mutated, odd_tree

ROOT = Path(__file__).parents[2]

READERS: dict[str, Callable[[Path], Any]] = {
    "live": lambda path: make_settings(read_settings(path), path),
    "annotate": lambda path: load_config(path, ["model", "score", "max_frames", "classes", "video"]),
    "recipe": read_config,
    "labels": read_labels_recipe,
    "card": lambda path: read_card("unused.onnx", path),
    "foreign": read_foreign_card,
    "suite": read_suite,
    "names": read_synonyms,
    "plans": read_plans,
    "tracking": read_tracking,
    "catalogue": read_catalogue,
}
"""What reads a file, by its kind."""

EXAMPLES = {
    "live": ["configs/live.yaml"],
    "annotate": ["configs/annotate.yaml", "configs/best-quality.yaml"],
    "recipe": ["configs/train/street.yaml", "configs/train/camvid.yaml", "configs/train/everyday.yaml"],
    "labels": ["configs/labels/everyday.yaml", "configs/labels/street-open.yaml"],
    "card": ["perception/foreign/cards/yolov8.yaml"],
    "foreign": ["perception/foreign/cards/yolov8.yaml", "perception/foreign/cards/yolox.yaml"],
    "suite": ["configs/suites/street.yaml"],
    "names": ["configs/names/highway.yaml"],
    "plans": ["configs/models/shipped.yaml"],
    "tracking": [],
    "catalogue": ["perception/weights/catalogue.yaml"],
}
TRACKING = "tracking: {high: 0.5, low: 0.1, match: 0.2, max_age: 30, camera: true}\n"

SCRAPS = (
    "a: &a [*a]", "&a", "*a", "<<: *a", "<<: 1", "<<: [1]", "!!python/object/apply:os.system [x]", "!!python/none",
    "!!timestamp x", "!!int x", "!!int ''", "!!float x", "!!float ''", "!!bool x", "!!binary x", "!!binary é",
    "!!set {1}", "!!omap [1]", "!!omap {a: 1}", "!!pairs 1", "!!str [1]", "!!seq x", "!!map x", "2020-13-45",
    "2020-02-30", "2020-01-01 99:99:99", "0001-01-01 00:00:00 +23:59", "? ", "? [a]\n: b", "{[a]: b}", "{{a: b}: c}",
    "- - - - - -", "%YAML 9.9\n---", "---\n---", "--- a", "...", "\t", "\0", "\ufeff", "\x85", "\u2028", "0x", "0b",
    "0o8", "1_", "_", "1:99:99", "190:20:30", "-.inf", ".nan", "=", "!<", "!<x>", "!", "!!", "@", "`", "'", '"', "|",
    ">-",
    "|9",
    "#", ": ", "- ", ",", "[", "]", "{", "}", "0" * 5000, "9" * 5000, "1e" + "9" * 30, "x" * 70_000,
)  # fmt: skip
"""What YAML is picky about."""


def bomb(random: Random) -> str:
    """Aliases of aliases: nine lines that stand for a billion values, in a list or under a key."""
    width, depth = random.choice((2, 9, 30)), random.choice((3, 9, 40))
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    if random.random() < 0.3:
        lines = [line.replace("[", "{k0: ").replace(", ", ", k1: ", 1).replace("]", "}") for line in lines[:1]]
    name = random.choice(("classes", "sets", "sources", "adapter", "detection", "x", "data", "name", "trained_on"))
    return "\n".join((*lines, f"{name}: *a{len(lines) - 1}"))


def deep(random: Random) -> str:
    """Nested far deeper than anybody means."""
    depth = random.choice((20, 100, 300, 900, 3000, 20_000))
    opens, closes = random.choice((("[", "]"), ("{a: ", "}"), ("- ", ""), ("a:\n ", ""), ("&a [", "]"), ("? ", "")))
    return opens * depth + "x" + closes * random.choice((depth, 0))


class Inputs(Family):
    """See `perception.common.settings.read_yaml` and those that call it."""

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        texts = {kind: [(ROOT / name).read_text() for name in names] for kind, names in EXAMPLES.items()}
        texts["tracking"] = [TRACKING]
        return texts

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("settings", seed, index)
        kind = random.choice(list(READERS))
        text = random.choice(self._texts[kind])
        how = random.randrange(10)
        if how < 5:
            tree = odd_tree(random, yaml.safe_load(text), random.choice((1, 1, 3)))
            body = yaml.safe_dump(tree, sort_keys=False, allow_unicode=random.random() < 0.5).encode("utf-8", "replace")
        elif how < 7:
            lines = text.splitlines()
            for _ in range(random.randint(1, 3)):
                lines = self._with_scrap(random, lines)
            body = "\n".join(lines).encode("utf-8", "surrogatepass")
        elif how == 7:
            body = mutated(random, text.encode())
        elif how == 8:
            body = f"{text if random.random() < 0.5 else ''}\n{bomb(random)}\n".encode()
        else:
            body = deep(random).encode()
        return pack(body, kind=kind)

    @staticmethod
    def _with_scrap(random: Random, lines: list[str]) -> list[str]:
        at = random.randrange(len(lines))
        line, scrap = lines[at], random.choice(SCRAPS)
        colon = line.find(": ")
        changed = line[: colon + 2] + scrap if colon > 0 and random.random() < 0.7 else line + scrap
        return [*lines[:at], changed, *lines[at + 1 :]]

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        path = self.folder / "input.yaml"
        path.write_bytes(body)
        try:
            READERS[head["kind"]](path)
        finally:
            path.unlink()
        return True
