"""The gateway. Law: rendering is pure; a request never waits for the controller, the wake from zero aside."""
