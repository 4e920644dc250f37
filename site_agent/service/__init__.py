"""The agent as a service: lock, signals, notification, log, pauses, and the loop over them."""
