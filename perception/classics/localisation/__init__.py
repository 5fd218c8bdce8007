"""Localisation: class and box of one object, in a picture or in the windows that slide over a scene."""
