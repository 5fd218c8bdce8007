"""The network on some frames only: its results are carried to the others along the motion of the picture."""
