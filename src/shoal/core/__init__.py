"""Pure decisions. Law: no clock, no I/O, no async; `now` is an argument."""
