"""The models that ship with the package, and finding a model by its name."""

DEFAULT_MODEL = "street-open"
"""The model that is taken where none is named. It is here so that the command line reads it without importing more."""

CAMERA_MODEL = "everyday"
"""The one that the live page begins with before a camera, which seldom looks at a street, if there is a model of that
name."""
