"""Pictures: planes, conversions, letterbox, resizing, frames of decoders and for encoders, JPEG."""
