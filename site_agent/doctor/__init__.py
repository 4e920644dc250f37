"""`fedcac-site doctor`: whether this installation can take part, and what to mend."""
