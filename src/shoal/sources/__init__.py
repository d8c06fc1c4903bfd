"""Where samples come from: one file a source, three methods at most."""
