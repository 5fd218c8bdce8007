"""Torch networks: backbones, decoders, heads. Never imported by the runtime."""
