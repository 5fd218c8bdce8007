"""What viewers get of a stream."""
