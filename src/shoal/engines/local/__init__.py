"""This machine as an engine: supervised process groups."""
