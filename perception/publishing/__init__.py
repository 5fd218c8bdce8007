"""Targets that encoded video is published to: their addresses, and connections in processes of their own."""
