"""Sources of the server: captured and inferred once, whoever watches."""
