"""Pages of the reference, as Markdown that is made from the code itself: commands, settings, HTTP, Python."""
