"""Jobs: uploaded videos and their results."""
