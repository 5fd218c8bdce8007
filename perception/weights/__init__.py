"""The models that ship with the package or are installed beside it, and finding a model by its name."""

DEFAULT_MODEL = "street-open"
"""The model that is taken where none is named. It is here so that the command line reads it without importing more."""

CAMERA_MODEL = "everyday"
"""The one that the live page begins with before a camera, which seldom looks at a street, if there is a model of that
name."""

RESEARCH = "perception-weights-research"
"""The distribution in ``research/``: models whose sources forbid commercial use."""

RESEARCH_MODELS = ("camvid", "camvid-int8", "street", "street-int8", "street-wide")
"""Those of `RESEARCH`. They are named here so that whoever asks for one is told what to install."""
