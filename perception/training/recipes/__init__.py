"""Training recipes: YAML files, checked before anything else runs."""
