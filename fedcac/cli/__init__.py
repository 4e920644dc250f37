"""The `fedcac` command: one module per verb, heavy imports only inside the verb."""
