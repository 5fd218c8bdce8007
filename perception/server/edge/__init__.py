"""The edge of the service: access, allow-list, uploads, limits."""
