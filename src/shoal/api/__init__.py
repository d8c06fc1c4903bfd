"""The controller's HTTP API. Law: a client of control, no logic of its own."""
