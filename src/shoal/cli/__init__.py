"""Arguments and output. Law: commands import lazily; data on stdout, progress on stderr."""
