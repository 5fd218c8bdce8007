"""The models that ship with the package, and those that users have put beside them."""
