"""What people write. Law: no I/O but reading the files that it is told to read."""
